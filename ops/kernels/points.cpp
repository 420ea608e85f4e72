#include "points.hpp"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <utility>

namespace capsfw::kernels {
namespace {

using Complex = std::complex<long double>;

/// A point (a : b) of the projective line: a / b, or infinity where b = 0.
struct Point {
  Complex a, b = 1;
  bool real() const { return a.imag() == 0; }
  /// The value of the monomial of `degree` in a polynomial of degree n - 1.
  Complex power(std::int64_t degree, std::int64_t n) const {
    Complex v = 1;
    for (std::int64_t i = 0; i < degree; ++i) v *= a;
    for (std::int64_t i = degree; i < n - 1; ++i) v *= b;
    return v;
  }
};

/// The real points, then one of each conjugate pair: 0, infinity, and roots of unity.
std::vector<Point> points(std::int64_t n) {
  const std::int64_t roots = n - 2;
  std::vector<Point> p = {{1}};
  if (n > 1) p.push_back({0});
  if (n > 2) p.push_back({1, 0});
  if (roots > 0 && roots % 2 == 0) p.push_back({-1});
  for (std::int64_t i = 1; 2 * i < roots; ++i)
    p.push_back(
        {std::polar(1.0L, 2 * std::numbers::pi_v<long double> * static_cast<long double>(i) /
                              static_cast<long double>(roots))});
  return p;
}

using Matrix = std::vector<std::vector<Complex>>;

/// The inverse, by Gauss and Jordan with pivots.
Matrix inverse(Matrix m) {
  const std::size_t n = m.size();
  Matrix r(n, std::vector<Complex>(n));
  for (std::size_t i = 0; i < n; ++i) r[i][i] = 1;
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t best = c;
    for (std::size_t i = c + 1; i < n; ++i)
      if (std::abs(m[i][c]) > std::abs(m[best][c])) best = i;
    std::swap(m[c], m[best]);
    std::swap(r[c], r[best]);
    const Complex scale = Complex(1) / m[c][c];
    for (std::size_t j = 0; j < n; ++j) {
      m[c][j] *= scale;
      r[c][j] *= scale;
    }
    for (std::size_t i = 0; i < n; ++i) {
      const Complex f = m[i][c];
      if (i == c || f == Complex(0)) continue;
      for (std::size_t j = 0; j < n; ++j) {
        m[i][j] -= f * m[c][j];
        r[i][j] -= f * r[c][j];
      }
    }
  }
  return r;
}

}  // namespace

std::int64_t Points::real_points(std::int64_t n) { return n < 3 ? n : n % 2 == 0 ? 4 : 3; }

Points::Points(std::int64_t outputs_, std::int64_t taps_)
    : outputs(outputs_), taps(taps_), count(outputs + taps - 1), real(real_points(count)) {
  const std::vector<Point> half = points(count);
  std::vector<Point> all = half;  // and the conjugates
  for (const Point& p : half)
    if (!p.real()) all.push_back({std::conj(p.a), p.b});
  const auto n = static_cast<std::size_t>(count);
  Matrix values(n, std::vector<Complex>(n));
  for (std::size_t f = 0; f < n; ++f)
    for (std::size_t k = 0; k < n; ++k)
      values[f][k] = all[f].power(static_cast<std::int64_t>(k), count);
  const Matrix back = inverse(values);

  for (const Side side : {Side::image, Side::weight, Side::output}) {
    const std::int64_t length = size(side);
    std::vector<float>& m = forward_[static_cast<int>(side)];
    std::vector<float>& t = backward_[static_cast<int>(side)];
    m.resize(static_cast<std::size_t>(count * length));
    t.resize(m.size());
    for (std::int64_t k = 0; k < length; ++k) {
      std::int64_t row = 0;
      const auto put = [&](long double v) {
        m[static_cast<std::size_t>(row * length + k)] = static_cast<float>(v);
        t[static_cast<std::size_t>(k * count + row)] = static_cast<float>(v);
        ++row;
      };
      for (std::size_t f = 0; f < half.size(); ++f) {
        const Complex v =
            side == Side::image ? back[static_cast<std::size_t>(k)][f] : half[f].power(k, length);
        put(v.real());
        if (!half[f].real()) put(v.imag());
      }
    }
  }
}

}  // namespace capsfw::kernels
