#pragma once
// Private: capsules so long that products of their squares leave the range of f32 (squares alone
// overflow above 1.8e19). They are computed in f64, in which lengths of all f32 numbers are safe.
// And capsules so short that their squares lose digits, where a direction is asked for.

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace capsfw::kernels {

/// 2^k for k that leaves a normal number.
template <class T>
constexpr T exp2_of(int k) {
  T x = T(1);
  for (; k > 0; --k) x *= T(2);
  for (; k < 0; ++k) x /= T(2);
  return x;
}

/// Whether a capsule with this Σ s² is one of them: length above 1e9. Never in f64.
template <class T>
bool too_long(T square) {
  return std::is_same_v<T, float> && square > T(1e18);
}

/// Whether the squares in this Σ s², which kernels flush below the normal range, miss digits of it.
template <class T>
bool too_short(T square) {
  using Limits = std::numeric_limits<T>;
  constexpr T kLeast = exp2_of<T>(Limits::min_exponent + 2 * Limits::digits);
  return square < kLeast;
}

/// The direction of a capsule that is too short: n and t with s / ‖s‖ = t / n, where t = 2^k s has
/// squares with all of their digits. As in safe_normalize, lengths whose square is 0 even with
/// denormal numbers have no direction: n = 0.
template <class T>
struct ShortCapsule {
  using Limits = std::numeric_limits<T>;
  static constexpr T kFactor = exp2_of<T>(-(Limits::min_exponent + Limits::digits) / 2);
  T n = T(0);

  ShortCapsule(const T* s, std::int64_t d) {
    // In f32 2^−149 is the least number, and 2^−149 kFactor² what becomes of it.
    constexpr T kLeast = exp2_of<T>(Limits::min_exponent - Limits::digits -
                                    (Limits::min_exponent + Limits::digits) / 2 * 2);
    T square = T(0);
    for (std::int64_t e = 0; e < d; ++e) square += t(s[e]) * t(s[e]);
    if (square >= kLeast) n = std::sqrt(square);
  }
  static T t(T x) { return x * kFactor; }
};

/// ⟨s, g⟩ in f64.
template <class T>
double dot_f64(const T* s, const T* g, std::int64_t d) {
  double sum = 0;
  for (std::int64_t i = 0; i < d; ++i) sum += static_cast<double>(s[i]) * static_cast<double>(g[i]);
  return sum;
}

/// n / (c + n²) of squash.
inline double squash_factor(double square, double c) { return std::sqrt(square) / (c + square); }
/// (f′/n) ⟨s, g⟩ with f′ = (c − n²) / (c + n²)²: gs = f g + this s.
inline double squash_radial(double square, double dot, double c) {
  const double w = c + square;
  return (c - square) / (w * w) / std::sqrt(square) * dot;
}

/// v = squash(s).
template <class T>
void squash_long(const T* s, T* v, std::int64_t d, T c) {
  const double f = squash_factor(dot_f64(s, s, d), static_cast<double>(c));
  for (std::int64_t i = 0; i < d; ++i) v[i] = static_cast<T>(f * static_cast<double>(s[i]));
}

/// o = the gradient g of squash(s), pulled back to s.
template <class T>
void squash_vjp_long(const T* s, const T* g, T* o, std::int64_t d, T c) {
  const double square = dot_f64(s, s, d), f = squash_factor(square, static_cast<double>(c)),
               h = squash_radial(square, dot_f64(s, g, d), static_cast<double>(c));
  for (std::int64_t i = 0; i < d; ++i)
    o[i] = static_cast<T>(f * static_cast<double>(g[i]) + h * static_cast<double>(s[i]));
}

}  // namespace capsfw::kernels
