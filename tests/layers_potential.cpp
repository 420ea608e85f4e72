// Dynamic routing climbs (docs/maths/dynamic-routing.md).

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;

namespace {

/// Ψ = Σ_j n_j − √c arctan(n_j / √c) with n_j = ‖Σ_i c_ij û_ij‖, per sample.
Tensor potential(const Tensor& couplings, const Tensor& votes, double c) {
  const Tensor n = safe_norm(weighted_sum(couplings, votes));
  return sum(n - atan(n / std::sqrt(c)) * std::sqrt(c), {1});
}

}  // namespace

TEST_CASE("the agreement is the gradient of the potential of the couplings") {
  Rng rng(2);
  const Tensor votes = randn({2, 7, 3, 4}, rng, DType::f64);
  const Tensor c = rng.uniform({2, 7, 3}, 0.1, 0.9, DType::f64).requires_grad_();
  for (const double squash_c : {1.0, 0.5}) {
    const Tensor slope = grad(sum(potential(c, votes, squash_c)), c);
    const Tensor v = squash(weighted_sum(c, votes), squash_c).detach();
    CHECK(testing::max_difference(slope, agreement(votes, v)) < 1e-13);
  }
}

TEST_CASE("the potential never falls from one iteration of dynamic routing to the next") {
  Rng rng(3);
  for (const double scale : {0.1, 1.0, 5.0})
    for (const double squash_c : {1.0, 0.5}) {
      const Tensor votes = randn({20, 12, 4, 5}, rng, DType::f64) * scale;
      std::vector<double> before;
      double rise = 0;
      for (int r = 1; r <= 8; ++r) {
        const Routed routed = dynamic_routing(votes, {.iterations = r, .squash_c = squash_c});
        const auto now = testing::values(potential(routed.couplings, votes, squash_c));
        for (std::size_t b = 0; b < before.size(); ++b) {
          CHECK(now[b] >= before[b] - 1e-12 * std::abs(before[b]));
          rise += now[b] - before[b];
        }
        before = now;
      }
      CHECK(rise > 0);
    }
}
