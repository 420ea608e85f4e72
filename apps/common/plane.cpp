#include "plane.hpp"

#include <cmath>

#include <capsfw/core/random.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw::apps {
namespace {

/// Orthonormal rows; a row that is within rounding of the first one becomes 0.
Tensor orthonormal(const Tensor& rows) {
  const Tensor a = safe_normalize(narrow(rows, 0, 0, 1)), b = narrow(rows, 0, 1, 1);
  const Tensor rest = b - sum(a * b) * a;
  const bool none = safe_norm(rest, {0, 1}).item() <= 1e-12 * safe_norm(b, {0, 1}).item();
  return cat({a, none ? zeros_like(b) : safe_normalize(rest)});
}

}  // namespace

Tensor Plane::points(const Tensor& x) const { return matmul(x - origin, transpose(axes, 0, 1)); }

Plane principal_plane(const Tensor& x, bool around_mean) {
  const std::int64_t d = x.size(1);
  if (d <= 2) return {zeros({d}, DType::f64), narrow(eye(2, DType::f64), 1, 0, d)};
  Plane plane{around_mean ? mean(x, {0}) : zeros({d}, DType::f64), {}};
  const Tensor centred = x - plane.origin;
  Rng rng(1);
  Tensor axes = orthonormal(randn({2, d}, rng, DType::f64));
  for (int i = 0; i < 100; ++i) {
    const Tensor next = orthonormal(matmul(matmul(axes, transpose(centred, 0, 1)), centred));
    const double change = max(abs(next - axes)).item();
    axes = next;
    if (change < 1e-10) break;
  }
  const Tensor longest = argmax(abs(axes), 1);
  plane.axes =
      axes * where(lt(gather(axes, 1, unsqueeze(longest, 1)), 0.0), -1.0, ones({2, 1}, DType::f64));
  const double all = sum(square(centred)).item();
  if (all > 0) plane.share = sum(square(plane.points(x))).item() / all;
  return plane;
}

}  // namespace capsfw::apps
