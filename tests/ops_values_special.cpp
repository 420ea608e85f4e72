// NaN, infinities and empty sets, as the headers promise.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int64_t>;

namespace {

constexpr double kInf = INFINITY;

/// Equal, where a NaN equals a NaN.
bool same(const Tensor& a, const Doubles& b) {
  const auto v = values(a);
  bool equal = v.size() == b.size();
  for (std::size_t i = 0; equal && i < b.size(); ++i)
    equal = v[i] == b[i] || (std::isnan(v[i]) && std::isnan(b[i]));
  return equal;
}

Tensor of(const Doubles& v, DType t) { return cast_data(from_vector(v), t); }
Tensor leaf(const Doubles& v) { return from_vector(v).requires_grad_(); }

}  // namespace

TEST_CASE("elementwise functions at infinities and NaN") {
  for (const DType t : {DType::f32, DType::f64}) {
    CAPTURE(name_of(t));
    const Tensor x = of({-kInf, 0, kInf, NAN}, t);
    CHECK(same(relu(x), {0, 0, kInf, NAN}));
    CHECK(same(clamp(x, -1, 2), {-1, 0, 2, NAN}));
    CHECK(same(clamp(x, -kInf, 2), {-kInf, 0, 2, NAN}));
    CHECK(same(abs(x), {kInf, 0, kInf, NAN}));
    CHECK(same(sign(x), {-1, 0, 1, NAN}));
    CHECK(same(sigmoid(x), {0, 0.5, 1, NAN}));
    CHECK(same(tanh(x), {-1, 0, 1, NAN}));
    CHECK(same(expm1(x), {-1, 0, kInf, NAN}));
    CHECK(same(log(of({-1, 0, kInf, NAN}, t)), {NAN, -kInf, kInf, NAN}));
    CHECK(same(log1p(of({-2, -1, kInf, NAN}, t)), {NAN, -kInf, kInf, NAN}));
    CHECK(same(sqrt(of({-1, 0, kInf, NAN}, t)), {NAN, 0, kInf, NAN}));
    CHECK(same(rsqrt(of({-1, 0, kInf, NAN}, t)), {NAN, kInf, 0, NAN}));
    CHECK(same(reciprocal(of({0, kInf, NAN}, t)), {kInf, 0, NAN}));
    CHECK(same(leaky_relu(x, 0.5), {-kInf, 0, kInf, NAN}));
    CHECK(same(elu(x, 2), {-2, 0, kInf, NAN}));
    CHECK(same(erf(x), {-1, 0, 1, NAN}));
    const auto soft = values(softplus(of({-kInf, -1000, 1000, kInf, NAN}, t)));
    CHECK(soft[0] == 0);
    CHECK(soft[1] == 0);
    CHECK(soft[2] == 1000);
    CHECK(soft[3] == kInf);
    CHECK(std::isnan(soft[4]));
    CHECK(same(logsigmoid(of({-kInf, -1000, 1000, kInf, NAN}, t)), {-kInf, -1000, 0, 0, NAN}));
  }
}

TEST_CASE("functions near their cancellations keep their digits") {
  const Tensor x = from_vector<double>({1e-12, -1e-12});
  CHECK(values(expm1(x))[0] == doctest::Approx(1e-12).epsilon(1e-11).scale(0));
  CHECK(values(log1p(x))[1] == doctest::Approx(-1e-12).epsilon(1e-11).scale(0));
  CHECK(values(softplus(full({1}, -40, DType::f64)))[0] ==
        doctest::Approx(std::exp(-40)).epsilon(1e-14).scale(0));
  CHECK(values(logsigmoid(full({1}, 40, DType::f64)))[0] ==
        doctest::Approx(-std::exp(-40)).epsilon(1e-14).scale(0));
}

TEST_CASE("saturated functions have finite gradients") {
  for (const auto f : {sigmoid, tanh, softplus, logsigmoid, relu, gelu}) {
    const Tensor x = leaf({-1e4, -100, 100, 1e4});
    const Tensor g = grad(sum(f(x)), x, {}, {.create_graph = true});
    CHECK(all(isfinite(g)));
    if (g.requires_grad()) CHECK(all(isfinite(grad(sum(g), x))));
  }
  const Tensor x = leaf({1e4});  // e^x of the branch not taken must not make 0 · ∞
  CHECK(values(grad(sum(elu(x)), x)) == Doubles{1});
}

TEST_CASE("maximum and minimum of a NaN are NaN, on either side") {
  for (const DType t : {DType::f32, DType::f64}) {
    const Tensor a = of({NAN, 1, NAN, kInf, -kInf}, t), b = of({1, NAN, NAN, 5, 5}, t);
    CHECK(same(maximum(a, b), {NAN, NAN, NAN, kInf, 5}));
    CHECK(same(minimum(a, b), {NAN, NAN, NAN, 5, -kInf}));
  }
}

TEST_CASE("max and min over an axis: a NaN anywhere wins, an infinity is a number") {
  for (const DType t : {DType::f32, DType::f64})
    for (const std::int64_t n : {3, 40}) {  // below and above one vector
      Tensor x = full({3, n}, 1, t);
      strided_view(x, {1}, {1}, n - 1).fill_(NAN);
      strided_view(x, {1}, {1}, n).fill_(-kInf);
      strided_view(x, {1}, {1}, 2 * n + 1).fill_(kInf);
      CHECK(same(max(x, {1}), {NAN, 1, kInf}));
      CHECK(same(min(x, {1}), {NAN, -kInf, 1}));
      CHECK(argmax(x, 1).to_vector<std::int64_t>() == Ints{n - 1, 1, 1});
      CHECK(argmin(x, 1).to_vector<std::int64_t>() == Ints{n - 1, 0, 0});
    }
  CHECK(same(max(full({4}, -kInf, DType::f64)), {-kInf}));
  CHECK(max(from_vector<std::int64_t>({INT64_MIN, INT64_MIN + 1})).to_vector<std::int64_t>() ==
        Ints{INT64_MIN + 1});
}

TEST_CASE("softmax: entries of minus infinity have probability 0 and gradient 0") {
  for (const bool log_of : {false, true})
    for (const bool create_graph : {false, true}) {
      const Tensor x = leaf({1, -kInf, 2});
      const Tensor p = log_of ? exp(log_softmax(x)) : softmax(x);
      CHECK(values(p)[1] == 0);
      CHECK(sum(p.detach()).item() == doctest::Approx(1));
      const Tensor g = grad(p, x, from_vector<double>({1, 7, 3}), {.create_graph = create_graph});
      CHECK(values(g)[1] == 0);
      CHECK(all(isfinite(g)));
      if (!create_graph) continue;
      const Tensor second = grad(sum(square(g)), x);
      CHECK(values(second)[1] == 0);
      CHECK(all(isfinite(second)));
    }
  CHECK(same(softmax(full({2}, -kInf, DType::f64)), {NAN, NAN}));
}

TEST_CASE("softmax of millions of entries sums to 1") {
  const Tensor x = Rng(1).normal({1, 1 << 22}, 0, 1).requires_grad_();
  const Tensor p = softmax(x), l = log_softmax(x);
  CHECK(std::abs(sum(p).item() - 1) < 1e-5);
  CHECK(std::abs(sum(exp(l)).item() - 1) < 1e-5);
  const Tensor gy = Rng(2).normal(p.shape(), 0, 1);
  for (const Tensor& y : {p, l})  // the gradient of a shift of all entries is 0
  {
    const Tensor g = grad(y, x, gy);
    CHECK(std::abs(sum(g).item()) < 1e-5 * sum(abs(g)).item());
  }
}

TEST_CASE("shares: an entry that is alone has gradients of 0, exactly, of first and second order") {
  const Tensor w = from_vector<float>({0.3F, 1.7F, 0.9F}, {3, 1}).requires_grad_();
  const Tensor x = w * from_vector<float>({0.7F, 1.1F, 3.3F}, {3, 1});
  const Tensor y = shares(x);
  CHECK(all(eq(y, 1.0)));
  const Tensor c = from_vector<float>({0.1F, 2.3F, -5.7F}, {3, 1}).requires_grad_();
  const Tensor g = grad(y, w, c, {.create_graph = true});
  CHECK(all(eq(g, 0.0)));
  for (const Tensor& h : grad(TensorList{sum(g * c)}, TensorList{w, c})) CHECK(all(eq(h, 0.0)));
}

TEST_CASE("logsumexp: rows of minus infinity, and of infinity") {
  const Tensor x = from_vector<double>({-kInf, -kInf, 0, -kInf, kInf, 0}, {3, 2}).requires_grad_();
  const Tensor y = logsumexp(x, {1});
  CHECK(same(y, {-kInf, 0, kInf}));
  const Tensor g = grad(y, x, from_vector<double>({1, 1, 0}), {.create_graph = true});
  CHECK(values(g)[0] == 0);
  CHECK(values(g)[1] == 0);
  CHECK(values(g)[2] == 1);
  CHECK(values(g)[3] == 0);
  const Tensor z = leaf({0, -kInf});
  const Tensor gz = grad(logsumexp(z), z, {}, {.create_graph = true});
  CHECK(values(grad(sum(square(gz)), z)) == Doubles{0, 0});
  CHECK(logsumexp(full({3}, 1e4, DType::f64)).item() == doctest::Approx(1e4 + std::log(3)));
}

TEST_CASE("D2 softmax of logits of 1e4 is finite, and a NaN surfaces") {
  for (const DType t : {DType::f32, DType::f64}) {
    const Tensor x = of({1e4, -1e4, 0, 9999}, t);
    const Tensor p = softmax(x);
    CHECK(all(isfinite(p)));
    CHECK(sum(p).item() == doctest::Approx(1));
    CHECK(values(p)[0] == doctest::Approx(1 / (1 + std::exp(-1.0))).epsilon(1e-5));
    CHECK(all(isfinite(log_softmax(x))));
    const Tensor bad = softmax(of({0, NAN, 1}, t));
    CHECK(same(bad, {NAN, NAN, NAN}));
    CHECK(same(log_softmax(of({0, NAN, 1}, t)), {NAN, NAN, NAN}));
  }
}

TEST_CASE("where keeps what is not taken out of value and gradient") {
  const Tensor x = leaf({1, 0});
  const Tensor c = gt(x, 0.5);
  CHECK(same(where(c, x, full({2}, NAN, DType::f64)), {1, NAN}));
  const Tensor y = where(c, log(where(c, x, 1.0)), 0.0);
  CHECK(values(grad(sum(y), x)) == Doubles{1, 0});
}

TEST_CASE("division by zero follows IEEE, in value and gradient") {
  const Tensor a = leaf({1, -1, 0}), b = leaf({0, 0, 0});
  CHECK(same(a / b, {kInf, -kInf, NAN}));
  CHECK(same(grad(sum(a / b), a), {kInf, kInf, kInf}));
  CHECK(same(1.0 / from_vector<double>({0, -0.0}), {kInf, -kInf}));
}

TEST_CASE("isnan and isfinite") {
  const Tensor x = from_vector<double>({1, NAN, kInf, -kInf});
  CHECK(isnan(x).to_vector<bool>() == std::vector<bool>{false, true, false, false});
  CHECK(isfinite(x).to_vector<bool>() == std::vector<bool>{true, false, false, false});
  CHECK(all(isfinite(arange(3))));
  CHECK_FALSE(any(isnan(arange(3))));
}

TEST_CASE("reductions of nothing") {
  const Tensor none = zeros({2, 0}, DType::f64);
  CHECK(values(sum(none, {1})) == Doubles{0, 0});
  CHECK(sum(none).item() == 0);
  CHECK(same(mean(none, {1}), {NAN, NAN}));
  CHECK(values(prod(none, 1)) == Doubles{1, 1});
  CHECK(max(none, {0}).shape() == Shape{0});
  CHECK(contains(message_of<ShapeError>([&] { max(none); }),
                 "max: nothing to take it of; got x = [2, 0]"));
  CHECK_THROWS_AS(min(none, {1}), ShapeError);
  CHECK_THROWS_AS(logsumexp(none), ShapeError);
  CHECK(contains(message_of<ShapeError>([&] { argmax(none, 1); }), "argmax: the axis is empty"));
  CHECK(softmax(none).shape() == Shape{2, 0});
}
