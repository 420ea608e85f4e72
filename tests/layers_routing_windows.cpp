// Dynamic routing of overlapping windows against routing of copies of them.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/gradcheck.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;
using capsfw::testing::Threads;
using capsfw::testing::worst_relative_difference;

namespace {

/// Windows of children u [B, R, E], with a weight [J, D, E] and options.
struct Problem {
  Shape u, weight;
  std::int64_t rows, step;
  DynamicRoutingOptions options = {};
  bool mask = false, prior = false;

  std::int64_t windows() const { return (u[1] - rows) / step + 1; }
};

/// Poses, couplings, gradients of u, weight and prior, and those of the second order.
TensorList results(const Problem& p, DType dtype, bool fused, bool second) {
  Rng rng(1);
  const auto draw = [&](const Shape& shape, double scale) {
    return cast_data(rng.normal(shape, 0, scale, DType::f64), dtype);
  };
  const std::int64_t n = p.windows(), b = p.u[0] * n, j = p.weight[0], d = p.weight[1];
  const double scale = 1 / std::sqrt(static_cast<double>(p.rows * p.u[2]));
  Tensor u = draw(p.u, 1).requires_grad_(), weight = draw(p.weight, scale).requires_grad_(),
         prior = draw({p.rows, j}, 1).requires_grad_();
  const Tensor gv = draw({b, j, d}, 1), gc = draw({b, p.rows, j}, 1);
  RoutingInputs in;
  TensorList wrt{u, weight}, directions{draw(p.u, 1), draw(p.weight, 1)};
  if (p.prior) {
    in.prior = prior;
    wrt.push_back(prior);
    directions.push_back(draw({p.rows, j}, 1));
  }
  if (p.mask) {
    in.mask = ones({b, j}, dtype);
    for (std::int64_t k = 0; k < b; ++k)
      select(select(in.mask, 0, k), 0, k % j).copy_(scalar(0, dtype));
  }
  Routed out;
  if (fused) {
    out = dynamic_routing_windows(u, weight, p.rows, p.step, p.options, in);
  } else {
    TensorList copies;
    for (std::int64_t k = 0; k < n; ++k) copies.push_back(narrow(u, 1, k * p.step, p.rows));
    out = dynamic_routing_reference(votes_shared(flatten(stack(copies, 1), 0, 1), weight),
                                    p.options, in);
  }
  TensorList all{out.poses.detach(), out.couplings.detach()};
  const auto add = [&](const TensorList& g) { all.insert(all.end(), g.begin(), g.end()); };
  const GradOptions kept{.retain_graph = true, .allow_unused = true};
  add(grad({out.poses}, wrt, {gv}, kept));
  if (!p.options.detach) add(grad({out.poses, out.couplings}, wrt, {gv, gc}, kept));
  if (second) {
    const TensorList g = grad({out.poses}, wrt, {gv}, {.create_graph = true, .allow_unused = true});
    Tensor total = scalar(0, dtype);
    for (std::size_t k = 0; k < g.size(); ++k)
      if (g[k].defined() && g[k].requires_grad()) total = total + sum(g[k] * directions[k]);
    add(grad({total}, wrt, {}, {.allow_unused = true}));
  }
  return all;
}

/// Overlapping, apart, touching, with a rest that no window reaches, and a single window of all or
/// of a part; sizes around vectors of 16 children and of all kinds of capsules.
std::vector<Problem> problems() {
  const DynamicRoutingOptions two{.iterations = 2, .squash_c = 0.5}, leaky{.leaky = true},
      many{.iterations = 7}, constant{.iterations = 3, .detach = true};
  return {{{2, 12, 5}, {3, 4, 5}, 6, 2},
          {{3, 11, 1}, {2, 5, 1}, 3, 4, two},
          {{1, 7, 4}, {1, 3, 4}, 2, 2, leaky},
          {{2, 9, 16}, {4, 16, 16}, 9, 1},
          {{2, 9, 8}, {4, 8, 8}, 7, 3, two},
          {{20, 96, 16}, {16, 16, 16}, 48, 16},
          {{9, 70, 17}, {5, 16, 17}, 33, 7, leaky},
          {{3, 130, 8}, {13, 8, 8}, 81, 16, many},
          {{2, 700, 6}, {9, 18, 6}, 600, 50},
          {{2, 40, 3}, {3, 4, 3}, 20, 5, two, true},
          {{4, 30, 16}, {6, 16, 16}, 15, 5, leaky, true},
          {{2, 20, 7}, {9, 5, 7}, 17, 3, {}, false, true},
          {{3, 21, 5}, {4, 6, 5}, 7, 4, leaky, true, true},
          {{3, 21, 5}, {4, 6, 5}, 7, 4, constant, true, true},
          {{2, 18, 16}, {10, 16, 16}, 16, 2, constant}};
}

}  // namespace

TEST_CASE("routing of windows: equal to routing of copies, to second order") {
  for (const Problem& p : problems()) {
    CAPTURE(p.u.str());
    CAPTURE(p.weight.str());
    CAPTURE(p.rows);
    const bool small = p.u.numel() < 1000;
    CHECK(worst_relative_difference(results(p, DType::f64, true, small),
                                    results(p, DType::f64, false, small)) < 1e-11);
    CHECK(worst_relative_difference(results(p, DType::f32, true, false),
                                    results(p, DType::f64, false, false)) < 2e-4);
  }
}

TEST_CASE("routing of windows: the same bits for any number of threads") {
  for (const Problem& p : problems()) {
    TensorList one;
    for (const int threads : {1, 2, 3, 7}) {
      const Threads n(threads);
      const TensorList r = results(p, DType::f32, true, false);
      if (one.empty()) one = r;
      for (std::size_t k = 0; k < r.size(); ++k)
        if (r[k].defined()) CHECK(same_bits(r[k], one[k]));
    }
  }
}

TEST_CASE("routing of windows: options without a kernel, and errors") {
  Rng rng(1);
  const Tensor u = rng.normal({2, 8, 5}, 0, 1, DType::f64),
               weight = rng.normal({3, 4, 5}, 0, 1, DType::f64);
  const Tensor copies =
      votes_shared(flatten(stack({narrow(u, 1, 0, 4), narrow(u, 1, 3, 4)}, 1), 0, 1), weight);
  const Tensor prior = rng.normal({4, 3}, 0, 1, DType::f64),
               activation = rng.uniform({4, 4}, 0, 1, DType::f64);
  for (const DynamicRoutingOptions& o :
       {DynamicRoutingOptions{.iterations = 1}, DynamicRoutingOptions{.detach = true},
        DynamicRoutingOptions{.agreement = Agreement::cosine}, DynamicRoutingOptions{}})
    for (const RoutingInputs& in : {RoutingInputs{}, RoutingInputs{.prior = prior},
                                    RoutingInputs{.activation = activation}}) {
      const Routed a = dynamic_routing_windows(u, weight, 4, 3, o, in),
                   b = dynamic_routing(copies, o, in);
      CHECK(max_difference(a.poses, b.poses) < 1e-12);
      CHECK(max_difference(a.couplings, b.couplings) < 1e-12);
    }
  CHECK_THROWS_AS(dynamic_routing_windows(u, weight, 9, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(u, weight, 0, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(u, weight, 2, 0), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(select(u, 0, 0), weight, 2, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(u, narrow(weight, 2, 0, 4), 2, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(u, unsqueeze(weight, 0), 2, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(u, weight, 4, 3, {}, {.mask = ones({2, 3}, DType::f64)}),
                  ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(u, weight, 4, 3, {.iterations = 0}), ValueError);
}

TEST_CASE("routing of windows: a NaN stays in the windows that hold it") {
  // Windows of the children 0 to 3, 3 to 6 and 6 to 9; child 3 of the first sample is a NaN.
  {
    Rng rng(2);
    const Tensor clean = rng.normal({2, 10, 5}, 0, 1), weight = rng.normal({3, 4, 5}, 0, 1);
    Tensor bad = empty_like(clean).copy_(clean);
    select(select(select(bad, 0, 0), 0, 3), 0, 2).fill_(NAN);
    const Tensor want = dynamic_routing_windows(clean, weight, 4, 3).poses,
                 got = dynamic_routing_windows(bad, weight, 4, 3).poses;
    REQUIRE(got.shape() == Shape{6, 3, 4});  // window by window of each sample
    for (const std::int64_t window : {0, 1}) CHECK(any(isnan(select(got, 0, window))));
    for (const std::int64_t window : {2, 3, 4, 5})
      CHECK(max_difference(select(got, 0, window), select(want, 0, window)) == 0);
  }
  // A child that lies in no window.
  Rng rng(1);
  Tensor u = rng.normal({1, 9, 5}, 0, 1);
  const Tensor weight = rng.normal({3, 4, 5}, 0, 1);
  select(select(u, 1, 8), 1, 0).fill_(NAN);  // in no window
  u.requires_grad_();
  const Routed out = dynamic_routing_windows(u, weight, 4, 4);
  CHECK(all(isfinite(out.poses)));
  const Tensor g = grad(sum(square(out.poses)), u);
  CHECK(all(isfinite(g)));
  CHECK(largest(select(g, 1, 8)) == 0);
}

TEST_CASE("capsule convolution of a sequence: as that of a map with one row") {
  for (const char* routing :
       {"dynamic", "dynamic:leaky", "kmeans", "dynamic:iterations=4,squash_c=0.5"})
    for (const bool noise : {false, true})
      for (const std::int64_t stride : {1, 2}) {
        const std::string name = routing;
        CAPTURE(name);
        Rng rng(3), same(3);
        const DenseCapsulesOptions o{
            .routing = routing, .votes = VoteWeights::shared, .noise_class = noise, .keep = 0.5};
        ConvCapsules line(3, 4, 2, 5, {.kernel = {3}, .stride = {stride}}, rng, o),
            map(3, 4, 2, 5, {.kernel = {1, 3}, .stride = {1, stride}}, same, o);
        const Tensor x = rng.normal({2, 3, 8, 4}, 0, 1).requires_grad_(),
                     y = unsqueeze(x.detach(), 2).requires_grad_();
        for (const bool training : {true, false}) {
          line.train(training);
          map.train(training);
          // Draws of partial sampling are the same, too.
          const ConvRouted a = line.route(x), b = map.route(y);
          CHECK(max_difference(a.poses, squeeze(b.poses, 2)) < 1e-5);
          CHECK(max_difference(a.couplings, b.couplings) < 1e-5);
          CHECK(max_difference(line(x), squeeze(map(y), 2)) < 1e-5);
          const Tensor w = Rng(7).normal(a.poses.shape(), 0, 1);
          line.zero_grad();
          map.zero_grad();
          Tensor(x).set_grad({});
          Tensor(y).set_grad({});
          backward(sum(a.poses * w));
          backward(sum(squeeze(b.poses, 2) * w));
          CHECK(max_difference(x.grad(), squeeze(y.grad(), 2)) < 1e-5);
          CHECK(max_difference(line.parameters()[0].grad(), map.parameters()[0].grad()) < 1e-4);
        }
      }
}
