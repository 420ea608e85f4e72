// First centres: k-means++.

#include <cmath>
#include <set>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/cluster.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "layers_cluster.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("k-means++ chooses points, far ones rather than near ones, and repeats with the Rng") {
  Rng rng(11);
  for (int trial = 0; trial < 20; ++trial) {
    const Problem p(rng);
    const std::int64_t k = 1 + rng.below(p.points);
    Rng a(static_cast<std::uint64_t>(trial)), b = a;
    const Tensor centres = kmeans_plus_plus(p.u, k, a);
    CHECK(same_bits(centres, kmeans_plus_plus(p.u, k, b)));
    CHECK(centres.shape() == Shape{p.batch, k, p.u.size(2)});
    const Tensor nearest = min(cluster_distances(p.u, centres, ClusterMetric::euclid), {1});
    CHECK(largest(nearest) == 0);  // every centre is a point
    if (k < 2) continue;
    const Tensor apart =
        cluster_distances(centres, centres, ClusterMetric::euclid) + 1e9 * eye(k, DType::f64);
    CHECK(min(apart).item() > 0);  // and no point twice
  }
  // Three tight groups far apart: one centre in each, but for a chance of 1e-6.
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Rng r(seed);
    const Tensor groups = from_vector<double>({0, 0, 1000, 0, 0, 1000}, {3, 1, 2});
    const Tensor u = reshape(groups + r.normal({3, 7, 2}, 0, 0.1, DType::f64), {21, 2});
    const Tensor centres = kmeans_plus_plus(u, 3, r);
    std::set<double> found;
    const Tensor group = reshape(groups, {3, 2});
    for (const double g :
         values(argmin(cluster_distances(centres, group, ClusterMetric::euclid), -1)))
      found.insert(g);
    CHECK(found.size() == 3);
  }
}

TEST_CASE("k-means++ draws with probability proportional to the squared distance") {
  // From 0 the other two points have odds of 1 : 9; the first choice is uniform.
  const Tensor u = from_vector<double>({0, 1, 3}, {3, 1});
  Rng rng(12);
  int from_zero = 0, near = 0;
  for (int trial = 0; trial < 6000; ++trial) {
    const auto c = values(kmeans_plus_plus(u, 2, rng));
    if (c[0] != 0) continue;
    ++from_zero;
    near += c[1] == 1 ? 1 : 0;
  }
  CHECK(std::abs(from_zero - 2000) < 5 * 37);  // five standard deviations
  CHECK(std::abs(near - 0.1 * from_zero) < 5 * 14);
}

TEST_CASE("k-means++ chooses alike from data of any size") {
  // Squares of the large ones overflow, those of the small ones are 0.
  for (const double scale : {0x1p-600, 0x1p+600}) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      Rng rng(seed);
      const Tensor u = rng.normal({2, 9, 3}, 0, 1, DType::f64);
      Rng a = rng, b = rng;
      CHECK(same_bits(kmeans_plus_plus(u * scale, 4, a), kmeans_plus_plus(u, 4, b) * scale));
    }
  }
}

TEST_CASE("k-means++ on points that coincide still chooses different ones, and has a gradient") {
  Rng rng(13);
  Tensor u = ones({5, 2}, DType::f64).requires_grad_();
  const Tensor g = grad(sum(kmeans_plus_plus(u, 4, rng)), u);
  CHECK(sum(g).item() == 8);
  CHECK(largest(g) == 1);  // no point twice
}

TEST_CASE("errors of k-means++ say what was expected and what was given") {
  Rng rng(14);
  const Tensor u = ones({2, 5, 3});
  CHECK(message_of<ValueError>([&] { kmeans_plus_plus(u, 6, rng); }) ==
        "kmeans_plus_plus: the number of centres must be at least 1 and at most that of the "
        "points, 5; got 6");
  CHECK(contains(message_of<ValueError>([&] { kmeans_plus_plus(u, 0, rng); }), "got 0"));
  CHECK(contains(message_of<ValueError>([&] {
                   kmeans_plus_plus(full({3, 2}, NAN), 2, rng);
                 }),
                 "must be finite"));
  CHECK(contains(message_of<ShapeError>([&] { kmeans_plus_plus(ones({3}), 1, rng); }),
                 "[B, N, D] or [N, D]; got [3]"));
}
