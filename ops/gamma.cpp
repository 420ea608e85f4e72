#include <capsfw/ops/gamma.hpp>

#include <array>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "../core/strided.hpp"

namespace capsfw {
namespace {

constexpr int kMostDerivatives = 1000;  // a value costs n² products

template <class F>
Tensor map_in_f64(const Tensor& x, std::string_view op, F f) {
  Tensor y = empty(x.shape(), x.dtype(), op);
  visit_float(x, op, [&]<class T>() {
    detail::map1<T, T>(
        x, y, [f](T v) { return static_cast<T>(f(static_cast<double>(v))); }, 100);
  });
  return y;
}

/// n! / x^k for k > n, a factor of each at a time: alone, both leave the range of f64, and so may
/// what has been multiplied up to somewhere. Powers of two that go apart round nothing.
double factorial_over_power(int n, double x, int k) {
  double y = 1;
  int exponent = 0;
  for (int i = 1; i <= k; ++i) {
    y *= (i <= n ? i : 1) / x;
    if (y > 0x1p500) y *= 0x1p-500, exponent += 500;
    if (y < 0x1p-500) y *= 0x1p500, exponent -= 500;
  }
  return exponent == 0 ? y : std::ldexp(y, exponent);
}

/// (−1)ⁿ⁺¹ ψ⁽ⁿ⁾(x), which for n ≥ 1 is positive.
double signed_polygamma(int n, double x) {
  if (x < 0) return NAN;
  // Σ of n! / x^(n+1) along the recurrence, smallest last: it is largest at the start.
  double shifted = 0;
  for (const double far = 12 + n; x < far; x += 1) shifted += factorial_over_power(n, x, n + 1);
  constexpr std::array<double, 8> kBernoulli = {1. / 6,  -1. / 30,     1. / 42, -1. / 30,
                                                5. / 66, -691. / 2730, 7. / 6,  -3617. / 510};
  double series = n == 0 ? -std::log(x) : factorial_over_power(n - 1, x, n);
  double term = 0.5 * factorial_over_power(n, x, n + 1);
  series += term;
  for (int k = 1; k <= static_cast<int>(kBernoulli.size()); ++k) {
    // (2k + n − 1)! / (2k)! / x^(2k+n), from the one before it
    term *=
        k == 1 ? (n + 1) / x : (2 * k + n - 1) / x * ((2 * k + n - 2) / x) / ((2 * k - 1) * 2 * k);
    series += kBernoulli[static_cast<std::size_t>(k - 1)] * term;
  }
  return shifted + series;
}

/// std::lgamma writes a global, the sign, on whatever thread it runs.
double log_gamma(double x) {
  int sign = 0;
  return x < 0 ? NAN : ::lgamma_r(x, &sign);
}

/// polygamma of any order: derivatives have one more.
Tensor polygamma_of(int n, const Tensor& x) {
  const char* op = n == 0 ? "digamma" : "polygamma";
  const double sign = n % 2 == 0 ? -1 : 1;
  const Tensor y = map_in_f64(x, op, [n, sign](double v) { return sign * signed_polygamma(n, v); });
  return record(op, {x}, y, Save::input0, [n](const Saved& s, const Tensor& gy) {
    return gy * polygamma_of(n + 1, s.input(0));
  });
}

}  // namespace

Tensor lgamma(const Tensor& x) {
  const Tensor y = map_in_f64(x, "lgamma", log_gamma);
  return record("lgamma", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * digamma(s.input(0)); });
}

Tensor digamma(const Tensor& x) { return polygamma(0, x); }

Tensor polygamma(int n, const Tensor& x) {
  if (n < 0 || n > kMostDerivatives)
    throw ValueError(fmt::format("polygamma: n must lie in [0, {}]; got {}", kMostDerivatives, n));
  return polygamma_of(n, x);
}

}  // namespace capsfw
