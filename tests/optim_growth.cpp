// A long training takes no more memory than a short one. CAPSFW_GROWTH_STEPS makes it longer (the
// nightly test: 10,000).

#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/penalty.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/memory.hpp>

#include "layers_capsnet.hpp"

using namespace capsfw;

namespace {

int steps() {
  const char* text = std::getenv("CAPSFW_GROWTH_STEPS");
  return text == nullptr ? 200 : std::stoi(text);
}

/// One step of Adam; with the penalty, through second derivatives.
void step(CapsNet& net, Adam& adam, Rng& rng, bool penalty) {
  const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 0}), target = one_hot(labels, 3);
  const Tensor x = rng.uniform({4, 1, 8, 9}, 0, 1).requires_grad_(penalty);
  const Tensor each = margin_loss_per_sample(net(x, labels).lengths, target);
  Tensor loss = mean(each);
  if (penalty) loss = loss + 0.1 * input_gradient_penalty(each, x);
  adam.zero_grad();
  backward(loss);
  adam.step();
}

}  // namespace

TEST_CASE("growth: live bytes, nodes and resident memory stay where they were after a warm-up") {
  for (const bool penalty : {false, true}) {
    CAPTURE(penalty);
    Rng rng(1);
    CapsNet net(test::tiny_options(), rng);
    Adam adam(net.named_parameters(), {.lr = 1e-3});
    const int n = steps();
    for (int k = 0; k < 20; ++k) step(net, adam, rng, penalty);
    adam.zero_grad();
    const MemoryStats before = memory_stats();
    const std::int64_t nodes = live_nodes();
    for (int k = 0; k < n / 4; ++k) step(net, adam, rng, penalty);
    const std::size_t resident = resident_memory();  // sizes of the heap have settled by now
    for (int k = n / 4; k < n; ++k) step(net, adam, rng, penalty);
    adam.zero_grad();
    CHECK(memory_stats().live == before.live);
    CHECK(memory_stats().system == before.system);
    CHECK(live_nodes() == nodes);
    if (!capsfw::testing::kSanitized) CHECK(resident_memory() <= resident + 1'000'000);
  }
}
