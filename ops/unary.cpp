#include <capsfw/ops/unary.hpp>

#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "../core/strided.hpp"
#include "kernels/math.hpp"

namespace capsfw {
namespace {

/// y = f(x) for the floating types; `cost` in nanoseconds per element, roughly.
template <class F>
Tensor map(const Tensor& x, std::string_view op, F f, std::int64_t cost = 1) {
  Tensor y = empty(x.shape(), x.dtype(), op);
  visit_float(x, op, [&]<class T>() { detail::map1<T, T>(x, y, f, cost); });
  return y;
}

/// y = f(x) for numbers of any type.
template <class F>
Tensor map_number(const Tensor& x, std::string_view op, F f) {
  if (x.dtype() == DType::b8)
    throw DTypeError(fmt::format("{}: takes numbers; got b8. Hint: to(x, DType::f32)", op));
  Tensor y = empty(x.shape(), x.dtype(), op);
  visit_any(x.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bool>) detail::map1<T, T>(x, y, f);
  });
  return y;
}

/// gy where x > 0, else 0: the vjp of relu in one pass, linear in gy and so its own derivative.
Tensor gate(const Tensor& gy, const Tensor& x) {
  Tensor y = empty(broadcast_shapes(gy.shape(), x.shape(), "gate"), gy.dtype(), "relu");
  visit_float(gy, "gate", [&]<class T>() {
    detail::map2<T, T>(gy, x, y, [](T g, T v) { return v > T(0) ? g : T(0); });
  });
  return record("gate", {gy, x.detach()}, y, Save::input1, [](const Saved& s, const Tensor& g) {
    return TensorList{gate(g, s.input(1)), Tensor()};
  });
}

}  // namespace

Tensor neg(const Tensor& x) {
  const Tensor y = map_number(x, "neg", [](auto v) { return -v; });
  return record("neg", {x}, y, Save::none, [](const Saved&, const Tensor& gy) { return neg(gy); });
}

Tensor exp(const Tensor& x) {
  const Tensor y = map(x, "exp", [](auto v) { return kernels::exp(v); });
  return record("exp", {x}, y, Save::output,
                [](const Saved& s, const Tensor& gy) { return gy * s.output(); });
}

Tensor expm1(const Tensor& x) {
  const Tensor y = map(
      x, "expm1", [](auto v) { return std::expm1(v); }, 8);
  return record("expm1", {x}, y, Save::output,
                [](const Saved& s, const Tensor& gy) { return gy * (s.output() + 1.0); });
}

Tensor log(const Tensor& x) {
  const Tensor y = map(
      x, "log", [](auto v) { return std::log(v); }, 4);
  return record("log", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy / s.input(0); });
}

Tensor log1p(const Tensor& x) {
  const Tensor y = map(
      x, "log1p", [](auto v) { return std::log1p(v); }, 8);
  return record("log1p", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy / (s.input(0) + 1.0); });
}

Tensor sqrt(const Tensor& x) {
  const Tensor y = map(x, "sqrt", [](auto v) { return std::sqrt(v); });
  return record("sqrt", {x}, y, Save::output,
                [](const Saved& s, const Tensor& gy) { return gy / (s.output() * 2.0); });
}

Tensor rsqrt(const Tensor& x) {
  const Tensor y = map(x, "rsqrt", [](auto v) { return decltype(v)(1) / std::sqrt(v); });
  return record("rsqrt", {x}, y, Save::output, [](const Saved& s, const Tensor& gy) {
    const Tensor r = s.output();
    return gy * (r * r * r) * -0.5;
  });
}

Tensor reciprocal(const Tensor& x) {
  const Tensor y = map(x, "reciprocal", [](auto v) { return decltype(v)(1) / v; });
  return record("reciprocal", {x}, y, Save::output,
                [](const Saved& s, const Tensor& gy) { return -(gy * square(s.output())); });
}

Tensor square(const Tensor& x) {
  const Tensor y = map_number(x, "square", [](auto v) { return v * v; });
  return record("square", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * s.input(0) * 2.0; });
}

Tensor sin(const Tensor& x) {
  const Tensor y = map(
      x, "sin", [](auto v) { return std::sin(v); }, 8);
  return record("sin", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * cos(s.input(0)); });
}

Tensor cos(const Tensor& x) {
  const Tensor y = map(
      x, "cos", [](auto v) { return std::cos(v); }, 8);
  return record("cos", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return -(gy * sin(s.input(0))); });
}

Tensor atan(const Tensor& x) {
  const Tensor y = map(
      x, "atan", [](auto v) { return std::atan(v); }, 8);
  return record("atan", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy / (square(s.input(0)) + 1.0); });
}

Tensor erf(const Tensor& x) {
  const Tensor y = map(
      x, "erf", [](auto v) { return std::erf(v); }, 8);
  return record("erf", {x}, y, Save::input0, [](const Saved& s, const Tensor& gy) {
    return gy * exp(-square(s.input(0))) * (2.0 * std::numbers::inv_sqrtpi);
  });
}

Tensor tanh(const Tensor& x) {
  const Tensor y = map(
      x, "tanh", [](auto v) { return kernels::tanh(v); }, 2);
  return record("tanh", {x}, y, Save::output,
                [](const Saved& s, const Tensor& gy) { return gy * (1.0 - square(s.output())); });
}

Tensor sigmoid(const Tensor& x) {
  const Tensor y = map(x, "sigmoid", [](auto v) { return kernels::sigmoid(v); });
  return record("sigmoid", {x}, y, Save::output, [](const Saved& s, const Tensor& gy) {
    const Tensor p = s.output();
    return gy * (p * (1.0 - p));
  });
}

Tensor softplus(const Tensor& x) {
  const Tensor y = map(
      x, "softplus",
      [](auto v) {
        return (v > 0 ? v : (v == v ? decltype(v)(0) : v)) + std::log1p(std::exp(-std::abs(v)));
      },
      16);
  return record("softplus", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * sigmoid(s.input(0)); });
}

Tensor logsigmoid(const Tensor& x) {
  const Tensor y = map(
      x, "logsigmoid",
      [](auto v) {
        return (v < 0 ? v : (v == v ? decltype(v)(0) : v)) - std::log1p(std::exp(-std::abs(v)));
      },
      16);
  return record("logsigmoid", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * sigmoid(-s.input(0)); });
}

Tensor relu(const Tensor& x) {
  const Tensor y = map(x, "relu", [](auto v) { return v < 0 ? decltype(v)(0) : v; });
  return record("relu", {x}, y, Save::output,
                [](const Saved& s, const Tensor& gy) { return gate(gy, s.output()); });
}

Tensor leaky_relu(const Tensor& x, double slope) {
  const Tensor y = map(x, "leaky_relu",
                       [slope](auto v) { return v > 0 ? v : static_cast<decltype(v)>(slope) * v; });
  return record("leaky_relu", {x}, y, Save::input0, [slope](const Saved& s, const Tensor& gy) {
    return where(gt(s.input(0), 0.0), gy, gy * slope);
  });
}

Tensor elu(const Tensor& x, double alpha) {
  const Tensor y = map(
      x, "elu",
      [alpha](auto v) { return v > 0 ? v : static_cast<decltype(v)>(alpha) * std::expm1(v); }, 8);
  return record("elu", {x}, y, Save::input0, [alpha](const Saved& s, const Tensor& gy) {
    const Tensor v = s.input(0);
    return where(gt(v, 0.0), gy,
                 gy * exp(minimum(v, 0.0)) * alpha);  // no e^v of large v in the unused branch
  });
}

Tensor gelu(const Tensor& x) {
  const Tensor y = map(
      x, "gelu",
      [](auto v) {
        using T = decltype(v);
        return v * T(0.5) * (T(1) + std::erf(v * static_cast<T>(std::numbers::sqrt2 / 2)));
      },
      8);
  return record("gelu", {x}, y, Save::input0, [](const Saved& s, const Tensor& gy) {
    const Tensor v = s.input(0);
    const Tensor cdf = (erf(v * (std::numbers::sqrt2 / 2)) + 1.0) * 0.5;
    const Tensor pdf = exp(square(v) * -0.5) * (std::numbers::inv_sqrtpi * std::numbers::sqrt2 / 2);
    return gy * (cdf + v * pdf);
  });
}

Tensor abs(const Tensor& x) {
  const Tensor y =
      map_number(x, "abs", [](auto v) { return v < 0 ? -v : (v == 0 ? decltype(v)(0) : v); });
  return record("abs", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * sign(s.input(0)); });
}

Tensor sign(const Tensor& x) {
  const Tensor y = map_number(x, "sign", [](auto v) {
    using T = decltype(v);
    return v > 0 ? T(1) : (v < 0 ? T(-1) : v);
  });
  return record("sign", {x}, y, Save::none,
                [](const Saved&, const Tensor& gy) { return zeros_like(gy); });
}

Tensor clamp(const Tensor& x, double low, double high) {
  if (!(low <= high))
    throw ValueError(fmt::format("clamp: low must not exceed high; got {} and {}", low, high));
  for (const double v : {low, high})
    if (x.dtype() == DType::i64 && std::isfinite(v) &&
        !(v == std::trunc(v) && std::abs(v) < 0x1p63))
      throw DTypeError(fmt::format(
          "clamp: bounds of i64 must be whole numbers or infinite; got {}. Hint: to(x, DType::f64)",
          v));
  const Tensor y = map_number(x, "clamp", [low, high](auto v) {
    using T = decltype(v);
    // Compared in double, so that infinite bounds also work for integers.
    return static_cast<double>(v) < low
               ? static_cast<T>(low)
               : (static_cast<double>(v) > high ? static_cast<T>(high) : v);
  });
  return record("clamp", {x}, y, Save::input0, [low, high](const Saved& s, const Tensor& gy) {
    const Tensor v = s.input(0);
    return where(logical_and(ge(v, low), le(v, high)), gy, 0.0);  // 0 for an infinite gy as well
  });
}

}  // namespace capsfw
