// The fused kernels of dynamic routing against the same function in plain ops.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;
using capsfw::testing::worst_relative_difference;

namespace {

/// A routing with its inputs and cotangents.
struct Problem {
  Shape shape;  // B, I, J, D
  DynamicRoutingOptions options = {};
  bool prior = false, mask = false;
  double scale = 1.0;
};

std::string name_of(const Problem& p) {
  return p.shape.str() + " r=" + std::to_string(p.options.iterations) +
         (p.options.detach ? " detach" : "") + (p.options.leaky ? " leaky" : "") +
         (p.prior ? " prior" : "") + (p.mask ? " mask" : "") + " scale " + std::to_string(p.scale);
}

/// Poses, couplings, gradients of the votes and the prior, and those of the second order.
TensorList results(const Problem& p, DType dtype, bool fused, bool second) {
  Rng rng(1);
  const std::int64_t b = p.shape[0], i = p.shape[1], j = p.shape[2], d = p.shape[3];
  const auto draw = [&](const Shape& shape, double scale) {
    return cast_data(rng.normal(shape, 0, scale, DType::f64), dtype);
  };
  // Short votes for many children, so that no capsule is saturated.
  Tensor votes = draw(p.shape, p.scale / std::sqrt(static_cast<double>(i))).requires_grad_();
  Tensor prior = draw({i, j}, 1).requires_grad_(), mask = ones({b, j}, dtype);
  const Tensor gv = draw({b, j, d}, 1), gc = draw({b, i, j}, 1), du = draw(p.shape, 1),
               dp = draw({i, j}, 1);
  if (j > 1)
    for (std::int64_t k = 0; k < b; ++k)
      select(select(mask, 0, k), 0, k % j).copy_(scalar(0, dtype));
  RoutingInputs in;
  TensorList inputs{votes};
  if (p.prior) inputs.push_back(in.prior = prior);
  if (p.mask) in.mask = mask;
  const Routed out = fused ? dynamic_routing(votes, p.options, in)
                           : dynamic_routing_reference(votes, p.options, in);
  TensorList all{out.poses.detach(), out.couplings.detach()};
  const auto add = [&](const TensorList& g) { all.insert(all.end(), g.begin(), g.end()); };
  const GradOptions keep{.retain_graph = true, .allow_unused = true};
  add(grad({out.poses}, inputs, {gv}, keep));
  if (!out.couplings.requires_grad()) return all;
  add(grad({out.poses, out.couplings}, inputs, {gv, gc}, keep));
  add(grad({out.couplings}, inputs, {gc}, keep));
  if (!second) return all;
  const TensorList g = grad({out.poses, out.couplings}, inputs, {gv, gc}, {.create_graph = true});
  Tensor slope = sum(g[0] * du);
  if (p.prior) slope = slope + sum(g[1] * dp);
  add(grad({slope}, inputs, {}, keep));
  return all;
}

/// In f32 the kernels are about as far from f64 as the plain ops are.
void check_f32(const Problem& p) {
  const TensorList expected = results(p, DType::f64, false, false);
  CHECK(worst_relative_difference(results(p, DType::f32, true, false), expected) <
        4 * worst_relative_difference(results(p, DType::f32, false, false), expected) + 2e-5);
}

const std::vector<Shape> kShapes = {{1, 1, 1, 1},    {1, 1, 4, 3},    {2, 5, 1, 8},
                                    {3, 31, 3, 1},   {2, 32, 3, 8},   {1, 33, 10, 16},
                                    {2, 65, 4, 3},   {9, 40, 5, 8},   {17, 37, 3, 16},
                                    {1, 700, 3, 16}, {2, 530, 5, 20}, {8, 64, 2, 35}};

}  // namespace

TEST_CASE("fused routing equals plain ops: values, gradients, second order") {
  for (const Shape& shape : kShapes)
    for (const int variant : {0, 1, 2, 3, 4, 5, 6, 7}) {
      if (testing::kSanitized && variant % 3 == 0) continue;         // slow there
      const int r = 2 + (variant + static_cast<int>(shape[1])) % 5;  // 2 to 6
      const Problem p{.shape = shape,
                      .options = {.iterations = r,
                                  .squash_c = variant % 3 == 0 ? 0.5 : 1.0,
                                  .detach = variant == 7,
                                  .leaky = variant % 2 == 1},
                      .prior = variant % 4 > 1,
                      .mask = variant > 3};
      CAPTURE(name_of(p));
      const TensorList expected = results(p, DType::f64, false, shape.numel() < 3000);
      CHECK(worst_relative_difference(results(p, DType::f64, true, shape.numel() < 3000),
                                      expected) < 1e-10);
      check_f32(p);
    }
}

TEST_CASE("fused routing equals plain ops for many iterations, gathered a few at a time") {
  for (const Shape& shape : {Shape{2, 40, 3, 16}, Shape{40, 20, 3, 16}})  // 4 and 9 at a time
    for (const int r : {5, 6, 9, 10, 14})
      for (const bool prior : {false, true}) {
        if (testing::kSanitized && (r == 5 || r > 9)) continue;  // slow there
        const Problem p{.shape = shape, .options = {.iterations = r}, .prior = prior};
        CAPTURE(name_of(p));
        const TensorList expected = results(p, DType::f64, false, false);
        CHECK(worst_relative_difference(results(p, DType::f64, true, false), expected) < 1e-10);
        check_f32(p);
      }
}

TEST_CASE("fused routing of tiny and of large votes, and of none") {
  for (const double scale : {1e-8, 30.0, 1e3}) {
    const Problem p{.shape = {2, 50, 4, 8}, .scale = scale};
    CAPTURE(scale);
    const TensorList expected = results(p, DType::f64, false, false);
    CHECK(worst_relative_difference(results(p, DType::f64, true, false), expected) < 1e-7);
    for (const Tensor& x : results(p, DType::f32, true, false))
      for (double v : testing::values(x)) REQUIRE(std::isfinite(v));
  }
  // All votes, the votes of a child, the votes for a parent are 0: the gradient of a parent without
  // votes is 0, because the squash is flat there.
  Rng rng(1);
  Tensor votes = rng.normal({3, 40, 3, 16}, 0, 1);
  select(votes, 0, 0).fill_(0);
  select(votes, 1, 7).fill_(0);
  select(votes, 2, 1).fill_(0);
  votes.requires_grad_();
  const Routed routed = dynamic_routing(votes);
  const Tensor& poses = routed.poses;
  const Tensor g = grad(sum(square(poses + 1.0)), votes);
  CHECK(largest(select(poses, 0, 0)) == 0);
  CHECK(largest(select(g, 0, 0)) == 0);
  CHECK(largest(select(g, 2, 1)) == 0);
  CHECK(largest(select(select(g, 0, 1), 0, 7)) > 0);
  for (double v : testing::values(g)) REQUIRE(std::isfinite(v));
}

TEST_CASE("fused routing agrees with finite differences, twice") {
  Rng rng(3);
  const Tensor votes = rng.normal({2, 4, 3, 2}, 0, 1, DType::f64),
               prior = rng.normal({4, 3}, 0, 1, DType::f64);
  for (const bool leaky : {false, true}) {
    const Function fn = [leaky](const TensorList& in) -> TensorList {
      const Routed out = dynamic_routing(in[0], {.leaky = leaky}, {.prior = in[1]});
      return {out.poses, out.couplings};
    };
    testing::check_gradients(fn, {votes, prior});
  }
}

TEST_CASE("fused routing takes any strides, and only the gradients that are asked for") {
  Rng rng(4);
  const Tensor votes = rng.normal({3, 16, 2, 40}, 0, 1, DType::f64).requires_grad_();
  const Tensor turned = permute(votes, {2, 3, 0, 1});  // [2, 40, 3, 16]
  REQUIRE(!turned.is_contiguous());
  const Routed a = dynamic_routing(turned), b = dynamic_routing(contiguous(turned));
  CHECK(same_bits(a.poses.detach(), b.poses.detach()));
  const GradOptions keep{.retain_graph = true};
  CHECK(same_bits(grad(sum(a.poses), votes, {}, keep), grad(sum(b.poses), votes, {}, keep)));
  Tensor prior = rng.normal({40, 3}, 0, 1, DType::f64).requires_grad_();
  const Routed c = dynamic_routing(turned.detach(), {}, {.prior = prior});
  const Routed d = dynamic_routing_reference(turned.detach(), {}, {.prior = prior});
  CHECK(max_difference(grad(sum(c.poses), prior), grad(sum(d.poses), prior)) < 1e-12);
}

TEST_CASE("fused routing gives the same bits on any number of threads") {
  // Few samples (cut into blocks of children) and many; the gradient written past the caches.
  for (const Shape& shape :
       {Shape{3, 1152, 10, 16}, Shape{20, 100, 10, 8}, Shape{9, 3000, 10, 16}}) {
    Rng rng(5);
    Tensor votes = rng.normal(shape, 0, 0.1).requires_grad_();
    const Tensor cotangent = rng.normal({shape[0], shape[2], shape[3]}, 0, 1);
    TensorList before;
    for (const int threads : {1, 2, 3, 7}) {
      if (testing::kSanitized && threads == 7) continue;  // slow there
      const testing::Threads scope(threads);
      const Routed out = dynamic_routing(votes);
      const TensorList now{out.poses.detach(), out.couplings.detach(),
                           grad(out.poses, votes, cotangent)};
      for (std::size_t k = 0; k < before.size(); ++k) CHECK(same_bits(before[k], now[k]));
      before = now;
    }
    if (shape[1] != 3000) continue;
    const Routed plain = dynamic_routing_reference(votes);
    const Tensor expected = grad(plain.poses, votes, cotangent);
    CHECK(max_difference(before[2], expected) < 1e-4 * largest(expected));
  }
}

TEST_CASE("O8 the memory of a routing does not grow with its iterations") {
  if (testing::kSanitized) return;  // slow there, and a count
  Rng rng(6);
  Tensor votes = rng.normal({16, 512, 8, 16}, 0, 0.1).requires_grad_();
  const auto bytes = static_cast<double>(votes.numel()) * 4;
  const Tensor cotangent = ones({16, 8, 16});
  const auto peak = [&](int r, bool fused) {
    reset_peak_memory();
    const auto before = static_cast<double>(memory_stats().live);
    const DynamicRoutingOptions o{.iterations = r};
    const Routed out = fused ? dynamic_routing(votes, o) : dynamic_routing_reference(votes, o);
    grad(out.poses, votes, cotangent);
    return (static_cast<double>(memory_stats().peak) - before) / bytes;
  };
  const double few = peak(5, true), many = peak(25, true);
  CAPTURE(few);
  CAPTURE(many);
  CHECK(many < few + 0.3);  // a few tensors of the size of all outputs of all iterations
  CHECK(many < 2.0);        // the gradient of the votes, and less than that again
  CHECK(peak(25, false) > 1.9 * many);
}

TEST_CASE("a graph of a fused routing is freed, and couplings that nobody uses cost nothing") {
  Rng rng(7);
  Tensor votes = rng.normal({2, 40, 3, 16}, 0, 1).requires_grad_();
  const std::int64_t nodes = live_nodes(), tensors = live_tensors();
  {
    const Routed out = dynamic_routing(votes);
    const Tensor g = grad(sum(square(out.poses)), votes, {}, {.create_graph = true});
    grad(sum(square(g)), votes);
    CHECK(live_nodes() > nodes);
  }
  CHECK(live_nodes() == nodes + 1);  // the leaf
  CHECK(live_tensors() == tensors);
  NoGradGuard no_grad;
  CHECK(!dynamic_routing(votes).poses.requires_grad());
}
