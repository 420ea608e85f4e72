// Networks and layers have the same bits for any number of threads. The thread sanitizer runs this
// program, which has what is enough work to be cut among threads.

#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/routing_table.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::bytes_of;
using capsfw::testing::kSanitized;
using capsfw::testing::same_bits;

namespace {

/// The bits of `y` and of the gradients of the parameters and of x, for random cotangents.
std::string bits_of(const TensorList& y, const Module& layer, const Tensor& x) {
  TensorList inputs = layer.parameters(), cotangents, outputs;
  inputs.push_back(x);
  Rng rng(7);
  std::string bits;
  for (const Tensor& t : y) {
    if (!t.defined()) continue;
    bits += bytes_of(t.detach());
    if (!t.requires_grad()) continue;
    outputs.push_back(t);
    cotangents.push_back(rng.normal(t.shape(), 0, 1));
  }
  for (const Tensor& g : grad(outputs, inputs, cotangents, {.allow_unused = true}))
    if (g.defined()) bits += bytes_of(g);
  return bits;
}

template <class F>
void check_threads(const F& run) {
  std::string expected;
  for (const int n : {1, 2, 3, 7}) {
    if (kSanitized && n != 1 && n != 3) continue;  // slow there
    CAPTURE(n);
    const testing::Threads threads(n);
    std::string bits = run();
    if (expected.empty()) expected = bits;
    CHECK(bits == expected);
  }
}

}  // namespace

TEST_CASE("values and gradients of a whole network do not depend on the number of threads") {
  const auto run = [](int threads) {
    const testing::Threads guard(threads);
    Rng rng(5);
    CapsNetOptions o = CapsNetOptions::compact({1, 28, 26});
    o.capsules = {{12, 8}, {10, 16}};
    CapsNet net(o, rng);
    const Tensor x = rng.uniform({7, 1, 28, 26}, 0, 1).requires_grad_();
    const CapsNetOutput out = net(x, rng.integers({7}, 10));
    const Tensor loss =
        capsnet_loss(out, x, one_hot(rng.integers({7}, 10), 10), {.reconstruction = 0.01});
    backward(loss);
    TensorList all = {loss, out.lengths, out.couplings, out.reconstruction, x.grad()};
    for (const Tensor& p : net.parameters()) all.push_back(p.grad());
    // Second order: the gradient of the penalty on the input gradient.
    net.zero_grad();
    const Tensor g = grad(sum(net(x, {}, false).lengths), x, {}, {.create_graph = true});
    backward(sum(square(g)));
    all.push_back(g.detach());
    all.push_back(net.named_parameters()[0].second.grad());
    return all;
  };
  const TensorList one = run(1);
  for (int threads : {2, 3, 7}) {
    if (testing::kSanitized && threads != 3) continue;  // slow there
    const TensorList many = run(threads);
    REQUIRE(many.size() == one.size());
    for (std::size_t i = 0; i < one.size(); ++i) {
      CAPTURE(threads);
      CAPTURE(i);
      CHECK(same_bits(many[i], one[i]));
    }
  }
}

TEST_CASE("layers of capsules have the same bits for any number of threads, with every routing") {
  for (const RoutingKind& kind : routing_kinds())
    for (const std::int64_t batch : {3, 20}) {  // stored votes, and products
      CAPTURE(std::string(kind.name));
      CAPTURE(batch);
      check_threads([&] {
        Rng rng(1);
        DenseCapsules layer(120, 8, 10, 16, rng, {.routing = RoutingSpec(std::string(kind.name))});
        const Tensor x = rng.normal({batch, 120, 8}, 0, 1).requires_grad_();
        const Routed out = layer.route(x);
        return bits_of({out.poses, out.couplings, out.activations}, layer, x);
      });
    }
}

TEST_CASE("convolutional capsules have the same bits for any number of threads") {
  for (const std::string routing : {"dynamic", "kmeans", "entropy", "em"}) {
    CAPTURE(routing);
    check_threads([&] {
      Rng rng(1);
      ConvCapsules layer(4, 8, 6, 8, {.kernel = {3, 3}}, rng, {.routing = RoutingSpec(routing)});
      const Tensor x = rng.normal({4, 4, 9, 8, 8}, 0, 1).requires_grad_();
      const ConvRouted out = layer.route(x);
      return bits_of({out.poses, out.couplings}, layer, x);
    });
  }
}
