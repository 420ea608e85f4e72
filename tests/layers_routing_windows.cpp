// Dynamic routing of overlapping windows against routing of copies of them.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/ops/arithmetic.hpp>
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

namespace {

/// Windows of votes, with options.
struct Problem {
  Shape shape;  // B, R, J, D
  std::int64_t rows, step;
  DynamicRoutingOptions options = {};
  bool mask = false;

  std::int64_t windows() const { return (shape[1] - rows) / step + 1; }
};

/// Poses, couplings, gradients of the votes, and those of the second order.
TensorList results(const Problem& p, DType dtype, bool fused, bool second) {
  Rng rng(1);
  const auto draw = [&](const Shape& shape, double scale) {
    return cast_data(rng.normal(shape, 0, scale, DType::f64), dtype);
  };
  const std::int64_t n = p.windows(), b = p.shape[0] * n, j = p.shape[2], d = p.shape[3];
  Tensor votes = draw(p.shape, 1 / std::sqrt(static_cast<double>(p.rows))).requires_grad_();
  const Tensor gv = draw({b, j, d}, 1), gc = draw({b, p.rows, j}, 1), direction = draw(p.shape, 1);
  RoutingInputs in;
  if (p.mask) {
    in.mask = ones({b, j}, dtype);
    for (std::int64_t k = 0; k < b; ++k)
      select(select(in.mask, 0, k), 0, k % j).copy_(scalar(0, dtype));
  }
  Routed out;
  if (fused) {
    out = dynamic_routing_windows(votes, p.rows, p.step, p.options, in);
  } else {
    TensorList copies;
    for (std::int64_t k = 0; k < n; ++k) copies.push_back(narrow(votes, 1, k * p.step, p.rows));
    out = dynamic_routing_reference(flatten(stack(copies, 1), 0, 1), p.options, in);
  }
  TensorList all{out.poses.detach(), out.couplings.detach()};
  const auto add = [&](const TensorList& g) { all.insert(all.end(), g.begin(), g.end()); };
  add(grad({out.poses}, TensorList{votes}, {gv}, {.retain_graph = true}));
  add(grad({out.poses, out.couplings}, TensorList{votes}, {gv, gc}, {.retain_graph = true}));
  if (!second) return all;
  const TensorList g =
      grad({out.poses, out.couplings}, TensorList{votes}, {gv, gc}, {.create_graph = true});
  add(grad({sum(g[0] * direction)}, TensorList{votes}));
  return all;
}

double compare(const TensorList& a, const TensorList& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (std::size_t k = 0; k < a.size(); ++k)
    worst = std::fmax(worst, max_difference(a[k], b[k]) / std::fmax(largest(b[k]), 1e-300));
  return worst;
}

/// Overlapping, apart, touching, with a rest that no window reaches, and a single window of all or
/// of a part; sizes around the blocks of 16 and 32 rows.
std::vector<Problem> problems() {
  const DynamicRoutingOptions two{.iterations = 2, .squash_c = 0.5}, leaky{.leaky = true},
      many{.iterations = 7};
  return {{{2, 12, 3, 4}, 6, 2},
          {{3, 11, 2, 5}, 3, 4, two},
          {{1, 7, 1, 3}, 2, 2, leaky},
          {{2, 9, 4, 16}, 9, 1},
          {{2, 9, 4, 8}, 7, 3, two},
          {{20, 96, 16, 16}, 48, 16},
          {{9, 70, 5, 16}, 33, 7, leaky},
          {{3, 130, 3, 8}, 81, 16, many},
          {{2, 40, 3, 4}, 20, 5, two, true},
          {{4, 30, 6, 16}, 15, 5, leaky, true}};
}

}  // namespace

TEST_CASE("routing of windows: equal to routing of copies, to second order") {
  for (const Problem& p : problems()) {
    CAPTURE(p.shape.str());
    CAPTURE(p.rows);
    const bool small = p.shape.numel() < 5000;
    CHECK(compare(results(p, DType::f64, true, small), results(p, DType::f64, false, small)) <
          1e-11);
    CHECK(compare(results(p, DType::f32, true, false), results(p, DType::f64, false, false)) <
          2e-4);
  }
}

TEST_CASE("routing of windows: the same bits for any number of threads") {
  for (const Problem& p : problems()) {
    TensorList one;
    for (const int threads : {1, 2, 3, 7}) {
      const Threads n(threads);
      const TensorList r = results(p, DType::f32, true, false);
      if (one.empty()) one = r;
      for (std::size_t k = 0; k < r.size(); ++k) CHECK(same_bits(r[k], one[k]));
    }
  }
}

TEST_CASE("routing of windows: options without a kernel, and errors") {
  Rng rng(1);
  const Tensor votes = rng.normal({2, 8, 3, 4}, 0, 1, DType::f64);
  const Tensor copies = flatten(stack({narrow(votes, 1, 0, 4), narrow(votes, 1, 3, 4)}, 1), 0, 1);
  const Tensor prior = rng.normal({4, 3}, 0, 1, DType::f64),
               activation = rng.uniform({4, 4}, 0, 1, DType::f64);
  for (const DynamicRoutingOptions& o :
       {DynamicRoutingOptions{.iterations = 1}, DynamicRoutingOptions{.detach = true},
        DynamicRoutingOptions{.agreement = Agreement::cosine}, DynamicRoutingOptions{}})
    for (const RoutingInputs& in : {RoutingInputs{}, RoutingInputs{.prior = prior},
                                    RoutingInputs{.activation = activation}}) {
      const Routed a = dynamic_routing_windows(votes, 4, 3, o, in),
                   b = dynamic_routing(copies, o, in);
      CHECK(max_difference(a.poses, b.poses) < 1e-12);
      CHECK(max_difference(a.couplings, b.couplings) < 1e-12);
    }
  CHECK_THROWS_AS(dynamic_routing_windows(votes, 9, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(votes, 0, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(votes, 2, 0), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(select(votes, 0, 0), 2, 1), ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(votes, 4, 3, {}, {.mask = ones({2, 3}, DType::f64)}),
                  ShapeError);
  CHECK_THROWS_AS(dynamic_routing_windows(votes, 4, 3, {.iterations = 0}), ValueError);
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
