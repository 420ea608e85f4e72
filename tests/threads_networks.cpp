// A program may train several networks at once, each on a thread of its own: every one gets the
// bits that it would get alone.

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/layers/text_capsules.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/optim/adam.hpp>

#include "layers_capsnet.hpp"

using namespace capsfw;
using capsfw::testing::same_bits;
using capsfw::testing::Threads;

namespace {

constexpr int kSteps = 6;

/// The state of a network after some steps of Adam.
template <class Net, class Loss>
StateDict trained(Net& net, const Loss& loss) {
  Adam adam(net.named_parameters(), {.lr = 1e-2});
  for (int k = 0; k < kSteps; ++k) {
    adam.zero_grad();
    backward(loss());
    adam.step();
  }
  return net.state_dict();
}

StateDict capsnet(bool partial) {
  Rng rng(1), data(2);
  CapsNetOptions o = test::tiny_options();
  if (partial) o.dense.keep = 0.7;
  CapsNet net(o, rng);
  const Tensor labels = from_vector<std::int64_t>({0, 1, 2, 0, 1, 2, 0, 1}),
               target = one_hot(labels, 3);
  return trained(net, [&] {
    const Tensor x = data.uniform({8, 1, 8, 9}, 0, 1);
    return capsnet_loss(net(x, labels), x, target);
  });
}

StateDict matrix_capsules() {
  Rng rng(1), data(2);
  MatrixCapsNetOptions o = MatrixCapsNetOptions::small({1, 20, 20}, 3);
  o.conv = {8, 5, 2};
  o.primary_types = 4;
  MatrixCapsNet net(o, rng);
  const Tensor labels = from_vector<std::int64_t>({0, 1, 2});
  return trained(net, [&] {
    return spread_loss(net(data.uniform({3, 1, 20, 20}, 0, 1)).activations, labels, 0.5);
  });
}

StateDict text() {
  Rng rng(1), data(2);
  TextCapsNetOptions o{.filters = 8, .types = 4, .dim = 4, .window_types = 4};
  o.words = WordTable::tuned;
  TextCapsNet net(rng.normal({50, 12}, 0, 0.3), 2, o, rng);
  const Tensor labels = from_vector<std::int64_t>({0, 1, 0, 1}), target = one_hot(labels, 2);
  return trained(net, [&] {
    const Tensor ids = cast_data(data.uniform({4, 12}, 2, 49), DType::i64);
    return margin_loss(net(ids, ones({4, 12}, DType::b8)).lengths, target);
  });
}

const std::vector<std::function<StateDict()>> kTrainings = {
    [] { return capsnet(false); }, text, [] { return capsnet(true); }, matrix_capsules};

/// All trainings, at the same time or one after the other.
std::vector<StateDict> train_all(bool at_once) {
  std::vector<StateDict> out(kTrainings.size());
  std::vector<std::thread> threads;
  for (std::size_t k = 0; k < kTrainings.size(); ++k) {
    const auto work = [&out, k] { out[k] = kTrainings[k](); };
    if (at_once)
      threads.emplace_back(work);
    else
      work();
  }
  for (std::thread& t : threads) t.join();
  return out;
}

}  // namespace

TEST_CASE("threads: networks trained at once get the bits of networks trained in turn") {
  const std::vector<StateDict> alone = train_all(false);
  for (const int n : {1, 2, 4}) {
    CAPTURE(n);
    const Threads use(n);
    const std::vector<StateDict> together = train_all(true);
    for (std::size_t k = 0; k < alone.size(); ++k)
      for (const auto& [name, value] : alone[k]) {
        const std::string& entry = name;
        CAPTURE(entry);
        CHECK(same_bits(together[k].at(name), value));
      }
  }
}

TEST_CASE("threads: modes of one thread are not those of another") {
  const NoGradGuard no_grad;
  const AnomalyGuard anomaly;
  const Scope scope("here");
  bool grad_there = false, anomaly_there = true, path_there = true;
  std::thread([&] {
    grad_there = is_grad_enabled();
    anomaly_there = detail::anomaly_enabled();
    path_there = detail::current_path() != nullptr;
  }).join();
  CHECK(grad_there);
  CHECK(!anomaly_there);
  CHECK(!path_there);
}
