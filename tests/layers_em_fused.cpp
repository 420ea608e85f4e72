// The fused kernels of EM routing against the same function in plain ops.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/conv_capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// Any routing: its results, and the tensors that it can be differentiated by.
struct Problem {
  std::string name;
  std::function<TensorList(const TensorList&)> fused, plain;
  TensorList inputs;  // f64
};

/// Results, gradients of all of them and of the poses alone, and second order.
TensorList results(const Problem& p, DType dtype, bool fused, bool second) {
  TensorList in;
  for (const Tensor& x : p.inputs) in.push_back(cast_data(x, dtype).requires_grad_());
  const TensorList out = fused ? p.fused(in) : p.plain(in);
  TensorList all, y, gy;
  Rng rng(3);
  for (const Tensor& x : out) {
    all.push_back(x.detach());
    const Tensor g = cast_data(rng.normal(x.shape(), 0, 1, DType::f64), dtype);
    if (!x.requires_grad()) continue;
    y.push_back(x), gy.push_back(g);
  }
  const auto add = [&](const TensorList& g) { all.insert(all.end(), g.begin(), g.end()); };
  const GradOptions keep{.retain_graph = true, .allow_unused = true};
  add(grad(y, in, gy, keep));
  add(grad({y[0]}, in, {gy[0]}, keep));
  if (!second) return all;
  const TensorList g = grad(y, in, gy, {.create_graph = true, .allow_unused = true});
  Tensor slope;
  for (const Tensor& x : g) {
    if (!x.defined() || !x.requires_grad()) continue;
    const Tensor s = sum(x * cast_data(rng.normal(x.shape(), 0, 1, DType::f64), dtype));
    slope = slope.defined() ? slope + s : s;
  }
  if (slope.defined()) add(grad({slope}, in, {}, keep));
  return all;
}

/// Largest difference relative to the largest element of each tensor, or to 0.01 for gradients that
/// are 0 but for rounding.
double compare(const TensorList& a, const TensorList& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t k = 0; k < a.size(); ++k) {
    CAPTURE(k);
    const auto is_zero = [](const Tensor& x) { return !x.defined() || largest(x) == 0; };
    if (is_zero(a[k]) && is_zero(b[k])) continue;
    worst = std::fmax(worst, worst_relative_difference({a[k]}, {b[k]}, 0.01));
  }
  return worst;
}

/// In f64 the kernels equal the plain ops; in f32 they are about as far from f64 as those are.
void check(const Problem& p, bool second, double tolerance = 1e-9) {
  CAPTURE(p.name);
  const TensorList expected = results(p, DType::f64, false, second);
  CHECK(compare(results(p, DType::f64, true, second), expected) < tolerance);
  CHECK(compare(results(p, DType::f32, true, false), results(p, DType::f64, false, false)) <
        4 * compare(results(p, DType::f32, false, false), results(p, DType::f64, false, false)) +
            5e-5);
}

Problem routing(const EmProblem& p) {
  const auto run = [p](bool fused) {
    return [p, fused](const TensorList& in) -> TensorList {
      EmProblem q = p;
      std::size_t k = 0;
      for (Tensor* t : {&q.votes, &q.a_in, &q.beta_a, &q.beta_u})
        if (t->defined()) *t = in[k++];
      const auto route = fused ? em_routing : em_routing_reference;
      const EmRouted r = route(q.votes, q.a_in, q.beta_a, q.beta_u, q.lambdas, q.options);
      return {r.poses, r.activations, r.variance, r.assignments};
    };
  };
  return {p.name() + " T=" + std::to_string(p.lambdas.size()) +
              (p.options.detach ? " detach" : "") + (p.options.mask.defined() ? " mask" : ""),
          run(true), run(false), p.inputs()};
}

const std::vector<Shape> kShapes = {{1, 1, 1, 1},  {1, 1, 4, 3},    {2, 5, 1, 8},
                                    {3, 17, 3, 1}, {2, 16, 3, 8},   {1, 33, 5, 16},
                                    {2, 48, 4, 3}, {18, 20, 3, 16}, {2, 40, 3, 35}};

}  // namespace

TEST_CASE("fused EM routing equals plain ops: values, gradients, second order") {
  for (const EmVariant v : kVariants)
    for (std::size_t k = 0; k < kShapes.size(); ++k) {
      EmProblem p(k + 1, kShapes[k], v, 1 + static_cast<int>(k + static_cast<std::size_t>(v)) % 5);
      p.options.eps_var = 1e-2;
      p.options.detach = k % 4 == 2;
      if (k % 3 == 1 && kShapes[k][1] > 5) p.options.mask = p.some_children();
      check(routing(p), kShapes[k].numel() < 2000);
    }
}

TEST_CASE("fused EM routing with many iterations, gathered three at a time") {
  for (const int iterations : {4, 6, 7}) {
    EmProblem p(4, {3, 20, 3, 16}, EmVariant::hinton, iterations);
    p.options.eps_var = 1e-2;
    check(routing(p), false);
  }
}

TEST_CASE("fused EM routing at its edges: activations of 0, equal votes, shares that underflow") {
  EmProblem none(1, {3, 20, 3, 4}, EmVariant::hinton, 3);
  none.options.eps_var = 1e-2;
  select(none.a_in, 0, 1).fill_(0);      // no child of a sample
  select(none.a_in, 1, 7).fill_(0);      // a child of all of them
  select(none.a_in, 0, 2).fill_(1e-25);  // hardly any
  check(routing(none), false);

  EmProblem equal(2, {2, 20, 3, 4}, EmVariant::hinton, 3);
  equal.options.eps_var = 1e-2;
  equal.votes = contiguous(broadcast_to(narrow(equal.votes, 1, 0, 1), equal.votes.shape()));
  const Problem same = routing(equal);
  CHECK(compare(results(same, DType::f64, true, false), results(same, DType::f64, false, false)) <
        1e-7);

  // Parent 0 is far from all votes in the second iteration: its R are below e^-800.
  for (const EmVariant v : kVariants) {
    EmProblem far(3, {2, 18, 3, 4}, v, 2);
    far.options.eps_var = 1e-4;
    if (far.beta_a.defined()) {
      far.lambdas = {1, 1};
      far.beta_a = from_vector(std::vector<double>{-900, 3, 3});
    } else {
      continue;  // no β: π is what it is
    }
    const Problem starved = routing(far);
    const TensorList out = results(starved, DType::f64, true, false);
    CHECK(largest(select(out[3], 2, 0)) == 0);  // it has no share
    CHECK(compare(out, results(starved, DType::f64, false, false)) < 1e-7);
    for (const Tensor& x : results(starved, DType::f32, true, false))
      if (x.defined())
        for (const double y : values(x)) REQUIRE(std::isfinite(y));
  }
}

TEST_CASE("fused matrix capsules equal plain ops: values, gradients, second order") {
  for (const std::int64_t side : {1, 2, 3, 4})
    for (const bool padded : {false, true})
      for (const bool detach : {false, true}) {
        const std::int64_t c = 2, j = 3;
        const PatchOptions patches{
            .kernel = {3, 2}, .stride = {2, 1}, .padding = padded ? Dims{1, 1} : Dims{}};
        ConvEmOptions o;
        o.em.eps_var = 1e-2;
        o.em.detach = detach;
        const auto run = [=](bool fused) {
          return [=](const TensorList& in) -> TensorList {
            ConvEmOptions with = o;
            if (!fused) with.em.observe = [](const EmRouted&) {};
            const ConvEmRouted r =
                conv_caps_em(in[0], in[1], in[2], in[3], in[4], {0.3, 0.5}, patches, with);
            return {r.poses, r.activations, r.variance, r.assignments};
          };
        };
        const Problem p{"side " + std::to_string(side) + (padded ? " padded" : ""),
                        run(true),
                        run(false),
                        {normal({2, c, 5, 4, side, side}, 1), uniform({2, c, 5, 4}, 0.1, 0.9, 2),
                         normal({c * 6, j, side, side}, 3), normal({j}, 4), normal({j}, 5)}};
        check(p, true);
      }
}

TEST_CASE("fused class capsules equal plain ops: values, gradients, second order") {
  for (const bool coordinates : {false, true})
    for (const bool masked : {false, true}) {
      ClassEmOptions o;
      o.em.eps_var = 1e-2;
      o.coordinates = coordinates;
      if (masked) {
        std::vector<bool> mask;
        for (int k = 0; k < 2 * 18; ++k) mask.push_back(k % 5 != 0);
        o.em.mask = from_vector(mask, {2, 18});
      }
      const auto run = [=](bool fused) {
        return [=](const TensorList& in) -> TensorList {
          ClassEmOptions with = o;
          if (!fused) with.em.observe = [](const EmRouted&) {};
          const EmRouted r = class_caps_em(in[0], in[1], in[2], in[3], in[4], {0.3, 0.5}, with);
          return {r.poses, r.activations, r.variance, r.assignments};
        };
      };
      const Problem p{coordinates ? "coordinates" : "none",
                      run(true),
                      run(false),
                      {normal({2, 3, 3, 2, 4, 4}, 1), uniform({2, 3, 3, 2}, 0.1, 0.9, 2),
                       normal({3, 5, 4, 4}, 3), normal({5}, 4), normal({5}, 5)}};
      check(p, true);
    }
}

TEST_CASE("fused EM routing takes any strides, and only the gradients that are asked for") {
  EmProblem p(6, {2, 20, 3, 16}, EmVariant::hinton, 3);
  p.options.eps_var = 1e-2;
  const EmRouted expected = p.route();
  EmProblem turned = p;
  turned.votes = permute(contiguous(permute(p.votes, {3, 1, 2, 0})), {3, 1, 2, 0});
  REQUIRE(!turned.votes.is_contiguous());
  CHECK(same_bits(turned.route().poses, expected.poses));
  const TensorList in = p.inputs();
  for (std::size_t wanted = 0; wanted < in.size(); ++wanted) {
    TensorList some;
    for (std::size_t k = 0; k < in.size(); ++k)
      some.push_back(k == wanted ? in[k].detach().requires_grad_() : in[k].detach());
    const EmRouted a = em_routing(some[0], some[1], some[2], some[3], p.lambdas, p.options),
                   b = em_routing_reference(some[0], some[1], some[2], some[3], p.lambdas,
                                            p.options);
    const Tensor ga = grad(sum(a.poses) + sum(a.activations), some[wanted]),
                 gb = grad(sum(b.poses) + sum(b.activations), some[wanted]);
    CHECK(max_difference(ga, gb) < 1e-9 * std::fmax(1, largest(gb)));
  }
}

TEST_CASE("fused EM routing gives the same bits on any number of threads") {
  Rng rng(5);
  Tensor votes = rng.normal({20, 100, 6, 16}, 0, 1).requires_grad_();
  Tensor pose = rng.normal({5, 4, 6, 6, 4, 4}, 0, 1).requires_grad_();
  Tensor weight = rng.normal({36, 8, 4, 4}, 0, 0.5).requires_grad_();
  Tensor a = rng.uniform({20, 100}, 0, 1).requires_grad_(),
         map = rng.uniform({5, 4, 6, 6}, 0, 1).requires_grad_();
  Tensor beta6 = zeros({6}).requires_grad_(), beta8 = zeros({8}).requires_grad_();
  TensorList before;
  for (const int threads : {1, 2, 3, 7}) {
    const testing::Threads scope(threads);
    const EmRouted r = em_routing(votes, a, beta6, beta6, lambda_schedule(3));
    const ConvEmRouted c =
        conv_caps_em(pose, map, weight, beta8, beta8, lambda_schedule(3), {.kernel = {3, 3}});
    TensorList now{r.poses.detach(), r.activations.detach(), c.poses.detach(),
                   c.activations.detach()};
    for (const Tensor& g : grad({sum(square(r.poses)) + sum(r.activations)}, {votes, a, beta6}))
      now.push_back(g);
    for (const Tensor& g :
         grad({sum(square(c.poses)) + sum(c.activations)}, {pose, map, weight, beta8}))
      now.push_back(g);
    for (std::size_t k = 0; k < before.size(); ++k) CHECK(same_bits(before[k], now[k]));
    before = now;
  }
}

TEST_CASE("the memory of EM routing does not grow with its iterations, and votes are not stored") {
  Rng rng(6);
  Tensor pose = rng.normal({8, 8, 8, 8, 4, 4}, 0, 1).requires_grad_();
  Tensor weight = rng.normal({72, 16, 4, 4}, 0, 0.5).requires_grad_();
  const Tensor a = rng.uniform({8, 8, 8, 8}, 0, 1), beta = zeros({16});
  const double votes = 8.0 * 36 * 72 * 16 * 16 * 4;
  const auto peak = [&](int iterations) {
    reset_peak_memory();
    const auto before = static_cast<double>(memory_stats().live);
    const ConvEmRouted r = conv_caps_em(pose, a, weight, beta, beta, lambda_schedule(iterations),
                                        {.kernel = {3, 3}}, {.assignments = false});
    CHECK(!r.assignments.defined());
    grad({sum(r.poses)}, {pose, weight});
    return (static_cast<double>(memory_stats().peak) - before) / votes;
  };
  const double few = peak(2), many = peak(12);
  CHECK(few < 0.5);
  CHECK(many < few + 0.4);  // the Gaussians: (2 D + 2) / (I D) of the votes for each iteration
}

TEST_CASE("a graph of a fused EM routing is freed") {
  EmProblem p(7, {2, 10, 3, 4}, EmVariant::hinton, 2);
  p.options.eps_var = 1e-2;
  p.votes.requires_grad_();
  const std::int64_t nodes = live_nodes(), tensors = live_tensors();
  {
    const EmRouted r = p.route();
    const Tensor g = grad(sum(square(r.poses)), p.votes, {}, {.create_graph = true});
    grad(sum(square(g)), p.votes);
    CHECK(live_nodes() > nodes);
  }
  CHECK(live_nodes() == nodes + 1);  // the leaf
  CHECK(live_tensors() == tensors);
  EmOptions detached = p.options;
  detached.detach = true;
  CHECK(!p.route(detached).assignments.requires_grad());
}
