// Training small capsule networks: they learn, repeat to the bit, and leave nothing behind.

#include <cmath>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/clip.hpp>

#include "layers_capsnet.hpp"

using namespace capsfw;
using namespace capsfw::test;
using capsfw::testing::kSanitized;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;

namespace {

/// Bright bars on noise, 12x10 pixels: class k has its bar in rows 3k and 3k + 1.
struct Bars {
  Tensor images, labels, targets;
  explicit Bars(std::int64_t count, std::uint64_t seed = 1) {
    Rng rng(seed);
    images = rng.uniform({count, 1, 12, 10}, 0, 0.3);
    labels = rng.integers({count}, 4);
    targets = one_hot(labels, 4);
    const auto classes = labels.to_vector<std::int64_t>();
    for (std::int64_t b = 0; b < count; ++b)
      narrow(select(images, 0, b), 1, 3 * classes[static_cast<std::size_t>(b)], 2).fill_(0.9);
  }
};

CapsNetOptions options(std::vector<CapsuleSize> capsules = {{4, 6}}) {
  CapsNetOptions o;
  o.image = {1, 12, 10};
  o.convs = {{8, 3, 1}};
  o.primary = {4, 4};
  o.primary_kernel = 3;
  o.capsules = std::move(capsules);
  o.decoder_hidden = {16};
  return o;
}

double step(CapsNet& net, Optimizer& optimizer, const Bars& data) {
  const Tensor loss = capsnet_loss(net(data.images, data.labels), data.images, data.targets);
  optimizer.zero_grad();
  backward(loss);
  optimizer.step();
  return loss.item();
}

/// The weights after 5 steps from a seed.
StateDict trained(std::uint64_t seed, int threads = 2) {
  const testing::Threads guard(threads);
  Rng rng(seed);
  CapsNetOptions o = options();
  o.dense.keep = 0.75;
  CapsNet net(o, rng);
  Adam adam(net.named_parameters(), {.lr = 3e-3});
  const Bars data(12);
  for (int i = 0; i < 5; ++i) step(net, adam, data);
  StateDict out;
  for (const auto& [name, t] : net.state_dict()) out.set(name, contiguous_data(t));
  return out;
}

struct Census {
  std::int64_t nodes = live_nodes(), tensors = live_tensors();
  std::size_t live = memory_stats().live;
};

void check_equal(const Census& a, const Census& b) {
  CHECK(a.nodes == b.nodes);
  CHECK(a.tensors == b.tensors);
  CHECK(a.live == b.live);
}

}  // namespace

TEST_CASE("a capsule network learns a small set within 30 steps of Adam") {
  const Bars data(32), unseen(64, 2);
  for (const auto& capsules : {std::vector<CapsuleSize>{{4, 6}}, {{8, 4}, {4, 6}}}) {
    CAPTURE(capsules.size());
    Rng rng(1);
    CapsNet net(options(capsules), rng);
    Adam adam(net.named_parameters(), {.lr = 1e-2});
    const double first = step(net, adam, data);
    double last = first;
    for (int i = 1; i < 30; ++i) last = step(net, adam, data);
    CAPTURE(first);
    CAPTURE(last);
    CHECK(last < 0.1 * first);
    const NoGradGuard no_grad;
    net.eval();
    CHECK(accuracy(net(unseen.images).lengths, unseen.labels) > 0.9);
  }
}

TEST_CASE("every routing of the table learns a small set, alone and above another layer") {
  const Bars data(32), unseen(64, 2);
  for (const RoutingKind& kind : routing_kinds())
    for (const auto& capsules : {std::vector<CapsuleSize>{{4, 6}}, {{8, 4}, {4, 6}}}) {
      if (kind.name.starts_with("test-")) continue;  // added by another test
      CAPTURE(kind.name);
      CAPTURE(capsules.size());
      Rng rng(1);
      CapsNetOptions o = options(capsules);
      o.dense.routing = kind.name;
      CapsNet net(o, rng);
      Adam adam(net.named_parameters(), {.lr = 1e-2});
      const double first = step(net, adam, data);
      double last = first;
      for (int i = 1; i < (kSanitized ? 3 : 50); ++i) last = step(net, adam, data);
      if (kSanitized) continue;  // too slow there to learn
      CAPTURE(first);
      CAPTURE(last);
      const NoGradGuard no_grad;
      net.eval();
      const double right = accuracy(net(unseen.images).lengths, unseen.labels);
      CHECK(last < 0.5 * first);
      CHECK(right > 0.7);
    }
}

TEST_CASE("every weight of the network gets a gradient from the loss") {
  Rng rng(1);
  CapsNetOptions o = options({{6, 4}, {4, 6}});
  o.dense = {.routing = "dynamic:prior",
             .votes = VoteWeights::factorised,
             .vote_bias = true,
             .noise_class = true};
  CapsNet net(o, rng);
  const Bars data(8);
  backward(capsnet_loss(net(data.images, data.labels), data.images, data.targets));
  for (const auto& entry : net.named_parameters()) {
    CAPTURE(entry.first);
    const Tensor& p = entry.second;
    REQUIRE(p.grad().defined());
    CHECK(largest(p.grad()) > 0);
  }
}

TEST_CASE("O7 equal seeds give equal weights after 5 steps, for any number of threads") {
  const StateDict a = trained(7), b = trained(7, 3), c = trained(8);
  REQUIRE(a.size() == 9);
  for (const auto& entry : a) {
    CAPTURE(entry.first);
    const Tensor& t = entry.second;
    CHECK(same_bits(t, b.at(entry.first)));
    CHECK_FALSE(same_bits(t, c.at(entry.first)));
  }
}

TEST_CASE("training leaves neither nodes, nor tensors, nor memory behind") {
  const Census outside;
  {
    Rng rng(1);
    CapsNet net(options(), rng);
    Adam adam(net.named_parameters(), {.lr = 1e-3});
    const Bars data(8);
    for (int i = 0; i < 2; ++i) step(net, adam, data);
    const Census before;
    for (int i = 0; i < 20; ++i) step(net, adam, data);
    check_equal(Census(), before);
  }
  check_equal(Census(), outside);
}

TEST_CASE("O5 the graph of a double backward pass is freed, 100 penalty steps long") {
  Rng rng(1);
  CapsNetOptions o = options();
  o.decoder = DecoderKind::none;
  CapsNet net(o, rng);
  Adam adam(net.named_parameters(), {.lr = 1e-3});
  const Bars data(2);
  const auto penalty_step = [&] {
    Tensor x = data.images.detach().requires_grad_();
    const Tensor scores = net(x).lengths;
    const Tensor g = grad(sum(scores * data.targets), x, {}, {.create_graph = true});
    const Tensor loss = margin_loss(scores, data.targets) + mean(sum(square(g), {1, 2, 3})) * 0.1;
    adam.zero_grad();
    backward(loss);
    clip_grad_norm(net.parameters(), 1);
    adam.step();
    return loss.item();
  };
  penalty_step();
  penalty_step();
  const Census before;
  double loss = 0;
  for (int i = 0; i < 100; ++i) loss = penalty_step();
  check_equal(Census(), before);
  CHECK(std::isfinite(loss));
}

TEST_CASE("O7 evaluation without gradients records nothing and changes nothing") {
  Rng rng(1);
  CapsNetOptions o = options();
  o.dense.keep = 0.5;
  CapsNet net(o, rng);
  const Bars data(4);
  CHECK_FALSE(same_bits(net(data.images).lengths, net(data.images).lengths));
  net.eval();
  const Tensor recorded = net(data.images).lengths.detach();
  const NoGradGuard no_grad;
  const Census before;
  {
    const CapsNetOutput out = net(data.images);
    CHECK(live_nodes() == before.nodes);
    for (const Tensor& t : {out.lengths, out.poses, out.couplings, out.reconstruction})
      CHECK_FALSE(t.requires_grad());
    CHECK(same_bits(out.lengths, recorded));
  }
  check_equal(Census(), before);
}
