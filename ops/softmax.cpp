#include <capsfw/ops/softmax.hpp>

#include <cmath>
#include <limits>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/strided.hpp"
#include "kernels/math.hpp"

namespace capsfw {
namespace {

/// x seen as [outer, n, inner], row-major.
struct Rows {
  std::int64_t outer = 1, n = 1, inner = 1;
  Rows(const Shape& shape, int axis) {
    for (int i = 0; i < shape.rank(); ++i) (i < axis ? outer : i > axis ? inner : n) *= shape[i];
  }
};

// Up to this many neighbouring rows run through a loop together, so that short axes (capsule
// classes) still fill vector registers.
constexpr std::int64_t kBlock = 32;

/// Calls body(base, width, step, hop) for blocks of rows: element k of row j lies at base + k·step
/// + j·hop.
template <class Body>
void for_blocks(const Rows& r, const Body& body) {
  const bool last = r.inner == 1;  // rows are contiguous: take several, a row apart
  const std::int64_t count = last ? r.outer : r.inner, step = r.inner, hop = last ? r.n : 1;
  const std::int64_t blocks = (count + kBlock - 1) / kBlock, groups = last ? 1 : r.outer;
  parallel_for(groups * blocks, kBlock * r.n * 2, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      const std::int64_t first = t % blocks * kBlock;
      body(t / blocks * r.n * r.inner + first * hop, std::min(kBlock, count - first), step, hop);
    }
  });
}

/// Rows of more numbers than this go through plain ops, whose sums are in double: the kernels sum a
/// row up in its own type.
constexpr std::int64_t kLongest = 1 << 16;

template <bool Log>
Tensor forward(const Tensor& x0, int axis) {
  if (x0.size(axis) > kLongest) {
    const Tensor t = x0 - max(x0, {axis}, true), e = exp(t), total = sum(e, {axis}, true);
    return Log ? t - log(total) : e / total;
  }
  const Tensor x = contiguous_data(x0);
  Tensor y = empty(x.shape(), x.dtype(), Log ? "log_softmax" : "softmax");
  visit_float(x, Log ? "log_softmax" : "softmax", [&]<class T>() {
    const T* xs = x.data<T>();
    T* ys = y.mutable_data<T>();
    const Rows r(x.shape(), axis);
    const std::int64_t n = r.n;
    for_blocks(r, [=](std::int64_t base, std::int64_t width, std::int64_t step, std::int64_t hop) {
      detail::simd([=] {
        const T* __restrict p = xs + base;
        T* __restrict q = ys + base;
        T top[kBlock], total[kBlock];
        for (std::int64_t j = 0; j < width; ++j)
          top[j] = -std::numeric_limits<T>::infinity(), total[j] = T(0);
        for (std::int64_t k = 0; k < n; ++k)
          for (std::int64_t j = 0; j < width; ++j)
            top[j] = p[k * step + j * hop] > top[j] ? p[k * step + j * hop] : top[j];
        for (std::int64_t k = 0; k < n; ++k)
          for (std::int64_t j = 0; j < width; ++j) {
            const T e = kernels::exp(p[k * step + j * hop] - top[j]);
            total[j] += e;
            if constexpr (!Log) q[k * step + j * hop] = e;
          }
        for (std::int64_t j = 0; j < width; ++j)
          total[j] = Log ? std::log(total[j]) : T(1) / total[j];
        for (std::int64_t k = 0; k < n; ++k)
          for (std::int64_t j = 0; j < width; ++j) {
            T& out = q[k * step + j * hop];
            // Not x − (top + ln Σ): the entry near the maximum would lose the digits of ln Σ.
            out = Log ? (p[k * step + j * hop] - top[j]) - total[j] : out * total[j];
          }
      });
    });
  });
  return y;
}

/// softmax: p (gy − Σ gy p).   log_softmax: gy − e^y Σ gy.
template <bool Log>
Tensor backward_kernel(const Tensor& y0, const Tensor& gy0, int axis) {
  if (y0.size(axis) > kLongest)
    return Log ? gy0 - exp(y0) * sum(gy0, {axis}, true) : y0 * (gy0 - sum(gy0 * y0, {axis}, true));
  const Tensor y = contiguous_data(y0), gy = contiguous_data(gy0);
  Tensor gx = empty(y.shape(), y.dtype(), Log ? "log_softmax" : "softmax");
  visit_float(y, "softmax", [&]<class T>() {
    const T *ys = y.data<T>(), *gs = gy.data<T>();
    T* os = gx.mutable_data<T>();
    const Rows r(y.shape(), axis);
    const std::int64_t n = r.n;
    for_blocks(r, [=](std::int64_t base, std::int64_t width, std::int64_t step, std::int64_t hop) {
      detail::simd([=] {
        const T* __restrict p = ys + base, * __restrict g = gs + base;
        T* __restrict q = os + base;
        T total[kBlock];
        for (std::int64_t j = 0; j < width; ++j) total[j] = T(0);
        for (std::int64_t k = 0; k < n; ++k)
          for (std::int64_t j = 0; j < width; ++j) {
            const std::int64_t i = k * step + j * hop;
            total[j] += Log ? g[i] : g[i] * p[i];
          }
        for (std::int64_t k = 0; k < n; ++k)
          for (std::int64_t j = 0; j < width; ++j) {
            const std::int64_t i = k * step + j * hop;
            q[i] = Log ? g[i] - kernels::exp(p[i]) * total[j] : p[i] * (g[i] - total[j]);
          }
      });
    });
  });
  return gx;
}

/// p (g − Σ g p), the rule of softmax, as an op: its own adjoint in g. Where p is close to 1 the
/// difference is tiny next to g, and to differentiate the two terms apart, p w − p Σ w p, would
/// leave more rounding than value. Plain ops round every product, with or without fused
/// multiply-add.
Tensor softmax_vjp(const Tensor& p, const Tensor& g, int a) {
  const Tensor p0 = p.detach(), g0 = g.detach();
  return record("softmax_vjp", {p, g}, p0 * (g0 - sum(g0 * p0, {a}, true)), Save::inputs,
                [a](const Saved& s, const Tensor& w) -> TensorList {
                  const Tensor y = s.input(0), gy = s.input(1);
                  Tensor to_y, to_gy;
                  if (s.needs(0))
                    to_y = w * (gy - sum(gy * y, {a}, true)) - gy * sum(w * y, {a}, true);
                  if (s.needs(1)) to_gy = softmax_vjp(y, w, a);
                  return {to_y, to_gy};
                });
}

template <bool Log>
Tensor fused(const Tensor& x, int axis) {
  const char* name = Log ? "log_softmax" : "softmax";
  const int a = normalize_axis(axis, x.dim(), name);
  return record(name, {x}, forward<Log>(x.detach(), a), Save::output,
                [a](const Saved& s, const Tensor& gy) {
                  const Tensor y = s.output();
                  if (!is_grad_enabled()) return backward_kernel<Log>(y, gy, a);
                  if constexpr (Log) return gy - exp(y) * sum(gy, {a}, true);
                  return softmax_vjp(y, gy, a);
                });
}

}  // namespace

Tensor softmax(const Tensor& x, int axis) { return fused<false>(x, axis); }
Tensor log_softmax(const Tensor& x, int axis) { return fused<true>(x, axis); }

Tensor shares(const Tensor& x, int axis) {
  check_floating(x, "shares");
  const int a = normalize_axis(axis, x.dim(), "shares");
  const Tensor x0 = x.detach();
  return record("shares", {x}, x0 / sum(x0, {a}, true), Save::all,
                [a](const Saved& s, const Tensor& gy) {
                  return (gy - sum(gy * s.output(), {a}, true)) / sum(s.input(0), {a}, true);
                });
}

Tensor softmax_reference(const Tensor& x, int axis) { return exp(log_softmax_reference(x, axis)); }

Tensor log_softmax_reference(const Tensor& x, int axis) {
  const Tensor top = max(x.detach(), {axis}, true);
  const Tensor z = x - where(isfinite(top), top, 0.0);
  return z - logsumexp(z, {axis}, true);
}

}  // namespace capsfw
