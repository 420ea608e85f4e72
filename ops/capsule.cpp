#include <capsfw/ops/capsule.hpp>

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
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
  visit_float(s.dtype(), "squash", [&]<class T>() {
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
  visit_float(s.dtype(), "squash", [&]<class T>() {
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

/// Sizes of the three tensors of a routing sum, checked once.
struct RoutingSizes {
  std::int64_t b, i, j, d;
};

void check_shapes(
    bool ok, std::string_view op, std::string_view rule, const Tensor& x, const Tensor& y) {
  if (!ok)
    throw ShapeError(
        fmt::format("{}: takes {}; got {} and {}", op, rule, x.shape().str(), y.shape().str()));
  if (x.dtype() != y.dtype())
    throw DTypeError(fmt::format("{}: element types must be equal; got {} and {}", op,
                                 name_of(x.dtype()), name_of(y.dtype())));
}

RoutingSizes sizes_of(const Tensor& votes) {
  return {votes.size(0), votes.size(1), votes.size(2), votes.size(3)};
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
  if (!(c > 0)) throw ValueError(fmt::format("squash: c must be positive; got {}", c));
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

Tensor votes_full(const Tensor& u, const Tensor& weight) {
  check_shapes(u.dim() == 3 && weight.dim() == 4 && u.size(1) == weight.size(0) &&
                   u.size(2) == weight.size(3),
               "votes_full", "u [B, I, E] and weight [I, J, D, E]", u, weight);
  return einsum("bie,ijde->bijd", u, weight);
}

Tensor votes_shared(const Tensor& u, const Tensor& weight) {
  check_shapes(u.dim() == 3 && weight.dim() == 3 && u.size(2) == weight.size(2), "votes_shared",
               "u [B, I, E] and weight [J, D, E]", u, weight);
  return einsum("bie,jde->bijd", u, weight);
}

Tensor votes_factorised(const Tensor& u, const Tensor& weight, const Tensor& lower) {
  check_shapes(
      u.dim() == 3 && lower.dim() == 3 && u.size(1) == lower.size(0) && u.size(2) == lower.size(2),
      "votes_factorised", "u [B, I, E] and lower weight [I, M, E]", u, lower);
  return votes_shared(einsum("bie,ime->bim", u, lower), weight);
}

Tensor votes_matrix(const Tensor& pose, const Tensor& weight) {
  check_shapes(pose.dim() == 4 && weight.dim() == 4 && pose.size(1) == weight.size(0) &&
                   pose.size(3) == weight.size(2),
               "votes_matrix", "pose [B, I, P, P] and weight [I, J, P, P]", pose, weight);
  return flatten(einsum("bipq,ijqr->bijpr", pose, weight), 3, 4);
}

Tensor frobenius_normalize(const Tensor& weight) {
  if (weight.dim() < 2)
    throw ShapeError(
        fmt::format("frobenius_normalize: takes matrices; got {}", weight.shape().str()));
  return reshape(safe_normalize(flatten(weight, -2, -1)), weight.shape());
}

Tensor weighted_sum(const Tensor& c0, const Tensor& votes0) {
  check_shapes(votes0.dim() == 4 && c0.dim() == 3 && c0.size(0) == votes0.size(0) &&
                   c0.size(1) == votes0.size(1) && c0.size(2) == votes0.size(2),
               "weighted_sum", "c [B, I, J] and votes [B, I, J, D]", c0, votes0);
  const Tensor c = contiguous_data(c0.detach()), votes = contiguous_data(votes0.detach());
  const RoutingSizes n = sizes_of(votes);
  Tensor s = zeros({n.b, n.j, n.d}, c.dtype(), "weighted_sum");
  visit_float(c.dtype(), "weighted_sum", [&]<class T>() {
    const T *cs = c.data<T>(), *us = votes.data<T>();
    T* ss = s.mutable_data<T>();
    parallel_for(n.b, n.i * n.j * n.d / 8 + 1, [=](std::int64_t b0, std::int64_t b1) {
      detail::simd([=] {
        for (std::int64_t b = b0; b < b1; ++b)
          for (std::int64_t i = 0; i < n.i; ++i)
            for (std::int64_t j = 0; j < n.j; ++j) {
              const T w = cs[(b * n.i + i) * n.j + j];
              const T* __restrict u = us + ((b * n.i + i) * n.j + j) * n.d;
              T* __restrict out = ss + (b * n.j + j) * n.d;
              for (std::int64_t d = 0; d < n.d; ++d) out[d] += w * u[d];
            }
      });
    });
  });
  return record("weighted_sum", {c0, votes0}, s, Save::inputs,
                [](const Saved& saved, const Tensor& gs) {
                  return TensorList{saved.needs(0) ? agreement(saved.input(1), gs) : Tensor(),
                                    saved.needs(1) ? outer_votes(saved.input(0), gs) : Tensor()};
                });
}

Tensor agreement(const Tensor& votes0, const Tensor& v0) {
  check_shapes(votes0.dim() == 4 && v0.dim() == 3 && v0.size(0) == votes0.size(0) &&
                   v0.size(1) == votes0.size(2) && v0.size(2) == votes0.size(3),
               "agreement", "votes [B, I, J, D] and v [B, J, D]", votes0, v0);
  const Tensor votes = contiguous_data(votes0.detach()), v = contiguous_data(v0.detach());
  const RoutingSizes n = sizes_of(votes);
  Tensor a = empty({n.b, n.i, n.j}, v.dtype(), "agreement");
  visit_float(v.dtype(), "agreement", [&]<class T>() {
    const T *us = votes.data<T>(), *vs = v.data<T>();
    T* as = a.mutable_data<T>();
    parallel_for(n.b * n.i, n.j * n.d / 4 + 1, [=](std::int64_t r0, std::int64_t r1) {
      detail::simd([=] {
        for (std::int64_t r = r0; r < r1; ++r)
          for (std::int64_t j = 0; j < n.j; ++j) {
            const T* __restrict u = us + (r * n.j + j) * n.d;
            const T* __restrict w = vs + (r / n.i * n.j + j) * n.d;
            T lanes[16] = {};
            std::int64_t d = 0;
            for (; d + 16 <= n.d; d += 16)
              for (int k = 0; k < 16; ++k) lanes[k] += u[d + k] * w[d + k];
            T dot = T(0);
            for (; d < n.d; ++d) dot += u[d] * w[d];
            for (T l : lanes) dot += l;
            as[r * n.j + j] = dot;
          }
      });
    });
  });
  return record("agreement", {votes0, v0}, a, Save::inputs,
                [](const Saved& saved, const Tensor& ga) {
                  return TensorList{saved.needs(0) ? outer_votes(ga, saved.input(1)) : Tensor(),
                                    saved.needs(1) ? weighted_sum(ga, saved.input(0)) : Tensor()};
                });
}

Tensor outer_votes(const Tensor& c0, const Tensor& v0) {
  check_shapes(
      c0.dim() == 3 && v0.dim() == 3 && c0.size(0) == v0.size(0) && c0.size(2) == v0.size(1),
      "outer_votes", "c [B, I, J] and v [B, J, D]", c0, v0);
  const Tensor c = contiguous_data(c0.detach()), v = contiguous_data(v0.detach());
  const RoutingSizes n{c.size(0), c.size(1), c.size(2), v.size(2)};
  Tensor y = empty({n.b, n.i, n.j, n.d}, c.dtype(), "outer_votes");
  visit_float(c.dtype(), "outer_votes", [&]<class T>() {
    const T *cs = c.data<T>(), *vs = v.data<T>();
    T* ys = y.mutable_data<T>();
    parallel_for(n.b * n.i, n.j * n.d / 4 + 1, [=](std::int64_t r0, std::int64_t r1) {
      detail::simd([=] {
        for (std::int64_t r = r0; r < r1; ++r)
          for (std::int64_t j = 0; j < n.j; ++j) {
            const T w = cs[r * n.j + j];
            const T* __restrict p = vs + (r / n.i * n.j + j) * n.d;
            T* __restrict q = ys + (r * n.j + j) * n.d;
            for (std::int64_t d = 0; d < n.d; ++d) q[d] = w * p[d];
          }
      });
    });
  });
  return record("outer_votes", {c0, v0}, y, Save::inputs, [](const Saved& saved, const Tensor& gy) {
    return TensorList{saved.needs(0) ? agreement(gy, saved.input(1)) : Tensor(),
                      saved.needs(1) ? weighted_sum(saved.input(0), gy) : Tensor()};
  });
}

}  // namespace capsfw
