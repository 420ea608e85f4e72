#pragma once
// Private: elementary functions that the compiler can vectorise. f64 goes to the C library.

#include <bit>
#include <cmath>
#include <cstdint>

namespace capsfw::kernels {

/// e^r for r in [−ln2/2, ln2/2]: a polynomial of degree 6.
inline float exp_polynomial(float r) {
  float p = 1.9875691500e-4F;  // minimax coefficients of the Cephes library
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  return p * r * r + r + 1.0F;
}

inline double exp(double x) { return std::exp(x); }

/// e^x for float: e^x = 2^n e^r. No branch, so that a loop of it runs in vector registers. NaN
/// stays NaN, overflow gives infinity.
inline float exp(float x) {
  constexpr float kLow = -103.98F, kHigh = 88.73F;
  const float c = x < kLow ? kLow : (x > kHigh ? kHigh : x);  // NaN passes through
  const float n = std::nearbyint(c * 1.44269504088896341F);
  const float r = (c - n * 0.693359375F) + n * 2.12194440e-4F;  // ln 2 in two parts
  // 2^n in two factors, so that results below the normal range are rounded and not cut off.
  const auto whole = static_cast<std::int32_t>(c == c ? n : 0.0F);
  const std::int32_t half = whole >> 1;
  const float a = std::bit_cast<float>((half + 127) << 23),
              b = std::bit_cast<float>((whole - half + 127) << 23);
  const float y = exp_polynomial(r) * a * b;
  return x > kHigh ? INFINITY : (x < kLow ? 0.0F : y);
}

inline double exp_nonpositive(double x) { return std::exp(x); }

/// e^x for x <= 0, where a softmax needs it, with half of the work: what is below the normal range
/// is 0, so that 2^n is one factor. NaN stays NaN.
inline float exp_nonpositive(float x) {
  constexpr float kLow = -87.33F, kRound = 12582912.0F;  // 1.5 · 2^23: the last bit is worth 1
  const float c = x < kLow ? kLow : x, t = c * 1.44269504088896341F + kRound, n = t - kRound;
  const float r = (c - n * 0.693359375F) + n * 2.12194440e-4F;
  const float y =
      exp_polynomial(r) * std::bit_cast<float>((std::bit_cast<std::uint32_t>(t) + 127U) << 23U);
  return x < kLow ? 0.0F : y;
}

inline double log(double x) { return std::log(x); }

/// ln x for float: x = 2^n m with m in [√½, √2), and a polynomial of degree 9 for ln m. No branch.
/// 0 gives −∞, what is negative NaN; subnormals are as exact as the rest.
inline float log(float x) {
  const bool tiny = x < 1.17549435e-38F;
  const auto bits = std::bit_cast<std::int32_t>(tiny ? x * 8388608.0F : x);  // 2^23
  // The exponent of x / √½, so that m is near 1.
  const std::int32_t n = (bits - 0x3f3504f3) >> 23;
  const float m = std::bit_cast<float>(bits - (n << 23)), r = m - 1.0F, z = r * r;
  const float e = static_cast<float>(n) - (tiny ? 23.0F : 0.0F);
  float p = 7.0376836292e-2F;  // minimax coefficients of the Cephes library
  p = p * r - 1.1514610310e-1F;
  p = p * r + 1.1676998740e-1F;
  p = p * r - 1.2420140846e-1F;
  p = p * r + 1.4249322787e-1F;
  p = p * r - 1.6668057665e-1F;
  p = p * r + 2.0000714765e-1F;
  p = p * r - 2.4999993993e-1F;
  p = p * r + 3.3333331174e-1F;
  const float y = (p * r * z + e * -2.12194440e-4F - 0.5F * z) + r + e * 0.693359375F;
  return x > 0.0F ? (x < INFINITY ? y : x) : (x == 0.0F ? -INFINITY : NAN);
}

inline double tanh(double x) { return std::tanh(x); }

/// tanh x for float: a polynomial below 5/8, where 1 − 2 / (e^(2|x|) + 1) would cancel. No branch.
inline float tanh(float x) {
  const float a = x < 0.0F ? -x : x, z = x * x;
  float p = -5.70498872745e-3F;  // minimax coefficients of the Cephes library
  p = p * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const float near = x * (p * z + 1.0F), far = 1.0F - 2.0F / (exp(a + a) + 1.0F);
  return a < 0.625F ? near : (x < 0.0F ? -far : far);
}

template <class T>
T sigmoid(T x) {
  const T e = exp(x < T(0) ? x : -x);  // e^−|x|: never overflows
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

}  // namespace capsfw::kernels
