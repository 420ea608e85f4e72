#include "gmres.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

namespace capsfw::detail {
namespace {

using Vector = std::vector<double>;
using Apply = std::function<Vector(const Vector&)>;

double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// y += a x.
void add_scaled(Vector& y, double a, const Vector& x) {
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += a * x[i];
}

void scale(Vector& x, double a) {
  for (double& v : x) v *= a;
}

/// The least-squares problem min ‖β e₁ − H y‖, one column of H at a time.
class HessenbergLeastSquares {
 public:
  explicit HessenbergLeastSquares(double beta) : rhs_{beta} {}

  /// Column h of length columns + 2. The residual that the best y leaves.
  double add(Vector h) {
    const std::size_t n = columns_.size();
    for (std::size_t i = 0; i < n; ++i) {
      const auto [c, s] = rotations_[i];
      h[i] = c * h[i] + s * std::exchange(h[i + 1], c * h[i + 1] - s * h[i]);
    }
    const double length = std::hypot(h[n], h[n + 1]);
    const double c = length == 0 ? 1 : h[n] / length, s = length == 0 ? 0 : h[n + 1] / length;
    h[n] = length;
    rotations_.emplace_back(c, s);
    columns_.push_back(std::move(h));
    rhs_.push_back(-s * rhs_[n]);
    rhs_[n] *= c;
    return std::abs(rhs_.back());
  }

  Vector solve() const {
    Vector y(columns_.size());
    for (std::size_t i = y.size(); i-- > 0;) {
      double rest = rhs_[i];
      for (std::size_t k = i + 1; k < y.size(); ++k) rest -= columns_[k][i] * y[k];
      y[i] = columns_[i][i] == 0 ? 0 : rest / columns_[i][i];
    }
    return y;
  }

 private:
  std::vector<Vector> columns_;
  std::vector<std::pair<double, double>> rotations_;
  Vector rhs_;
};

/// One cycle: adds to x the best correction in the Krylov space of r. Products made.
int improve(const Apply& apply, Vector& x, Vector r, double norm, double target, int steps) {
  HessenbergLeastSquares problem(norm);
  scale(r, 1 / norm);
  std::vector<Vector> basis{std::move(r)};
  int made = 0;
  while (made < steps) {
    Vector w = apply(basis.back());
    ++made;
    Vector h;
    for (const Vector& v : basis) {
      h.push_back(dot(w, v));
      add_scaled(w, -h.back(), v);
    }
    h.push_back(std::sqrt(dot(w, w)));
    const double length = h.back(), left = problem.add(std::move(h));
    if (!(left > target) || !(length > 0)) break;
    scale(w, 1 / length);
    basis.push_back(std::move(w));
  }
  const Vector y = problem.solve();
  for (std::size_t i = 0; i < y.size(); ++i) add_scaled(x, y[i], basis[i]);
  return made;
}

}  // namespace

GmresResult gmres(const Apply& apply, const Vector& b, const GmresOptions& o) {
  GmresResult out{Vector(b.size(), 0.0), 0, 0};
  const double norm_b = std::sqrt(dot(b, b));
  if (norm_b == 0) return out;
  Vector r = b;
  double norm = norm_b;
  while (std::isfinite(norm) && norm > o.tolerance * norm_b && out.products < o.max_products) {
    Vector x = out.x;
    const int steps = std::min(o.restart, o.max_products - out.products);
    out.products += improve(apply, x, r, norm, o.tolerance * norm_b, steps);
    Vector left = b;
    add_scaled(left, -1, apply(x));
    const double now = std::sqrt(dot(left, left));
    if (now >= norm) break;  // rounding: the last solution was the better one
    const bool stuck = now > 0.9 * norm;
    out.x = std::move(x);
    r = std::move(left);
    norm = now;
    if (stuck) break;
  }
  out.residual = norm / norm_b;
  return out;
}

}  // namespace capsfw::detail
