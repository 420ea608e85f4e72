#pragma once
// Private: capsules so long that products of their squares leave the range of f32 (squares alone
// overflow above 1.8e19). They are computed in f64, in which lengths of all f32 numbers are safe.

#include <cmath>
#include <cstdint>
#include <type_traits>

namespace capsfw::kernels {

/// Whether a capsule with this Σ s² is one of them: length above 1e9. Never in f64.
template <class T>
bool too_long(T square) {
  return std::is_same_v<T, float> && square > T(1e18);
}

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
