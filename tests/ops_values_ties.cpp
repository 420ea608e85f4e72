// Conventions at kinks and ties (those of PyTorch), and the edges of pow.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/pool.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int64_t>;

namespace {

Tensor leaf(const Doubles& v) { return from_vector(v).requires_grad_(); }

/// The first `n` derivatives of f at x.
Doubles derivatives(Tensor (*f)(const Tensor&), double x, int n) {
  const Tensor t = scalar(x, DType::f64).requires_grad_();
  Tensor y = f(t);
  Doubles d;
  for (int k = 0; k < n; ++k) {
    y = y.requires_grad() ? grad(y, t, {}, {.create_graph = true, .allow_unused = true}) : Tensor();
    if (!y.defined()) y = scalar(0, DType::f64);
    d.push_back(y.item());
  }
  return d;
}

}  // namespace

TEST_CASE("gradients at the kinks of elementwise functions") {
  const Tensor x = leaf({-1, 0, 1});
  CHECK(values(grad(sum(relu(x)), x)) == Doubles{0, 0, 1});
  CHECK(values(grad(sum(abs(x)), x)) == Doubles{-1, 0, 1});
  CHECK(values(grad(sum(norm1(x)), x)) == Doubles{-1, 0, 1});
  CHECK(values(grad(sum(leaky_relu(x, 0.1)), x)) == Doubles{0.1, 0.1, 1});
  CHECK(values(grad(sum(clamp(x, -1, 1)), x)) == Doubles{1, 1, 1});  // the bounds belong to it
  CHECK(values(grad(sum(clamp(x, 0, 0.5)), x)) == Doubles{0, 1, 0});
  CHECK(values(grad(sum(sign(x)), x)) == Doubles{0, 0, 0});
}

TEST_CASE("where a value does not count its gradient is 0, also from an infinite slope") {
  const Tensor x = leaf({-1, 4}), zero = zeros({}, DType::f64);
  CHECK(values(grad(sum(sqrt(clamp(x, 0, INFINITY))), x)) == Doubles{0, 0.25});
  CHECK(values(grad(sum(sqrt(maximum(x, zero))), x)) == Doubles{0, 0.25});
  CHECK(values(grad(sum(sqrt(-minimum(-x, zero))), x)) == Doubles{0, 0.25});
  const Tensor y = leaf({-1, 0});
  CHECK(values(grad(sqrt(max(y)), y)) == Doubles{0, INFINITY});
  CHECK(values(grad(sqrt(-min(-y)), y)) == Doubles{0, INFINITY});
}

TEST_CASE("bounds of clamp for whole numbers are whole or infinite") {
  const Tensor x = from_vector<std::int64_t>({0, 5});
  CHECK(clamp(x, 1, INFINITY).to_vector<std::int64_t>() == Ints{1, 5});
  CHECK_THROWS_AS(clamp(x, 0.5, 2.5), DTypeError);
  CHECK_THROWS_AS(clamp(x, 1e300, INFINITY), DTypeError);
}

TEST_CASE("elementwise maximum and minimum give half to each side of a tie") {
  const Tensor a = leaf({1, 2, 3}), b = leaf({1, 5, 0});
  CHECK(values(grad(sum(maximum(a, b)), a)) == Doubles{0.5, 0, 1});
  CHECK(values(grad(sum(maximum(a, b)), b)) == Doubles{0.5, 1, 0});
  CHECK(values(grad(sum(minimum(a, b)), a)) == Doubles{0.5, 1, 0});
  CHECK(values(grad(sum(maximum(a, 2.0)), a)) == Doubles{0, 0.5, 1});
  CHECK(values(grad(sum(maximum(a, a)), a)) == Doubles{1, 1, 1});
}

TEST_CASE("value max and min split evenly among equals") {
  const Tensor x = from_vector<double>({3, 3, 1, 2, 2, 2}, {2, 3}).requires_grad_();
  CHECK(values(grad(sum(max(x, {1})), x)) == Doubles{0.5, 0.5, 0, 1. / 3, 1. / 3, 1. / 3});
  CHECK(values(grad(max(x), x)) == Doubles{0.5, 0.5, 0, 0, 0, 0});
  CHECK(values(grad(min(x), x)) == Doubles{0, 0, 1, 0, 0, 0});
  CHECK(values(grad(sum(min(x, {0})), x)) == Doubles{0, 0, 1, 1, 1, 0});
}

TEST_CASE("argmax, argmin, sort, topk and max pooling take the first of equals") {
  const Tensor x = from_vector<double>({1, 3, 3, 1, 2}).requires_grad_();
  CHECK(argmax(x, 0).item() == 1);
  CHECK(argmin(x, 0).item() == 0);
  CHECK(argsort(x).to_vector<std::int64_t>() == Ints{0, 3, 4, 1, 2});
  CHECK(argsort(x, 0, true).to_vector<std::int64_t>() == Ints{1, 2, 4, 0, 3});
  CHECK(topk(x, 1).indices.item() == 1);
  CHECK(values(grad(sum(topk(x, 1).values), x)) == Doubles{0, 1, 0, 0, 0});
  const Tensor image = ones({1, 1, 2, 2}, DType::f64).requires_grad_();
  CHECK(values(grad(sum(max_pool2d(image, {2, 2})), image)) == Doubles{1, 0, 0, 0});
}

TEST_CASE("pow: values at the edges") {
  CHECK(values(pow(from_vector<double>({0, 0, 0, 2, -2, 1}),
                   from_vector<double>({0, 2, -1, 0, 3, INFINITY}))) ==
        Doubles{1, 0, INFINITY, 1, -8, 1});
  CHECK(std::isnan(pow(scalar(-2, DType::f64), 0.5).item()));
  CHECK(pow(scalar(NAN, DType::f64), 0).item() == 1);
}

TEST_CASE("pow: whole powers have all their derivatives at 0") {
  using P = Tensor (*)(const Tensor&);
  const P powers[] = {
      [](const Tensor& x) { return pow(x, 0); }, [](const Tensor& x) { return pow(x, 1); },
      [](const Tensor& x) { return pow(x, 2); }, [](const Tensor& x) { return pow(x, 3); }};
  const Doubles expected[] = {{0, 0, 0, 0, 0}, {1, 0, 0, 0, 0}, {0, 2, 0, 0, 0}, {0, 0, 6, 0, 0}};
  for (int e = 0; e < 4; ++e) {
    CAPTURE(e);
    CHECK(derivatives(powers[e], 0, 5) == expected[e]);
  }
  CHECK(derivatives(powers[3], -2, 4) == Doubles{12, -12, 6, 0});
  CHECK(derivatives([](const Tensor& x) { return pow(x, -1); }, 0, 1) == Doubles{-INFINITY});
  CHECK(derivatives([](const Tensor& x) { return pow(x, 0.5); }, 0, 1) == Doubles{INFINITY});
}

TEST_CASE("pow: the gradient for the exponent is 0 where the base is 0, to second order") {
  const Tensor a = leaf({0, 0, 2}), b = leaf({2, 0, 3});
  const TensorList g = grad({sum(pow(a, b))}, {a, b}, {}, {.create_graph = true});
  CHECK(values(g[0]) == Doubles{0, 0, 12});
  CHECK(values(g[1])[0] == 0);
  CHECK(values(g[1])[1] == 0);
  CHECK(values(g[1])[2] == doctest::Approx(8 * std::log(2.0)));
  const TensorList second = grad({sum(g[0]) + sum(g[1])}, {a, b});
  for (const Tensor& s : second) CHECK(all(isfinite(s)));
  CHECK(values(second[0])[0] == 2);  // d²/da² a²
}
