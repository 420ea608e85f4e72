#pragma once
// What the tests of clustering share.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <capsfw/core/random.hpp>

#include "ops_support.hpp"
#include "support.hpp"

namespace capsfw::testing {

/// Data and first centres of random sizes, standard normal f64.
struct Problem {
  std::int64_t batch, points, clusters;
  Tensor u, v;

  explicit Problem(Rng& rng, std::int64_t least_points = 6)
      : batch(1 + rng.below(3)), points(least_points + rng.below(14)), clusters(2 + rng.below(4)) {
    const std::int64_t dim = 1 + rng.below(4);
    u = randn({batch, points, dim}, rng, DType::f64);
    v = randn({batch, clusters, dim}, rng, DType::f64);
  }
};

/// Largest relative rise along the last axis [..., T].
inline double largest_rise(const Tensor& x) {
  const auto all = x.to_vector<double>();
  const auto length = static_cast<std::size_t>(x.size(-1));
  double rise = -INFINITY;
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (i % length == 0) continue;
    const double step = (all[i] - all[i - 1]) / std::max(1.0, std::abs(all[i]));
    if (!(step <= rise)) rise = step;
  }
  return rise;
}

}  // namespace capsfw::testing
