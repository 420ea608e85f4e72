// Comparison, logic, element types and conversions.

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
using Bools = std::vector<bool>;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int64_t>;

namespace {

Bools bools(const Tensor& x) { return x.to_vector<bool>(); }

}  // namespace

TEST_CASE("a number that is no truth value is no operand of one") {
  const Tensor m = from_vector<bool>({false, true});
  CHECK(bools(eq(m, 1.0)) == Bools{false, true});
  CHECK(bools(lt(m, 1.0)) == Bools{true, false});
  CHECK(message_of<DTypeError>([&] { gt(m, 0.5); }) ==
        "gt: the number 0.5 has no value in the type of the other operand; got b8 [2]. Hint: to(x, "
        "DType::f32)");
  CHECK_THROWS_AS(eq(m, 2.0), DTypeError);
}

TEST_CASE("comparisons of every type, with tensors and with numbers") {
  for (const DType t : {DType::f32, DType::f64, DType::i64}) {
    const Tensor a = cast_data(arange(3), t), b = full({3}, 1, t);
    CHECK(bools(eq(a, b)) == Bools{false, true, false});
    CHECK(bools(ne(a, b)) == Bools{true, false, true});
    CHECK(bools(lt(a, b)) == Bools{true, false, false});
    CHECK(bools(le(a, b)) == Bools{true, true, false});
    CHECK(bools(gt(a, b)) == Bools{false, false, true});
    CHECK(bools(ge(a, b)) == Bools{false, true, true});
    CHECK(bools(eq(a, 1)) == Bools{false, true, false});
    CHECK(bools(ne(a, 1)) == Bools{true, false, true});
    CHECK(bools(lt(a, 1)) == Bools{true, false, false});
    CHECK(bools(le(a, 1)) == Bools{true, true, false});
    CHECK(bools(gt(a, 1)) == Bools{false, false, true});
    CHECK(bools(ge(a, 1)) == Bools{false, true, true});
    CHECK(eq(a, b).dtype() == DType::b8);
  }
  const Tensor column = from_vector<double>({1, 2}, {2, 1});
  CHECK(lt(column, from_vector<double>({1, 2, 3})).shape() == Shape{2, 3});
  CHECK(contains(message_of<ShapeError>([] { eq(zeros({2}), zeros({3})); }), "eq: shapes must"));
}

TEST_CASE("comparisons with NaN are false, except ne") {
  const Tensor x = from_vector<double>({NAN});
  for (const auto f : {static_cast<Tensor (*)(const Tensor&, const Tensor&)>(eq), lt, le, gt, ge})
    CHECK(bools(f(x, x)) == Bools{false});
  CHECK(bools(ne(x, x)) == Bools{true});
}

TEST_CASE("logic on masks, and on nothing else") {
  const Tensor a = from_vector<bool>({true, true, false, false}),
               b = from_vector<bool>({true, false, true, false});
  CHECK(bools(logical_and(a, b)) == Bools{true, false, false, false});
  CHECK(bools(logical_or(a, b)) == Bools{true, true, true, false});
  CHECK(bools(logical_not(a)) == Bools{false, false, true, true});
  CHECK(contains(message_of<DTypeError>([&] { logical_and(a, ones({4})); }),
                 "logical_and: takes b8; got b8 and f32"));
  CHECK_THROWS_AS(logical_not(ones({2})), DTypeError);
  CHECK(contains(message_of<DTypeError>([&] { add(a, ones({4})); }), "Hint: to(x, dtype)"));
  CHECK_THROWS_AS(mul(a, b), DTypeError);
}

TEST_CASE("all, any and allclose end a graph with a C++ bool") {
  CHECK(all(ones({3})));
  CHECK_FALSE(all(arange(3)));
  CHECK(any(arange(3)));
  CHECK_FALSE(any(zeros({3}, DType::b8)));
  CHECK(all(zeros({0})));
  CHECK_FALSE(any(zeros({0})));
  const Tensor a = from_vector<double>({1, 100}), b = from_vector<double>({1, 100.0005});
  CHECK(allclose(a, b));
  CHECK_FALSE(allclose(a, b, 1e-6));
  CHECK(allclose(a, b, 0, 1e-3));
  CHECK_FALSE(allclose(from_vector<double>({NAN}), from_vector<double>({NAN})));
  CHECK(allclose(full({1}, INFINITY), full({1}, INFINITY)));
  CHECK_FALSE(allclose(full({1}, INFINITY), full({1}, -INFINITY)));
  CHECK(allclose(arange(3), arange(3)));
  CHECK_FALSE(allclose(arange(3), arange(3) + 1));
  CHECK_THROWS_AS(allclose(ones({1}), ones({1}, DType::f64)), DTypeError);
}

TEST_CASE("numbers take the type of the tensor, if it can hold them") {
  const Tensor i = arange(3);
  CHECK((i * 2 + 1).to_vector<std::int64_t>() == Ints{1, 3, 5});
  CHECK((ones({1}) * 0.1).dtype() == DType::f32);
  const std::string text = message_of<DTypeError>([&] { lt(i, 1.5); });
  CHECK(contains(text, "1.5"));
  CHECK(contains(text, "i64"));
  CHECK(contains(text, "Hint: to(x, DType::f32)"));
  CHECK(message_of<DTypeError>([&] { i + 0.5; }).starts_with("add: the number 0.5 has no value"));
  CHECK(message_of<DTypeError>([&] { 0.5 / i; }).starts_with("div: the number 0.5 has no value"));
  CHECK(message_of<DTypeError>([&] { norm(i); }).starts_with("norm: takes f32 or f64; got i64"));
  CHECK_THROWS_AS(i * 0.5, DTypeError);
  CHECK_THROWS_AS(maximum(i, -INFINITY), DTypeError);
  CHECK_THROWS_AS(where(gt(i, 0), i, NAN), DTypeError);
}

TEST_CASE("element types are never promoted: the message names both") {
  const Tensor a = ones({2}), b = ones({2}, DType::f64);
  for (const auto f : {static_cast<Tensor (*)(const Tensor&, const Tensor&)>(sub), mul, div, pow,
                       maximum, minimum, lt, eq}) {
    const std::string text = message_of<DTypeError>([&] { f(a, b); });
    CHECK(contains(text, "a = f32 [2], b = f64 [2]"));
    CHECK(contains(text, "Hint: to(x, dtype)"));
  }
  CHECK_THROWS_AS(where(gt(a, 0), a, b), DTypeError);
  CHECK(contains(message_of<DTypeError>([&] { where(a, a, a); }), "the condition must be b8"));
}

TEST_CASE("functions of real numbers reject integers by name") {
  const Tensor i = arange(3);
  CHECK(message_of<DTypeError>([&] { exp(i); }) ==
        "exp: takes f32 or f64; got i64 [3]. Hint: to(x, DType::f32)");
  CHECK(contains(message_of<DTypeError>([&] { shares(i); }), "shares: takes f32 or f64"));
  CHECK_THROWS_AS(i / i, DTypeError);
  CHECK_THROWS_AS(mean(i), DTypeError);
  CHECK_THROWS_AS(logsumexp(i), DTypeError);
  CHECK_THROWS_AS(pow(i, 2), DTypeError);
  CHECK((-i).to_vector<std::int64_t>() == Ints{0, -1, -2});
  CHECK(abs(-i).to_vector<std::int64_t>() == Ints{0, 1, 2});
  CHECK(sign(i - 1).to_vector<std::int64_t>() == Ints{-1, 0, 1});
  CHECK(square(i).to_vector<std::int64_t>() == Ints{0, 1, 4});
  CHECK(clamp(i, 0, 1).to_vector<std::int64_t>() == Ints{0, 1, 1});
  CHECK(clamp(i, -INFINITY, 1).to_vector<std::int64_t>() == Ints{0, 1, 1});
  CHECK_THROWS_AS(neg(ones({1}, DType::b8)), DTypeError);
  CHECK(contains(message_of<ValueError>([&] { clamp(i, 2, 1); }), "low must not exceed high"));
  CHECK_THROWS_AS(clamp(ones({1}), NAN, 1), ValueError);
}

TEST_CASE("to converts, and its gradient comes back in the type of the input") {
  const Tensor x = from_vector<float>({1.25F, -2.F}).requires_grad_();
  const Tensor y = to(x, DType::f64);
  CHECK(y.dtype() == DType::f64);
  const Tensor g = grad(sum(y * y), x, {}, {.create_graph = true});
  CHECK(g.dtype() == DType::f32);
  CHECK(g.to_vector<float>() == std::vector<float>{2.5F, -4.F});
  CHECK(values(grad(sum(g), x)) == Doubles{2, 2});
  CHECK(to(x, DType::f32).impl() == x.impl());
  CHECK(to(x, DType::i64).to_vector<std::int64_t>() == Ints{1, -2});
  CHECK(bools(to(from_vector<double>({0, 0.5, NAN}), DType::b8)) == Bools{false, true, true});
}

TEST_CASE("sums of masks and integers are exact integers") {
  CHECK(sum(ones({3}, DType::b8)).dtype() == DType::i64);
  CHECK(sum(ones({3}, DType::b8)).item() == 3);
  CHECK(cumsum(ones({3}, DType::b8), 0).to_vector<std::int64_t>() == Ints{1, 2, 3});
  const std::int64_t big = (std::int64_t{1} << 53) + 1;
  const Tensor x = from_vector<std::int64_t>({big, 1});
  CHECK(sum(x).to_vector<std::int64_t>() == Ints{big + 1});
  CHECK(cumsum(x, 0).to_vector<std::int64_t>() == Ints{big, big + 1});
  CHECK(max(x).to_vector<std::int64_t>() == Ints{big});
}

TEST_CASE("sums of f32 accumulate in double") {
  const Tensor x = full({1 << 20}, 0.1F);
  CHECK(sum(x).item() == doctest::Approx(0.1F * 1048576.0).epsilon(1e-7));
  CHECK(mean(x).item() == doctest::Approx(0.1).epsilon(1e-7));
  Rng rng(1);
  const Tensor y = rng.normal({1000}, 1e4, 1e-2);
  CHECK(var(y).item() ==
        doctest::Approx(1e-4).epsilon(0.2).scale(0));  // E[x²] − E[x]² would be noise
}
