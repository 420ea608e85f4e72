#include <capsfw/ops/capsule.hpp>

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/strided.hpp"
#include "kernels/long_capsule.hpp"

namespace capsfw {
namespace {

/// Keeps the compiler from taking several rows at once where two arrays are far apart, and single
/// ones where they are not: the two ways fuse other products with sums, and results would depend on
/// addresses.
inline void one_row() { asm volatile("" ::: "memory"); }

/// v = f s with f = n / (c + n²), n = ‖s‖, for rows of length D (0: known at run time).
template <class T, int D>
void squash_rows(
    const T* __restrict s, T* __restrict v, std::int64_t rows, std::int64_t size, T c) {
  const std::int64_t d = D > 0 ? D : size;
  for (std::int64_t r = 0; r < rows; ++r, s += d, v += d) {
    one_row();
    T sq = T(0);
    for (std::int64_t i = 0; i < d; ++i) sq += s[i] * s[i];
    if (kernels::too_long(sq)) {
      kernels::squash_long(s, v, d, c);
      continue;
    }
    const T f = std::sqrt(sq) / (c + sq);
    for (std::int64_t i = 0; i < d; ++i) v[i] = f * s[i];
  }
}

/// gs = f g + (f′/n) ⟨s, g⟩ s with f′ = (c − n²) / (c + n²)²; 0 where n = 0.
template <class T, int D>
void squash_vjp_rows(const T* __restrict s,
                     const T* __restrict g,
                     T* __restrict o,
                     std::int64_t rows,
                     std::int64_t size,
                     T c) {
  const std::int64_t d = D > 0 ? D : size;
  for (std::int64_t r = 0; r < rows; ++r, s += d, g += d, o += d) {
    one_row();
    T sq = T(0), dot = T(0);
    for (std::int64_t i = 0; i < d; ++i) {
      sq += s[i] * s[i];
      dot += s[i] * g[i];
    }
    if (kernels::too_long(sq)) {
      kernels::squash_vjp_long(s, g, o, d, c);
      continue;
    }
    const T n = std::sqrt(sq), w = c + sq, f = n / w;
    const T h = sq > T(0) ? (c - sq) / (w * w) / n * dot : T(0);
    for (std::int64_t i = 0; i < d; ++i) o[i] = f * g[i] + h * s[i];
  }
}

/// Runs a row kernel for the capsule sizes that matter with the size known to the compiler.
template <class Kernel8, class Kernel16, class KernelAny>
void by_size(std::int64_t d, const Kernel8& k8, const Kernel16& k16, const KernelAny& any) {
  if (d == 8)
    detail::simd(k8);
  else if (d == 16)
    detail::simd(k16);
  else
    detail::simd(any);
}

Tensor squash_forward(const Tensor& s0, double c) {
  const Tensor s = contiguous_data(s0);
  Tensor v = empty(s.shape(), s.dtype(), "squash");
  const std::int64_t d = s.size(-1), rows = d == 0 ? 0 : s.numel() / d;
  visit_float(s, "squash", [&]<class T>() {
    const T* sp = s.data<T>();
    T* vp = v.mutable_data<T>();
    const T cc = static_cast<T>(c);
    parallel_for(rows, 2 * d, [=](std::int64_t b, std::int64_t e) {
      const T* p = sp + b * d;
      T* q = vp + b * d;
      const std::int64_t n = e - b;
      by_size(
          d, [=] { squash_rows<T, 8>(p, q, n, d, cc); },
          [=] { squash_rows<T, 16>(p, q, n, d, cc); }, [=] { squash_rows<T, 0>(p, q, n, d, cc); });
    });
  });
  return v;
}

Tensor squash_vjp(const Tensor& s0, const Tensor& g0, double c) {
  const Tensor s = contiguous_data(s0), g = contiguous_data(g0);
  Tensor o = empty(s.shape(), s.dtype(), "squash");
  const std::int64_t d = s.size(-1), rows = d == 0 ? 0 : s.numel() / d;
  visit_float(s, "squash", [&]<class T>() {
    const T *sp = s.data<T>(), *gp = g.data<T>();
    T* op = o.mutable_data<T>();
    const T cc = static_cast<T>(c);
    parallel_for(rows, 4 * d, [=](std::int64_t b, std::int64_t e) {
      const T *p = sp + b * d, *q = gp + b * d;
      T* r = op + b * d;
      const std::int64_t n = e - b;
      by_size(
          d, [=] { squash_vjp_rows<T, 8>(p, q, r, n, d, cc); },
          [=] { squash_vjp_rows<T, 16>(p, q, r, n, d, cc); },
          [=] { squash_vjp_rows<T, 0>(p, q, r, n, d, cc); });
    });
  });
  return o;
}

/// Longer capsules are squashed by a formula without squares.
constexpr double kLong = 1e9;

/// Squares of shorter capsules are denormal: 2^−50 for f32.
double least_length(DType dtype) {
  return visit_float(dtype, "safe_normalize", []<class T>() {
    using Limits = std::numeric_limits<T>;
    return std::exp2((Limits::min_exponent + Limits::digits) / 2);
  });
}

/// safe_norm where squares overflow: of x / m, times m = max |x|.
Tensor scaled_norm(const Tensor& x, const Axes& axes, bool keepdim) {
  const Tensor most = max(abs(x.detach()), axes, true);
  const Tensor m = where(logical_and(gt(most, kLong), isfinite(most)), most, 1.0);
  const Tensor sq = sum(square(x / m), axes, true), zero = eq(sq.detach(), 0.0);
  const Tensor n = m * where(zero, 0.0, sqrt(where(zero, 1.0, sq)));
  return keepdim ? n : sum(n, axes);
}

}  // namespace

Tensor safe_norm(const Tensor& x, const Axes& axes, bool keepdim) {
  check_floating(x, "safe_norm");
  const Tensor sq = sum(square(x), axes, keepdim);
  if (any(eq(sq.detach(), INFINITY))) return scaled_norm(x, axes, keepdim);
  const Tensor zero = eq(sq.detach(), 0.0);
  // The root is taken of 1 where the sum is 0, so that the branch not selected is finite as well.
  return where(zero, 0.0, sqrt(where(zero, 1.0, sq)));
}

Tensor safe_normalize(const Tensor& x, int axis) {
  const Tensor n = safe_norm(x, {axis}, true);
  const Tensor zero = eq(n.detach(), 0.0), m = where(zero, 1.0, n);
  const double least = least_length(x.dtype());
  const Tensor short_ones = lt(m.detach(), least);
  if (!any(short_ones)) return where(zero, 0.0, x / m);
  // A power of two changes no digit of a direction, and squares have all of theirs.
  const Tensor longer = x * where(short_ones, scalar(1 / least, x.dtype()), 1.0);
  return where(zero, 0.0, longer / where(zero, 1.0, safe_norm(longer, {axis}, true)));
}

Tensor squash_reference(const Tensor& s, double c, int axis) {
  const Tensor n = safe_norm(s, {axis}, true);
  const Tensor large = gt(n.detach(), kLong);
  if (!any(large)) return s * (n / (c + square(n)));
  // The square of a long one, or its derivatives, would overflow in f32.
  const Tensor m = where(large, n, 1.0), k = where(large, 0.0, n);
  return s * where(large, 1.0 / (m + c / m), k / (c + square(k)));
}

Tensor squash(const Tensor& s, double c, int axis) {
  check_floating(s, "squash");
  // Below the normal numbers of the type, c + 0² is 0 or has lost its digits.
  if (!(c >= smallest_normal(s.dtype()) && c <= largest_number(s.dtype())))
    throw ValueError(fmt::format("squash: c must be a positive normal number of {}; got {}",
                                 name_of(s.dtype()), c));
  if (normalize_axis(axis, s.dim(), "squash") != s.dim() - 1) return squash_reference(s, c, axis);
  return record_fused(
      "squash", {s}, {squash_forward(s.detach(), c)}, Save::none,
      [c](const Saved& saved, const TensorList& g) -> TensorList {
        return {squash_vjp(saved.input(0), g[0], c)};
      },
      [c](const TensorList& in) -> TensorList { return {squash_reference(in[0], c)}; })[0];
}

Tensor squash_exp(const Tensor& s, int axis) {
  const Tensor n = safe_norm(s, {axis}, true);
  // f = (1 − e^(−n))/n loses all digits in its derivatives as n falls; Σ_k (−n)^k/(k+1)! does not.
  const Tensor small = lt(n.detach(), 0.02);
  const Tensor m = where(small, 1.0, n), t = where(small, n, 0.0);
  Tensor series = 1.0 - t / 7.0;
  for (int k = 6; k >= 2; --k) series = 1.0 - t * series / static_cast<double>(k);
  return s * where(small, series, neg(expm1(neg(m))) / m);
}

}  // namespace capsfw
