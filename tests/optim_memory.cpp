// The estimate of a training step against a real one.

#include <functional>
#include <memory>
#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/layers/text_capsules.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/memory.hpp>
#include <capsfw/optim/memory_estimate.hpp>
#include <capsfw/optim/sgd.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::MemoryLimit;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Tensor labels(std::int64_t n, std::int64_t classes) {
  std::vector<std::int64_t> v;
  for (std::int64_t i = 0; i < n; ++i) v.push_back(i % classes);
  return from_vector(v);
}

StepLoss capsnet_step(CapsNet& net) {
  return [&net](std::int64_t n) {
    Rng rng(3);
    const Tensor x = rng.uniform({n, 1, 28, 28}, 0, 1), y = labels(n, 10);
    return capsnet_loss(net(x, y), x, one_hot(y, 10));
  };
}

StepLoss matrix_step(MatrixCapsNet& net) {
  return [&net](std::int64_t n) {
    Rng rng(3);
    return spread_loss(net(rng.uniform({n, 1, 28, 28}, 0, 1)).activations, labels(n, 10), 0.9);
  };
}

StepLoss text_step(TextCapsNet& net) {
  return [&net](std::int64_t n) {
    Rng rng(3);
    const Tensor ids = cast_data(rng.uniform({n, 40}, 2, 300), DType::i64);
    return margin_loss(net(ids, ones({n, 40}, DType::b8)).lengths, one_hot(labels(n, 6), 6));
  };
}

TextCapsNet text_net(Rng& rng) {
  TextCapsNetOptions o;
  o.words = WordTable::tuned;
  return {rng.normal({300, 50}, 0, 0.1), 6, o, rng};
}

/// The most memory that tensors take while two real steps are made.
std::size_t measured(Optimizer& optimizer, std::int64_t batch, const StepLoss& loss) {
  reset_peak_memory();
  for (int k = 0; k < 2; ++k) {
    const Tensor value = loss(batch);
    optimizer.zero_grad();
    backward(value);
    optimizer.step();
  }
  return memory_stats().peak;
}

/// A step of the past: its gradients are there while the next one is estimated.
void leave_gradients(Module& net) {
  for (Tensor p : net.parameters()) p.set_grad(zeros_like(p));
}

void check_estimate(Module& net, std::int64_t batch, const StepLoss& loss) {
  Adam adam(net.named_parameters(), {.lr = 1e-3});
  const MemoryEstimate e = estimate_memory(net, adam, batch, loss);
  leave_gradients(net);
  const MemoryEstimate again = estimate_memory(net, adam, batch, loss);
  CHECK(again.optimizer == e.optimizer);
  CHECK(again.gradients == e.gradients);
  const std::size_t before = memory_stats().live;
  const auto real = static_cast<double>(measured(adam, batch, loss));
  CAPTURE(e.str());
  CAPTURE(real);
  CHECK(static_cast<double>(e.total()) == doctest::Approx(real).epsilon(0.2));
  CHECK(static_cast<double>(e.missing()) ==
        doctest::Approx(real - static_cast<double>(before)).epsilon(0.2));
  MESSAGE(e.str() << "; measured " << real / 1e6 << " MB");
}

}  // namespace

TEST_CASE("estimate_memory: within a fifth of what a step takes") {
  if (capsfw::testing::kSanitized) return;  // nothing else than large steps of networks
  Rng rng(1);
  SUBCASE("CapsNet") {
    CapsNet net(CapsNetOptions::compact(), rng);
    check_estimate(net, 80, capsnet_step(net));
  }
  SUBCASE("CapsNet, fewer samples than are probed") {
    CapsNet net(CapsNetOptions::small(), rng);
    check_estimate(net, 5, capsnet_step(net));
  }
  SUBCASE("CapsNet with stored votes") {
    CapsNetOptions o = CapsNetOptions::small();
    o.dense.routing = "self-attention";
    CapsNet net(o, rng);
    check_estimate(net, 70, capsnet_step(net));
  }
  SUBCASE("matrix capsules") {
    MatrixCapsNet net(MatrixCapsNetOptions::small(), rng);
    check_estimate(net, 48, matrix_step(net));
  }
  SUBCASE("text") {
    TextCapsNet net = text_net(rng);
    check_estimate(net, 100, text_step(net));
  }
}

TEST_CASE("estimate_memory leaves the network and the optimizer as they were") {
  const auto run = [](bool estimated) {
    Rng rng(1);
    CapsNetOptions o = CapsNetOptions::small();
    o.dense.keep = 0.5;  // draws from a generator
    CapsNet net(o, rng);
    MatrixCapsNet matrix(MatrixCapsNetOptions::small(), rng);  // has running statistics
    Adam adam(net.named_parameters(), {.lr = 1e-3}), other(matrix.named_parameters(), {.lr = 1e-3});
    if (estimated) {
      estimate_memory(net, adam, 40, capsnet_step(net));
      estimate_memory(matrix, other, 3, matrix_step(matrix));
      for (const Tensor& p : net.parameters()) CHECK(!p.grad().defined());
    }
    measured(adam, 4, capsnet_step(net));
    measured(other, 4, matrix_step(matrix));
    StateDict all;
    all.merge("net", net.state_dict());
    all.merge("matrix", matrix.state_dict());
    return all;
  };
  const StateDict with = run(true), without = run(false);
  for (const auto& [name, value] : without) {
    const std::string& entry = name;
    CAPTURE(entry);
    CHECK(same_bits(with.at(name), value));
  }
}

TEST_CASE("check_memory: what does not fit, and a batch that does") {
  Rng rng(1);
  CapsNet net(CapsNetOptions::small(), rng);
  SGD sgd(net.named_parameters(), {.lr = 1e-3});
  const MemoryEstimate e = estimate_memory(net, sgd, 64, capsnet_step(net));
  CHECK(e.parameters > 0);
  CHECK(e.gradients >= e.parameters);
  CHECK(e.optimizer == 0);
  CHECK(check_memory(e).empty());
  CHECK(!e.fits.has_value());
  {
    const MemoryLimit limit(e.total() - e.step / 2);
    const std::string text = message_of<MemoryError>([&] { check_memory(e); });
    CAPTURE(text);
    CHECK(contains(text, "a step of 64 samples takes about"));
    CHECK(contains(text, "the memory limit is"));
    const std::size_t at = text.find("a batch of ");
    REQUIRE(at != std::string::npos);
    const int batch = std::stoi(text.substr(at + 11));
    CHECK(batch > 20);
    CHECK(batch < 40);
    // It is true: this batch runs within the limit, and the one asked for does not.
    CHECK_NOTHROW(measured(sgd, batch, capsnet_step(net)));
    CHECK_THROWS_AS(measured(sgd, 64, capsnet_step(net)), MemoryError);
    // Known beforehand, the limit makes the advice one that was tried.
    const MemoryEstimate tried = estimate_memory(net, sgd, 64, capsnet_step(net));
    REQUIRE(tried.fits.has_value());
    CHECK(*tried.fits > 10);
    CHECK(*tried.fits < 64);
    CHECK(contains(message_of<MemoryError>([&] { check_memory(tried); }),
                   "a batch of " + std::to_string(*tried.fits)));
    CHECK_NOTHROW(measured(sgd, *tried.fits, capsnet_step(net)));
  }
  {
    // Half of the batch is what can be measured; the whole is twice that.
    const MemoryLimit limit(memory_stats().live + e.gradients + e.step * 3 / 4);
    const MemoryEstimate half = estimate_memory(net, sgd, 64, capsnet_step(net));
    CHECK(static_cast<double>(half.step) ==
          doctest::Approx(static_cast<double>(e.step)).epsilon(0.3));
  }
  {
    const MemoryLimit limit(memory_stats().live + e.gradients + 1000);
    CHECK(
        contains(message_of<MemoryError>([&] { estimate_memory(net, sgd, 64, capsnet_step(net)); }),
                 "a training step of one sample does not fit into memory: "));
  }
  CHECK(memory_limit() == 0);
  MemoryEstimate huge = e;
  huge.step = std::size_t{1} << 60;
  CHECK(contains(check_memory(huge), "the machine has only"));
  CHECK(contains(message_of<ValueError>([&] { estimate_memory(net, sgd, 0, capsnet_step(net)); }),
                 "batch must be at least 1; got 0"));
}

TEST_CASE("memory of the process and of the machine") {
  CHECK(resident_memory() > 1'000'000);
  CHECK(static_cast<double>(resident_memory()) <= peak_memory_mb() * 1e6 + 1e6);
  CHECK(available_memory() > 1'000'000);
}
