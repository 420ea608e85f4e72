#pragma once
// What the tests of gradient penalties share.

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/layers/mlp.hpp>
#include <capsfw/layers/penalty.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

namespace capsfw::testing {

inline Tensor normal(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return randn(shape, rng, DType::f64);
}

/// An Mlp in f64.
struct DoubleMlp : Mlp {
  DoubleMlp(const std::vector<std::int64_t>& sizes,
            std::uint64_t seed,
            const MlpOptions& options = {.activation = "tanh"})
      : DoubleMlp(sizes, Rng(seed), options) {}

 private:
  DoubleMlp(const std::vector<std::int64_t>& sizes, Rng rng, const MlpOptions& options)
      : Mlp(sizes, rng, options) {
    to(DType::f64);
  }
};

/// ½ ‖h_b‖² + Σ h_b, a scalar of each row.
inline Tensor head(const Tensor& h) { return sum(0.5 * square(h) + h, {1}); }

/// The gradient of a penalty by parameters, zeros where nothing depends on one.
inline TensorList gradient(const Tensor& penalty, const TensorList& params) {
  TensorList g(params.size());
  if (penalty.requires_grad()) g = grad({penalty}, params, {}, {.allow_unused = true});
  for (std::size_t i = 0; i < g.size(); ++i)
    if (!g[i].defined()) g[i] = zeros_like(params[i]);
  return g;
}

/// ‖a − b‖ / ‖b‖ over lists.
inline double relative_difference(const TensorList& a, const TensorList& b) {
  double gap = 0, length = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    gap += sum(square(a[i].detach() - b[i].detach())).item();
    length += sum(square(b[i].detach())).item();
  }
  return std::sqrt(gap / length);
}

}  // namespace capsfw::testing
