#include <capsfw/ops/reduce.hpp>

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/reduction.hpp"

namespace capsfw {
namespace {

/// The shape of a reduction with the reduced axes kept at length 1.
Shape kept_shape(const Tensor& x, const Axes& axes) {
  Shape s = x.shape();
  for (std::int64_t a : axes) s[static_cast<int>(a)] = 1;
  return s;
}

/// The same without those axes.
Shape dropped_shape(const Tensor& x, const Axes& axes) {
  Shape s = x.shape();
  for (int i = axes.rank() - 1; i >= 0; --i) s.erase(static_cast<int>(axes[i]));
  return s;
}

Tensor with_dims(const Tensor& kept, const Tensor& x, const Axes& axes, bool keepdim) {
  return keepdim ? kept : reshape(kept, dropped_shape(x, axes));
}

/// Largest (smallest) element over `axes`, keeping dims; plain data.
template <bool Largest>
Tensor extreme(const Tensor& x, const Axes& axes, const char* op) {
  Tensor y = empty(kept_shape(x, axes), x.dtype(), op);
  if (y.numel() > 0 && x.numel() == 0)
    throw ShapeError(fmt::format("{}: nothing to take it of; got x = {}", op, x.shape().str()));
  visit_any(x.dtype(), [&]<class T>() {
    using Limits = std::numeric_limits<T>;
    const T init = Largest ? (Limits::has_infinity ? -Limits::infinity() : Limits::lowest())
                           : (Limits::has_infinity ? Limits::infinity() : Limits::max());
    const auto pick = [](T a, T b) {
      return a != a ? a : ((Largest ? b > a : b < a) || b != b ? b : a);
    };
    detail::reduce_axes<T, T>(x, axes, y, init, pick, pick, [](T v) { return v; });
  });
  return y;
}

/// Shared by max and min: the gradient is split evenly among the elements equal to the result.
template <bool Largest>
Tensor reduce_extreme(const Tensor& x, const Axes& wanted, bool keepdim, const char* op) {
  const Axes axes = normalize_axes(wanted, x.dim(), op);
  const Tensor kept = record(op, {x}, extreme<Largest>(x, axes, op), Save::input0 | Save::output,
                             [axes](const Saved& s, const Tensor& gy) {
                               const Tensor hits =
                                   to(eq(s.input(0).detach(), s.output().detach()), gy.dtype());
                               const Tensor share = hits / sum(hits, axes, true);
                               // 0 for an infinite gy as well; NaN where the result is NaN.
                               return where(eq(share, 0.0), 0.0, gy * share);
                             });
  return with_dims(kept, x, axes, keepdim);
}

template <bool Largest>
Tensor arg_extreme(const Tensor& x, int axis, bool keepdim, const char* op) {
  const int a = normalize_axis(axis, x.dim(), op);
  const std::int64_t n = x.shape()[a];
  if (n == 0)
    throw ShapeError(
        fmt::format("{}: the axis is empty; got x = {}, axis {}", op, x.shape().str(), axis));
  const Axes axes{a};
  Tensor y = empty(kept_shape(x, axes), DType::i64, op);
  visit_any(x.dtype(), [&]<class T>() {
    const detail::ReductionPlan plan(x, axes);
    const T* xs = x.data<T>();
    auto* ys = y.mutable_data<std::int64_t>();
    const std::int64_t stride = x.strides()[a];
    plan.kept.run(n, [&](const auto* at, std::int64_t count, const auto* step) {
      for (std::int64_t j = 0; j < count; ++j) {
        const T* p = xs + at[1] + j * step[1];
        std::int64_t best = 0;
        for (std::int64_t i = 1; i < n && p[best * stride] == p[best * stride]; ++i) {
          const T v = p[i * stride], top = p[best * stride];
          if ((Largest ? v > top : v < top) || v != v) best = i;
        }
        ys[at[0] + j * step[0]] = best;
      }
    });
  });
  return with_dims(y, x, axes, keepdim);
}

/// Running sums along an axis, from the front or from the back.
Tensor running_sum(const Tensor& x, int axis, bool backwards) {
  Tensor y = empty(x.shape(), x.dtype(), "cumsum");
  const std::int64_t n = x.shape()[axis];
  visit_any(x.dtype(), [&]<class T>() {
    const T* xs = x.data<T>();
    T* ys = y.mutable_data<T>();
    const std::int64_t sx = x.strides()[axis], sy = y.strides()[axis];
    Shape shape = x.shape();
    Strides in = x.strides(), out = y.strides();
    shape.erase(axis);
    in.erase(axis);
    out.erase(axis);
    detail::StridedLoop(shape, {out, in})
        .run(n, [&](const auto* at, std::int64_t count, const auto* step) {
          for (std::int64_t j = 0; j < count; ++j) {
            const T* p = xs + at[1] + j * step[1];
            T* q = ys + at[0] + j * step[0];
            double acc = 0;
            std::int64_t exact = 0;
            for (std::int64_t k = 0; k < n; ++k) {
              const std::int64_t i = backwards ? n - 1 - k : k;
              if constexpr (std::is_floating_point_v<T>)
                q[i * sy] = static_cast<T>(acc += static_cast<double>(p[i * sx]));
              else
                q[i * sy] = static_cast<T>(exact += static_cast<std::int64_t>(p[i * sx]));
            }
          }
        });
  });
  return record("cumsum", {x}, y, Save::none, [axis, backwards](const Saved&, const Tensor& gy) {
    return running_sum(gy, axis, !backwards);
  });
}

}  // namespace

Tensor sum(const Tensor& x, const Axes& wanted, bool keepdim) {
  if (x.dtype() == DType::b8) return sum(to(x, DType::i64), wanted, keepdim);
  const Axes axes = normalize_axes(wanted, x.dim(), "sum");
  Tensor y = empty(kept_shape(x, axes), x.dtype(), "sum");
  if (x.dtype() == DType::i64)
    detail::reduce_axes<std::int64_t, std::int64_t>(x, axes, y, 0, std::plus<std::int64_t>(),
                                                    std::plus<std::int64_t>(),
                                                    [](std::int64_t v) { return v; });
  else
    y = sum_to(x.detach(), y.shape());
  const Shape full = x.shape();
  y = record("sum", {x}, y, Save::none,
             [full](const Saved&, const Tensor& gy) { return broadcast_to(gy, full); });
  return with_dims(y, x, axes, keepdim);
}

Tensor mean(const Tensor& x, const Axes& axes, bool keepdim) {
  check_floating(x, "mean");
  const Tensor s = sum(x, axes, keepdim);
  double n = 1;
  for (std::int64_t a : normalize_axes(axes, x.dim(), "mean"))
    n *= static_cast<double>(x.shape()[static_cast<int>(a)]);
  return s / n;
}

Tensor var(const Tensor& x, const Axes& wanted, double correction, bool keepdim) {
  const Axes axes = normalize_axes(wanted, x.dim(), "var");
  double n = 1;
  for (std::int64_t a : axes) n *= static_cast<double>(x.shape()[static_cast<int>(a)]);
  // Two passes: E[x²] − E[x]² loses all digits of nearly equal large values.
  return sum(square(x - mean(x, axes, true)), axes, keepdim) / (n - correction);
}

Tensor prod(const Tensor& x, int axis, bool keepdim) {
  const int a = normalize_axis(axis, x.dim(), "prod");
  const Axes axes{a};
  Tensor y = empty(kept_shape(x, axes), x.dtype(), "prod");
  visit_float(x, "prod", [&]<class T>() {
    detail::reduce_axes<T, double>(
        x, axes, y, 1.0, [](double p, T v) { return p * static_cast<double>(v); },
        [](double p, double q) { return p * q; }, [](double p) { return static_cast<T>(p); });
  });
  y = record("prod", {x}, y, Save::input0, [a](const Saved& s, const Tensor& gy) {
    // Products of all others as (product before) · (product after): right where elements are 0.
    const Tensor v = s.input(0);
    const std::int64_t n = v.shape()[a];
    const auto one = [&](std::int64_t i) { return narrow(v, a, i, 1); };
    TensorList before, after(static_cast<std::size_t>(n));
    Tensor run;
    for (std::int64_t i = 0; i < n; ++i) {
      before.push_back(run.defined() ? run : ones_like(one(0)));
      run = run.defined() ? run * one(i) : one(i);
    }
    run = Tensor();
    for (std::int64_t i = n; i-- > 0;) {
      after[static_cast<std::size_t>(i)] = run.defined() ? run : ones_like(one(0));
      run = run.defined() ? run * one(i) : one(i);
    }
    if (n == 0) return zeros_like(v);
    return gy * (cat(before, a) * cat(after, a));
  });
  return with_dims(y, x, axes, keepdim);
}

Tensor max(const Tensor& x, const Axes& axes, bool keepdim) {
  return reduce_extreme<true>(x, axes, keepdim, "max");
}
Tensor min(const Tensor& x, const Axes& axes, bool keepdim) {
  return reduce_extreme<false>(x, axes, keepdim, "min");
}
Tensor argmax(const Tensor& x, int axis, bool keepdim) {
  return arg_extreme<true>(x, axis, keepdim, "argmax");
}
Tensor argmin(const Tensor& x, int axis, bool keepdim) {
  return arg_extreme<false>(x, axis, keepdim, "argmin");
}

Tensor logsumexp(const Tensor& x, const Axes& wanted, bool keepdim) {
  check_floating(x, "logsumexp");
  const Axes axes = normalize_axes(wanted, x.dim(), "logsumexp");
  const Tensor plain = x.detach();
  // The maximum of a row of −∞ (or of an infinite row) must not make −∞ − (−∞) = NaN out of it.
  const Tensor top = extreme<true>(plain, axes, "logsumexp");
  const Tensor shift = where(isfinite(top), top, 0.0);
  const Tensor y = log(sum(exp(plain - shift), axes, true)) + shift;
  const Tensor kept = record("logsumexp", {x}, y.detach(), Save::input0 | Save::output,
                             [](const Saved& s, const Tensor& gy) {
                               const Tensor in = s.input(0), out = s.output();
                               // −∞ − y is −∞, and its exponential 0: but only where y is finite.
                               return gy * exp(where(eq(in, -INFINITY), -INFINITY, in - out));
                             });
  return with_dims(kept, x, axes, keepdim);
}

Tensor cumsum(const Tensor& x, int axis) {
  if (x.dtype() == DType::b8) return cumsum(to(x, DType::i64), axis);
  return running_sum(x, normalize_axis(axis, x.dim(), "cumsum"), false);
}

Tensor norm(const Tensor& x, const Axes& axes, bool keepdim) {
  check_floating(x, "norm");
  return safe_norm(x, axes, keepdim);
}
Tensor norm1(const Tensor& x, const Axes& axes, bool keepdim) { return sum(abs(x), axes, keepdim); }

}  // namespace capsfw
