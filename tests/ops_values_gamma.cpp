// ln Γ and its derivatives against constants and functional equations.

#include <cmath>
#include <numbers>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/gamma.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

double at(int n, double x) { return polygamma(n, full({1}, x, DType::f64)).item(); }

}  // namespace

TEST_CASE("digamma and polygamma have their known values") {
  const double gamma = std::numbers::egamma, pi = std::numbers::pi;
  const double zeta3 = 1.2020569031595942854;
  CHECK(at(0, 1) == doctest::Approx(-gamma).epsilon(1e-15));
  CHECK(at(0, 0.5) == doctest::Approx(-gamma - 2 * std::log(2)).epsilon(1e-15));
  CHECK(at(0, 1.4616321449683623) == doctest::Approx(0).epsilon(1e-15));  // its root
  CHECK(at(1, 1) == doctest::Approx(pi * pi / 6).epsilon(1e-15));
  CHECK(at(1, 0.5) == doctest::Approx(pi * pi / 2).epsilon(1e-15));
  CHECK(at(2, 1) == doctest::Approx(-2 * zeta3).epsilon(1e-15));
  CHECK(at(2, 0.5) == doctest::Approx(-14 * zeta3).epsilon(1e-15));
  CHECK(at(3, 1) == doctest::Approx(std::pow(pi, 4) / 15).epsilon(1e-15));
  CHECK(at(3, 0.5) == doctest::Approx(std::pow(pi, 4)).epsilon(1e-15));
  CHECK(lgamma(full({1}, 0.5, DType::f64)).item() ==
        doctest::Approx(0.5 * std::log(pi)).epsilon(1e-15));
}

TEST_CASE("polygamma obeys its duplication formula over twelve decades") {
  std::vector<double> points;
  for (double x = 1e-6; x < 1e6; x *= 1.37) points.push_back(x);
  const Tensor x = from_vector(points);
  for (int n = 0; n <= 5; ++n) {
    CAPTURE(n);
    const Tensor both = std::pow(0.5, n + 1) * (polygamma(n, x) + polygamma(n, x + 0.5)) +
                        (n == 0 ? std::log(2) : 0);
    const Tensor y = polygamma(n, 2.0 * x);
    CHECK(max((abs(both - y)) / (abs(y) + (n == 0 ? 1 : 0))).item() < 2e-14);
  }
}

TEST_CASE("polygamma of high order, where factorials and powers alone leave the range of f64") {
  // ψ⁽ⁿ⁾(x) = (−1)ⁿ⁺¹ n! ζ(n + 1, x), whose terms behind the first few are nothing for large n.
  for (const int n : {99, 150, 151, 170, 400, 1000})
    for (const double x : {0.9, 60., 181.5, 200., 735., 740., 1e3, 1e5}) {
      CAPTURE(n);
      CAPTURE(x);
      const double y = std::abs(at(n, x));
      double sum = 0;  // of e^(ln n! − (n + 1) ln (x + k) − ln y)
      for (int k = 0; k < 2'000'000 && x < 1e4; ++k) {
        const double term =
            std::exp(std::lgamma(n + 1.) - (n + 1) * std::log(x + k) - (y > 0 ? std::log(y) : 0));
        sum += term;
        if (term < 1e-17 * sum || term == 0) break;
      }
      CHECK_FALSE(std::isnan(y));
      if (y == 0 || std::isinf(y)) {
        // Only where the true value is as small, or as large.
        const double log_value = std::lgamma(n + 0.) - n * std::log(x);
        CHECK((y == 0 ? log_value < -745 : log_value > 709));
      } else if (x < 1e4 && y > 1e-307) {
        CHECK(sum == doctest::Approx(1).epsilon(1e-10));
      }
    }
}

TEST_CASE("the gamma functions at the ends of their range, and in f32") {
  for (const DType t : {DType::f32, DType::f64}) {
    const Tensor x = cast_data(from_vector<double>({0, INFINITY, -1.5, NAN}), t);
    const auto l = values(lgamma(x)), d = values(digamma(x)), p = values(polygamma(1, x));
    CHECK(l[0] == INFINITY);
    CHECK(l[1] == INFINITY);
    CHECK(d[0] == -INFINITY);
    CHECK(d[1] == INFINITY);
    CHECK(p[0] == INFINITY);
    CHECK(p[1] == 0);
    for (const auto& y : {l, d, p}) {
      CHECK(std::isnan(y[2]));
      CHECK(std::isnan(y[3]));
    }
  }
  const Tensor last = full({1}, 300, DType::f64).requires_grad_();
  backward(sum(polygamma(1000, last)));  // one order more than can be asked for
  const double slope = (at(1000, 300.001) - at(1000, 299.999)) / 0.002;
  CHECK(last.grad().item() / slope == doctest::Approx(1).epsilon(1e-4));
  const double x = 3.7F;
  CHECK(digamma(full({1}, x, DType::f32)).item() == static_cast<float>(at(0, x)));
  CHECK_THROWS_AS(polygamma(-1, ones({1})), ValueError);
  CHECK_THROWS_WITH_AS(polygamma(1 << 30, ones({1})),
                       "polygamma: n must lie in [0, 1000]; got 1073741824", ValueError);
  CHECK_THROWS_AS(lgamma(zeros({1}, DType::i64)), DTypeError);
}
