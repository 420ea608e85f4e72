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

template <class F>
Tensor map_in_f64(const Tensor& x, std::string_view op, F f) {
  Tensor y = empty(x.shape(), x.dtype(), op);
  visit_float(x, op, [&]<class T>() {
    detail::map1<T, T>(
        x, y, [f](T v) { return static_cast<T>(f(static_cast<double>(v))); }, 100);
  });
  return y;
}

double factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

/// x^−k.
double inverse_power(double x, int k) {
  double y = 1;
  for (int i = 0; i < k; ++i) y /= x;
  return y;
}

/// (−1)ⁿ⁺¹ ψ⁽ⁿ⁾(x), which for n ≥ 1 is positive.
double signed_polygamma(int n, double x) {
  if (x < 0) return NAN;
  // Σ of n! / x^(n+1) along the recurrence, smallest last: it is largest at the start.
  double shifted = 0;
  for (const double far = 12 + n; x < far; x += 1)
    shifted += factorial(n) * inverse_power(x, n + 1);
  constexpr std::array<double, 8> kBernoulli = {1. / 6,  -1. / 30,     1. / 42, -1. / 30,
                                                5. / 66, -691. / 2730, 7. / 6,  -3617. / 510};
  double series = n == 0 ? -std::log(x) : factorial(n - 1) * inverse_power(x, n);
  series += factorial(n) * 0.5 * inverse_power(x, n + 1);
  for (int k = 1; k <= static_cast<int>(kBernoulli.size()); ++k) {
    const double ratio = factorial(2 * k + n - 1) / factorial(2 * k);
    series += kBernoulli[static_cast<std::size_t>(k - 1)] * ratio * inverse_power(x, 2 * k + n);
  }
  return shifted + series;
}

/// std::lgamma writes a global, the sign, on whatever thread it runs.
double log_gamma(double x) {
  int sign = 0;
  return x < 0 ? NAN : ::lgamma_r(x, &sign);
}

}  // namespace

Tensor lgamma(const Tensor& x) {
  const Tensor y = map_in_f64(x, "lgamma", log_gamma);
  return record("lgamma", {x}, y, Save::input0,
                [](const Saved& s, const Tensor& gy) { return gy * digamma(s.input(0)); });
}

Tensor digamma(const Tensor& x) { return polygamma(0, x); }

Tensor polygamma(int n, const Tensor& x) {
  if (n < 0) throw ValueError(fmt::format("polygamma: n must be at least 0; got {}", n));
  const double sign = n % 2 == 0 ? -1 : 1;
  const Tensor y = map_in_f64(x, n == 0 ? "digamma" : "polygamma",
                              [n, sign](double v) { return sign * signed_polygamma(n, v); });
  return record(
      n == 0 ? "digamma" : "polygamma", {x}, y, Save::input0,
      [n](const Saved& s, const Tensor& gy) { return gy * polygamma(n + 1, s.input(0)); });
}

}  // namespace capsfw
