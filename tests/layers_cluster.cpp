// K-means, soft and hard, its loss, and the weights of a mean in log space.

#include <capsfw/layers/cluster.hpp>

#include <doctest/doctest.h>

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_cluster.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

constexpr ClusterMetric kMetrics[] = {ClusterMetric::euclid, ClusterMetric::inner};

/// The smallest gap between the two nearest centres of a point, and the fewest members of a
/// cluster: both must be away from 0 for hard K-means to be a limit.
bool is_clear_cut(const Tensor& u, const Tensor& v, ClusterMetric metric) {
  const Tensor d = cluster_distances(u, v, metric);
  const Tensor two = topk(d, 2, -1, false).values;
  const double gap = min(select(two, -1, 1) - select(two, -1, 0)).item();
  const Tensor members = sum(one_hot(argmin(d, -1), v.size(1), d.dtype()), {1});
  return gap > 1e-3 && min(members).item() > 0;
}

}  // namespace

TEST_CASE("smooth extrema lie within ln(n)/K of the extrema, and shift large values") {
  Rng rng(1);
  for (int trial = 0; trial < 30; ++trial) {
    const std::int64_t n = 1 + rng.below(9);
    const double k = 0.5 + 20 * rng.uniform();
    const Tensor x = rng.normal({3, n}, 0, trial % 2 == 0 ? 1 : 1e3, DType::f64);
    const double slack = 1e-9;
    const auto above = values(smooth_max(x, k) - max(x, {-1}));
    const auto below = values(min(x, {-1}) - smooth_min(x, k));
    for (const auto& gaps : {above, below})
      for (const double gap : gaps) {
        CHECK(gap >= -slack);
        CHECK(gap <= std::log(static_cast<double>(n)) / k + slack);
      }
  }
  CHECK(max_difference(smooth_max(transpose(ones({2, 3})), 1.0, 0), full({2}, 1 + std::log(3.0))) <
        1e-6);
}

TEST_CASE("log_normalize_weights: a mean's weights from logarithms, 0/0 = 0") {
  const Tensor l = from_vector<double>({0, -2000, std::log(3.0), -2001}, {2, 2});
  const auto w = values(log_normalize_weights(l));
  CHECK(w[0] == doctest::Approx(0.25));
  CHECK(w[2] == doctest::Approx(0.75));
  CHECK(w[1] == doctest::Approx(1 / (1 + std::exp(-1.0))));
  const Tensor a = from_vector<double>({0.5, 0});
  CHECK(values(log_normalize_weights(l, a)) == std::vector<double>{1, 1, 0, 0});
  CHECK(largest(log_normalize_weights(l, zeros({2}, DType::f64))) == 0);
  const Tensor masked = from_vector<double>({-INFINITY, 0, -INFINITY, 0}, {2, 2});
  CHECK(values(log_normalize_weights(masked)) == std::vector<double>{0, 0.5, 0, 0.5});
  CHECK(any(isnan(log_normalize_weights(full({2, 2}, NAN)))));

  Tensor x = cast_data(l, DType::f32).requires_grad_();
  Tensor none = zeros({2}).requires_grad_();
  for (const Tensor& g : grad({sum(square(log_normalize_weights(x, none)))}, {x, none}))
    CHECK(all(isfinite(g)));
  test::check_gradients(
      [](const TensorList& in) { return TensorList{log_normalize_weights(in[0], exp(in[1]))}; },
      {test::random({2, 4, 3}), test::random({2, 4}, 2)});
}

TEST_CASE("the smoothed loss bounds the hard one from below, within N ln(k)/K") {
  Rng rng(2);
  for (int trial = 0; trial < 20; ++trial)
    for (const auto metric : kMetrics) {
      const Problem p(rng);
      const double k = 0.3 + 5 * rng.uniform();
      const auto soft = values(smoothed_kmeans_loss(p.u, p.v, k, metric));
      const auto hard = values(hard_kmeans_loss(p.u, p.v, metric));
      const double width =
          static_cast<double>(p.points) * std::log(static_cast<double>(p.clusters)) / k;
      for (std::size_t b = 0; b < soft.size(); ++b) {
        CHECK(soft[b] <= hard[b] + 1e-9);
        CHECK(hard[b] <= soft[b] + width + 1e-9);
      }
    }
}

TEST_CASE("the losses never rise, soft and hard, for both metrics") {
  Rng rng(3);
  for (int trial = 0; trial < 25; ++trial)
    for (const auto metric : kMetrics) {
      const Problem p(rng);
      const KmeansOptions o{
          .iterations = 8, .sharpness = 0.2 + 6 * rng.uniform(), .metric = metric};
      const Clustering soft = kmeans_soft(p.u, p.v, o), hard = kmeans_hard(p.u, p.v, o);
      CHECK(soft.losses.shape() == Shape{p.batch, 9});
      CHECK(largest_rise(soft.losses) <= 1e-10);
      CHECK(largest_rise(hard.losses) <= 1e-10);
      CHECK(max_difference(select(soft.losses, -1, 8),
                           smoothed_kmeans_loss(p.u, soft.centres, o.sharpness, metric)) < 1e-10);
      CHECK(max_difference(select(hard.losses, -1, 8),
                           hard_kmeans_loss(p.u, hard.centres, metric)) < 1e-10);
      CHECK(max_difference(sum(soft.couplings, {-1}), ones({p.batch, p.points}, DType::f64)) <
            1e-12);
      CHECK(max_difference(sum(hard.couplings, {-1}), ones({p.batch, p.points}, DType::f64)) == 0);
    }
}

TEST_CASE("soft K-means with a large K is hard K-means where no cluster empties and none ties") {
  Rng rng(4);
  int compared = 0;
  for (int trial = 0; trial < 60; ++trial)
    for (const auto metric : kMetrics) {
      const Problem p(rng);
      Tensor v = p.v;
      bool clear = true;
      for (int t = 0; t < 4 && clear; ++t) {
        clear = is_clear_cut(p.u, v, metric);
        if (clear) v = kmeans_hard(p.u, v, {.iterations = 1, .metric = metric}).centres;
      }
      if (!clear) continue;
      ++compared;
      const KmeansOptions o{.iterations = 4, .sharpness = 1e5, .metric = metric};
      const Clustering soft = kmeans_soft(p.u, p.v, o), hard = kmeans_hard(p.u, p.v, o);
      CHECK(max_difference(soft.centres, hard.centres) < 1e-9);
      CHECK(max_difference(soft.couplings, hard.couplings) < 1e-9);
      CHECK(max_difference(soft.losses, hard.losses) < 1e-3);
    }
  CHECK(compared >= 10);
}

TEST_CASE("permuting points permutes couplings, permuting clusters permutes everything") {
  Rng rng(5);
  for (int trial = 0; trial < 10; ++trial)
    for (const auto metric : kMetrics)
      for (const auto run : {kmeans_soft, kmeans_hard}) {
        const Problem p(rng);
        if (metric == ClusterMetric::inner && p.u.size(2) == 1) continue;  // equal signs tie
        const KmeansOptions o{.iterations = 3, .sharpness = 2, .metric = metric};
        const Clustering base = run(p.u, p.v, o);
        const Tensor points = rng.permutation(p.points), clusters = rng.permutation(p.clusters);
        const Clustering by_point = run(index_select(p.u, 1, points), p.v, o);
        CHECK(max_difference(by_point.centres, base.centres) < 1e-10);
        CHECK(max_difference(by_point.couplings, index_select(base.couplings, 1, points)) < 1e-10);
        const Clustering by_cluster = run(p.u, index_select(p.v, 1, clusters), o);
        CHECK(max_difference(by_cluster.centres, index_select(base.centres, 1, clusters)) < 1e-10);
        CHECK(max_difference(by_cluster.couplings, index_select(base.couplings, 2, clusters)) <
              1e-10);
        CHECK(max_difference(by_cluster.losses, base.losses) < 1e-10);
      }
}

TEST_CASE("a sample is clustered alike alone, in a batch, and without a batch axis") {
  Rng rng(6);
  for (const auto metric : kMetrics)
    for (const auto run : {kmeans_soft, kmeans_hard}) {
      const Tensor u = randn({3, 9, 2}, rng), v = randn({3, 4, 2}, rng);
      const KmeansOptions o{.iterations = 3, .metric = metric};
      const Clustering all = run(u, v, o);
      for (int b = 0; b < 3; ++b) {
        const Clustering one = run(narrow(u, 0, b, 1), narrow(v, 0, b, 1), o);
        const Clustering flat = run(select(u, 0, b), select(v, 0, b), o);
        CHECK(max_difference(one.centres, narrow(all.centres, 0, b, 1)) < 1e-6);
        CHECK(max_difference(flat.centres, select(all.centres, 0, b)) < 1e-6);
        CHECK(max_difference(flat.couplings, select(all.couplings, 0, b)) < 1e-6);
        CHECK(max_difference(flat.losses, select(all.losses, 0, b)) < 1e-5);
      }
    }
}

TEST_CASE("one cluster is the mean (or sum), one point is every centre") {
  Rng rng(7);
  const Tensor u = randn({2, 6, 3}, rng, DType::f64), v = randn({2, 1, 3}, rng, DType::f64);
  for (const auto run : {kmeans_soft, kmeans_hard}) {
    CHECK(max_difference(run(u, v, {.iterations = 1}).centres, mean(u, {1}, true)) < 1e-12);
    CHECK(max_difference(run(u, v, {.iterations = 2, .metric = ClusterMetric::inner}).centres,
                         sum(u, {1}, true)) < 1e-12);
  }
  const Tensor point = narrow(u, 1, 0, 1), many = randn({2, 4, 3}, rng, DType::f64);
  const Clustering soft = kmeans_soft(point, many, {.iterations = 2});
  CHECK(max_difference(soft.centres, contiguous(broadcast_to(point, {2, 4, 3}))) < 1e-12);
  const Clustering hard = kmeans_hard(point, many, {.iterations = 1});
  CHECK(max_difference(hard.centres, where(gt(transpose(hard.couplings), 0.0), point, many)) == 0);
}

TEST_CASE("ties go to the lowest index, an empty cluster keeps its centre") {
  const Tensor u = from_vector<double>({0, 2, 4}, {3, 1});
  const Tensor v = from_vector<double>({1, 3, 3, 100}, {4, 1});
  const Clustering c = kmeans_hard(u, v, {.iterations = 1});
  CHECK(values(argmax(c.couplings, -1)) == std::vector<double>{0, 0, 1});
  CHECK(values(c.centres) == std::vector<double>{1, 4, 3, 100});
}

TEST_CASE("a starved cluster stays finite, with finite gradients, in both precisions") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Rng rng(8);
    Tensor u = randn({1, 8, 2}, rng, dtype).requires_grad_();
    Tensor v = cast_data(from_vector<double>({0, 0, 60, 60, 1, -1}, {1, 3, 2}), dtype);
    v.requires_grad_();
    const Clustering c = kmeans_soft(u, v, {.iterations = 2, .sharpness = 4});
    CHECK(max(select(kmeans_soft(u, v, {.iterations = 1}).couplings, -1, 1)).item() == 0);
    CHECK(all(isfinite(c.centres)));
    const double reach = max(abs(u)).item();
    CHECK(largest(c.centres) <= reach * 1.0001);  // a mean of points, however far its centre was
    for (const Tensor& g : grad({sum(square(c.centres))}, {u, v}, {}, {.create_graph = true})) {
      CHECK(all(isfinite(g)));
      CHECK(all(isfinite(grad(sum(square(g)), u, {}, {.retain_graph = true}))));
    }
  }
}

TEST_CASE("gradients of K-means to second order, those of the hard one pass the last mean") {
  const Tensor u = test::random({2, 6, 3}), v = test::random({2, 2, 3}, 5);
  for (const auto metric : kMetrics) {
    const KmeansOptions o{.iterations = 3, .sharpness = 1.5, .metric = metric};
    test::check_gradients(
        [o](const TensorList& in) {
          const Clustering c = kmeans_soft(in[0], in[1], o);
          return TensorList{c.centres, c.couplings, c.losses};
        },
        {u, v});
    const auto hard = [o,
                       v](const TensorList& in) {  // the start decides who belongs where, no more
      const Clustering c = kmeans_hard(in[0], v, o);
      return TensorList{c.centres, c.losses};
    };
    test::check_gradients(hard, {u});
  }
  Tensor x = u.detach().requires_grad_();
  const Clustering c = kmeans_hard(x, v);
  CHECK_FALSE(c.couplings.requires_grad());
  const Tensor share = c.couplings / maximum(sum(c.couplings, {1}, true), 1.0);
  CHECK(max_difference(grad(sum(c.centres), x),
                       contiguous(broadcast_to(sum(share, {-1}, true), x.shape()))) < 1e-12);
}

TEST_CASE("the losses cost nothing when not asked for") {
  Rng rng(9);
  const Problem p(rng);
  for (const auto run : {kmeans_soft, kmeans_hard}) {
    const Clustering with = run(p.u, p.v, {}), without = run(p.u, p.v, {.losses = false});
    CHECK_FALSE(without.losses.defined());
    CHECK(same_bits(with.centres, without.centres));
    CHECK(same_bits(with.couplings, without.couplings));
  }
}

TEST_CASE("soft K-means with the inner metric is K-means routing on equal votes") {
  Rng rng(10);
  const Problem p(rng);
  const double k = 1.7;
  const Clustering c =
      kmeans_soft(p.u, p.v, {.iterations = 1, .sharpness = k, .metric = ClusterMetric::inner});
  const Tensor votes =
      contiguous(broadcast_to(unsqueeze(p.u, 2), {p.batch, p.points, p.clusters, p.u.size(2)}));
  const Tensor coupled = couplings(agreement(votes, safe_normalize(p.v)) * k);
  CHECK(max_difference(c.couplings, coupled) < 1e-12);
  CHECK(max_difference(c.centres, weighted_sum(coupled, votes)) < 1e-12);
}

TEST_CASE("errors of clustering say what was expected and what was given") {
  const Tensor u = ones({2, 5, 3}), v = ones({2, 2, 3});
  CHECK(message_of<ShapeError>([&] {
          kmeans_soft(u, ones({2, 2, 4}));
        }) ==
        "kmeans_soft: data must be [B, N, D] and centres [B, k, D], or [N, D] and [k, D]; got "
        "[2, 5, 3] and [2, 2, 4]");
  CHECK(contains(message_of<ShapeError>([&] {
                   kmeans_hard(u, ones({1, 2, 3}));
                 }),
                 "kmeans_hard: data"));
  CHECK(contains(message_of<ShapeError>([&] { kmeans_hard(u, ones({2, 3})); }), "got [2, 5, 3]"));
  CHECK(contains(message_of<ValueError>([&] {
                   kmeans_soft(ones({2, 0, 3}), v);
                 }),
                 "at least one point and one centre"));
  CHECK(message_of<ValueError>([&] { kmeans_soft(u, v, {.iterations = 0}); }) ==
        "kmeans_soft: at least 1 iteration; got 0");
  for (const double k : {0.0, -1.0, double(NAN), double(INFINITY)})
    CHECK(contains(message_of<ValueError>([&] { kmeans_soft(u, v, {.sharpness = k}); }),
                   "kmeans_soft: the sharpness K must be positive and finite"));
  CHECK(contains(message_of<ValueError>([&] { smooth_max(u, 0); }), "smooth_max"));
  CHECK(contains(message_of<ValueError>([&] { smooth_min(u, -1); }), "smooth_min"));
  CHECK(message_of<ValueError>([&] { cluster_metric("cosine"); }) ==
        "cluster_metric: must be 'euclid' or 'inner'; got 'cosine'");
  CHECK(contains(message_of<ShapeError>([&] { log_normalize_weights(ones({3})); }),
                 "must be [..., I, J]"));
  CHECK(contains(message_of<ShapeError>([&] {
                   log_normalize_weights(u, ones({2, 3}));
                 }),
                 "the activation must be [2, 5]"));
  CHECK_THROWS_AS(kmeans_soft(u, cast_data(v, DType::f64)), DTypeError);
}
