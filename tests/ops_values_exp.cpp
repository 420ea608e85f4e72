// How exact the f32 exponential and what is built on it are: a dense sweep of all binades.

#include <bit>
#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/ops/unary.hpp>

#include "../ops/kernels/math.hpp"

#include "support.hpp"

using namespace capsfw;

namespace {

/// Floats from −105 to 90 that differ by `stride` in their bit pattern: the same relative density
/// everywhere, 0 and both ends included.
std::vector<float> sweep(std::uint32_t stride) {
  std::vector<float> x;
  for (const float end : {90.F, -105.F}) {
    const std::uint32_t sign = std::bit_cast<std::uint32_t>(std::copysign(0.F, end));
    for (std::uint32_t b = 0; b <= std::bit_cast<std::uint32_t>(std::abs(end)); b += stride)
      x.push_back(std::bit_cast<float>(b | sign));
    x.push_back(end);
  }
  return x;
}

/// Floats between a and b, both positive or 0.
std::int64_t steps_between(float a, float b) {
  const auto bits = [](float v) { return std::int64_t{std::bit_cast<std::uint32_t>(v)}; };
  return std::abs(bits(a) - bits(b));
}

struct Worst {
  std::int64_t steps = 0;
  float at = 0;
};

template <class Exact>
Worst worst_of(const std::vector<float>& x, const std::vector<float>& y, const Exact& exact) {
  Worst w;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::int64_t s = steps_between(y[i], static_cast<float>(exact(double{x[i]})));
    if (s > w.steps) w = {s, x[i]};
  }
  return w;
}

}  // namespace

TEST_CASE("exp of f32 is at most 1 float from the correctly rounded value, subnormals included") {
  const std::vector<float> x = sweep(991);
  REQUIRE(x.size() > 2000000);
  const Worst w =
      worst_of(x, exp(from_vector(x)).to_vector<float>(), [](double v) { return std::exp(v); });
  CAPTURE(w.at);
  CHECK(w.steps <= 1);
}

TEST_CASE("exp of f32 up to 0 for softmax is at most 1 float from the rounded value, or 0") {
  Worst w;
  for (const float x : sweep(991)) {
    if (x > 0) continue;
    const float y = kernels::exp_nonpositive(x), exact = static_cast<float>(std::exp(double{x}));
    if (x < -87.33F) {
      REQUIRE(y == 0);
    } else if (const std::int64_t s = steps_between(y, exact); s > w.steps) {
      w = {s, x};
    }
  }
  CAPTURE(w.at);
  CHECK(w.steps <= 1);
  CHECK(kernels::exp_nonpositive(0.0F) == 1);
  CHECK(kernels::exp_nonpositive(-0.0F) == 1);
  CHECK(kernels::exp_nonpositive(-INFINITY) == 0);
  CHECK(kernels::exp_nonpositive(-3e38F) == 0);
  for (const std::uint32_t bits : {0x7fc00000U, 0x7fc00001U, 0x7fffffffU, 0xffc12345U, 0x7f800001U})
    CHECK(std::isnan(kernels::exp_nonpositive(std::bit_cast<float>(bits))));
}

TEST_CASE("exp of f32 has the same accuracy in the remainder of a vector loop") {
  const std::vector<float> x = sweep(99991);
  Worst worst;
  for (std::size_t i = 0; i + 3 <= x.size(); i += 3) {
    const std::vector<float> few(x.begin() + static_cast<std::ptrdiff_t>(i),
                                 x.begin() + static_cast<std::ptrdiff_t>(i) + 3);
    const Worst w = worst_of(few, exp(from_vector(few)).to_vector<float>(),
                             [](double v) { return std::exp(v); });
    if (w.steps > worst.steps) worst = w;
  }
  CAPTURE(worst.at);
  CHECK(worst.steps <= 1);
}

TEST_CASE("sigmoid of f32 is at most 2 floats from the correctly rounded value") {
  const std::vector<float> x = sweep(9973);
  const Worst w = worst_of(x, sigmoid(from_vector(x)).to_vector<float>(),
                           [](double v) { return 1 / (1 + std::exp(-v)); });
  CAPTURE(w.at);
  CHECK(w.steps <= 2);
}

TEST_CASE("the limits of exp") {
  for (const DType t : {DType::f32, DType::f64}) {
    const double big = t == DType::f32 ? 88.7 : 709.7;
    const Tensor x = cast_data(
        from_vector<double>({0, -0.0, INFINITY, -INFINITY, NAN, big, big + 1, -1000, 1e30}), t);
    const auto y = capsfw::testing::values(exp(x));
    CHECK(y[0] == 1);
    CHECK(y[1] == 1);
    CHECK(y[2] == INFINITY);
    CHECK(y[3] == 0);
    CHECK(std::isnan(y[4]));
    CHECK(std::isfinite(y[5]));
    CHECK(y[6] == INFINITY);
    CHECK(y[7] == 0);
    CHECK(y[8] == INFINITY);
  }
}

TEST_CASE("the logarithm of the kernels is within 2 units in the last place, subnormals included") {
  double worst = 0;
  float at = 0;
  for (std::uint32_t bits = 1; bits < 0x7f800000U; bits += 1009) {
    const float x = std::bit_cast<float>(bits), y = kernels::log(x);
    const double exact = std::log(double{x});
    const float rounded = std::abs(static_cast<float>(exact));
    const double unit = std::nextafter(rounded, INFINITY) - rounded;
    const double error = std::abs(y - exact) / unit;
    if (!(error <= worst)) worst = error, at = x;  // a NaN, too
    if (std::isnan(worst)) break;
  }
  CAPTURE(at);
  CHECK(worst <= 2);
  CHECK(kernels::log(1.0F) == 0);
  CHECK(kernels::log(0.0F) == -INFINITY);
  CHECK(kernels::log(INFINITY) == INFINITY);
  CHECK(std::isnan(kernels::log(-1.0F)));
  CHECK(std::isnan(kernels::log(NAN)));
}

TEST_CASE("the hyperbolic tangent of the kernels is odd and within 2 units in the last place") {
  double worst = 0;
  float at = 0;
  for (std::uint32_t bits = 1; bits < 0x7f800000U; bits += 1009) {
    const float x = std::bit_cast<float>(bits), y = kernels::tanh(x);
    REQUIRE(kernels::tanh(-x) == -y);
    const double exact = std::tanh(double{x});
    const float rounded = static_cast<float>(exact);
    const double unit = std::nextafter(rounded, INFINITY) - rounded;
    const double error = std::abs(y - exact) / unit;
    if (!(error <= worst)) worst = error, at = x;  // a NaN, too
    if (std::isnan(worst)) break;
  }
  CAPTURE(at);
  CHECK(worst <= 2);
  CHECK(kernels::tanh(0.0F) == 0);
  CHECK(std::signbit(kernels::tanh(-0.0F)));
  CHECK(kernels::tanh(INFINITY) == 1);
  CHECK(kernels::tanh(-INFINITY) == -1);
  CHECK(std::isnan(kernels::tanh(NAN)));
}
