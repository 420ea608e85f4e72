// Dynamic routing of votes that are not stored, against votes and routing in plain ops.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;
using capsfw::testing::worst_relative_difference;

namespace {

struct Problem {
  std::int64_t b, i, j, d, e;
  DynamicRoutingOptions options = {};
  bool shared = false, prior = false, mask = false;
};

std::string name_of(const Problem& p) {
  return Shape{p.b, p.i, p.j, p.d, p.e}.str() + " r=" + std::to_string(p.options.iterations) +
         (p.options.detach ? " detach" : "") + (p.options.leaky ? " leaky" : "") +
         (p.shared ? " shared" : "") + (p.prior ? " prior" : "") + (p.mask ? " mask" : "");
}

/// Poses, couplings, gradients of u, the weight and the prior, and those of the second order.
TensorList results(const Problem& p, DType dtype, bool fused, bool second) {
  Rng rng(1);
  const auto draw = [&](const Shape& shape, double scale) {
    return cast_data(rng.normal(shape, 0, scale, DType::f64), dtype);
  };
  const Shape shape = p.shared ? Shape{p.j, p.d, p.e} : Shape{p.i, p.j, p.d, p.e};
  Tensor u = draw({p.b, p.i, p.e}, 1).requires_grad_();
  Tensor w = draw(shape, 1 / std::sqrt(static_cast<double>(p.i * p.e))).requires_grad_();
  Tensor prior = draw({p.i, p.j}, 1).requires_grad_(), mask = ones({p.b, p.j}, dtype);
  const Tensor gv = draw({p.b, p.j, p.d}, 1), gc = draw({p.b, p.i, p.j}, 1),
               du = draw({p.b, p.i, p.e}, 1), dw = draw(shape, 1);
  if (p.j > 1)
    for (std::int64_t k = 0; k < p.b; ++k)
      select(select(mask, 0, k), 0, k % p.j).copy_(scalar(0, dtype));
  RoutingInputs in;
  TensorList inputs{u, w};
  if (p.prior) inputs.push_back(in.prior = prior);
  if (p.mask) in.mask = mask;
  const Routed out = fused ? dynamic_routing_from(u, w, p.options, in)
                           : dynamic_routing_reference(
                                 p.shared ? votes_shared(u, w) : votes_full(u, w), p.options, in);
  TensorList all{out.poses.detach(), out.couplings.detach()};
  const auto add = [&](const TensorList& g) { all.insert(all.end(), g.begin(), g.end()); };
  const GradOptions keep{.retain_graph = true, .allow_unused = true};
  add(grad({out.poses}, inputs, {gv}, keep));
  REQUIRE(out.couplings.requires_grad() == !p.options.detach);
  if (p.options.detach) return all;
  if (!second) return all;
  add(grad({out.poses, out.couplings}, inputs, {gv, gc}, keep));
  const TensorList g = grad({out.poses, out.couplings}, inputs, {gv, gc}, {.create_graph = true});
  add(grad({sum(g[0] * du) + sum(g[1] * dw)}, inputs, {}, keep));
  return all;
}

}  // namespace

TEST_CASE("routing of products equals votes and routing in plain ops: values, gradients") {
  const std::vector<Problem> sizes = {
      {.b = 8, .i = 1, .j = 1, .d = 1, .e = 1},    {.b = 8, .i = 5, .j = 3, .d = 4, .e = 8},
      {.b = 9, .i = 13, .j = 2, .d = 3, .e = 5},   {.b = 16, .i = 40, .j = 10, .d = 16, .e = 8},
      {.b = 17, .i = 33, .j = 4, .d = 8, .e = 16}, {.b = 35, .i = 9, .j = 5, .d = 13, .e = 11},
      {.b = 150, .i = 6, .j = 3, .d = 2, .e = 3}};
  for (const Problem& size : sizes)
    for (const int variant : {0, 1, 2, 3, 4, 5, 6, 7}) {
      Problem p = size;
      p.options = {.iterations = 2 + (variant + static_cast<int>(p.i)) % 4,
                   .squash_c = variant % 3 == 0 ? 0.5 : 1.0,
                   .detach = variant == 7,
                   .leaky = variant % 2 == 1};
      p.shared = variant == 1 || variant == 4 || variant == 7;
      p.prior = variant % 4 > 1;
      p.mask = variant > 3;
      CAPTURE(name_of(p));
      const bool second = p.b * p.i * p.j * p.d < 1000;
      const TensorList expected = results(p, DType::f64, false, second);
      CHECK(worst_relative_difference(results(p, DType::f64, true, second), expected) < 1e-10);
      const double plain =
          worst_relative_difference(results(p, DType::f32, false, second), expected);
      CHECK(worst_relative_difference(results(p, DType::f32, true, second), expected) <
            4 * plain + 2e-5);
    }
}

TEST_CASE("routing of products agrees with finite differences, twice") {
  Rng rng(3);
  const Tensor u = rng.normal({8, 3, 2}, 0, 1, DType::f64),
               w = rng.normal({3, 2, 2, 2}, 0, 1, DType::f64),
               prior = rng.normal({3, 2}, 0, 1, DType::f64);
  const Function fn = [](const TensorList& in) -> TensorList {
    const Routed out = dynamic_routing_from(in[0], in[1], {}, {.prior = in[2]});
    return {out.poses, out.couplings};
  };
  testing::check_gradients(fn, {u, w, prior});
}

TEST_CASE("routing of products: zeros, strides, few samples, and only what is asked for") {
  Rng rng(4);
  Tensor u = rng.normal({12, 7, 8}, 0, 1, DType::f64);
  select(u, 0, 3).fill_(0);
  select(u, 1, 2).fill_(0);
  u.requires_grad_();
  Tensor w = rng.normal({7, 4, 6, 8}, 0, 1, DType::f64).requires_grad_();
  const Routed routed = dynamic_routing_from(u, w);
  const TensorList g = grad({sum(routed.poses)}, {u, w});
  CHECK(largest(select(routed.poses.detach(), 0, 3)) == 0);
  CHECK(largest(select(g[0], 0, 3)) == 0);
  CHECK(largest(select(g[1], 0, 2)) == 0);
  const Tensor turned = permute(contiguous(permute(u.detach(), {2, 0, 1})), {1, 2, 0});
  REQUIRE(!turned.is_contiguous());
  const Routed other = dynamic_routing_from(turned, w);
  CHECK(same_bits(other.poses.detach(), routed.poses.detach()));
  CHECK(max_difference(grad(sum(other.poses), w), g[1]) == 0);  // u needs no gradient here
  const Tensor few = narrow(u.detach(), 0, 0, 2);
  CHECK(same_bits(dynamic_routing_from(few, w).poses.detach(),
                  dynamic_routing(votes_full(few, w)).poses.detach()));
  // Two groups of samples read a weight together: the bits are those of each alone.
  const Tensor many = rng.normal({48, 7, 8}, 0, 1, DType::f32),
               w32 = cast_data(w.detach(), DType::f32);
  const Tensor together = dynamic_routing_from(many, w32).poses;
  for (const std::int64_t first : {0, 16, 32})
    CHECK(same_bits(narrow(together, 0, first, 16),
                    dynamic_routing_from(narrow(many, 0, first, 16), w32).poses));
  CHECK(message_of<ShapeError>([&] {
          dynamic_routing_from(u, ones({6, 4, 6, 8}));
        }) ==
        "dynamic_routing_from: takes u [B, I, E] and weight [I, J, D, E] or [J, D, E]; got "
        "[12, 7, 8] and [6, 4, 6, 8]");
  CHECK_THROWS_AS(dynamic_routing_from(u, w, {.iterations = 0}), ValueError);
  CHECK_THROWS_AS(dynamic_routing_from(u, w, {}, {.prior = zeros({4, 7})}), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_from(u, w, {}, {.mask = zeros({12, 4})}), ValueError);
}

TEST_CASE("routing of products gives the same bits on any number of threads") {
  for (const bool shared : {false, true}) {
    Rng rng(5);
    Tensor u = rng.normal({40, 300, 8}, 0, 1).requires_grad_();
    Tensor w =
        rng.normal(shared ? Shape{10, 16, 8} : Shape{300, 10, 16, 8}, 0, 0.05).requires_grad_();
    const Tensor cotangent = rng.normal({40, 10, 16}, 0, 1);
    TensorList before;
    for (const int threads : {1, 2, 3, 7}) {
      const testing::Threads scope(threads);
      const Routed out = dynamic_routing_from(u, w);
      TensorList now = grad({out.poses}, {u, w}, {cotangent});
      now.push_back(out.poses.detach());
      now.push_back(out.couplings.detach());
      for (std::size_t k = 0; k < before.size(); ++k) CHECK(same_bits(before[k], now[k]));
      before = now;
    }
  }
}

TEST_CASE("O8 routing of products needs no memory of the size of the votes") {
  if (testing::kSanitized) return;  // slow there, and a count
  Rng rng(6);
  Tensor u = rng.normal({32, 512, 8}, 0, 1).requires_grad_();
  Tensor w = rng.normal({512, 10, 16, 8}, 0, 0.05).requires_grad_();
  const double votes = 4.0 * 32 * 512 * 10 * 16;
  const Tensor cotangent = ones({32, 10, 16});
  const auto peak = [&](int r) {
    reset_peak_memory();
    const auto before = static_cast<double>(memory_stats().live);
    grad({dynamic_routing_from(u, w, {.iterations = r}).poses}, {u, w}, {cotangent});
    return (static_cast<double>(memory_stats().peak) - before) / votes;
  };
  const double few = peak(3), many = peak(9);
  CAPTURE(few);
  CAPTURE(many);
  CHECK(few < 0.8);  // the gradient of the weight is a quarter
  CHECK(many < few + 0.2);
}

TEST_CASE("dense capsules route without making their votes, whatever the weights") {
  for (const VoteWeights weights :
       {VoteWeights::full, VoteWeights::shared, VoteWeights::factorised})
    for (const bool frobenius : {false, true}) {
      if (frobenius && weights == VoteWeights::factorised) continue;
      Rng rng(7);
      const DynamicRoutingOptions options{.prior = weights == VoteWeights::full};
      DenseCapsules layer(6, 4, 3, 5, rng,
                          {.routing = options,
                           .votes = weights,
                           .frobenius = frobenius,
                           .noise_class = true,
                           .init_std = 0.7});
      const Tensor u = rng.normal({9, 6, 4}, 0, 1);
      Tensor exists = ones({9, 6}, DType::b8);
      select(exists, 1, 2).copy_(zeros({9}, DType::b8));
      const Routed direct = layer.route(u, {}, exists),
                   seen = layer.route(u, {}, exists, [](const RoutingStep&) {});
      CHECK(max_difference(direct.poses, seen.poses) < 1e-5);
      CHECK(max_difference(direct.couplings, seen.couplings) < 1e-5);
      const Tensor to = layer.votes.weight;
      CHECK(max_difference(grad(sum(direct.poses), to), grad(sum(seen.poses), to)) < 1e-4);
    }
}
