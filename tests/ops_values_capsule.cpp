// The primitives of capsules. The codes are those of the project's list of pitfalls.

#include <array>
#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;

namespace {

Tensor random(const Shape& shape, std::uint64_t seed = 1) {
  Rng rng(seed);
  return randn(shape, rng, DType::f64);
}

}  // namespace

TEST_CASE("S1 the zero vector: value 0, first and second gradient finite, and 0") {
  using Fn = Tensor (*)(const Tensor&);
  const Fn functions[] = {[](const Tensor& x) { return safe_norm(x); },
                          [](const Tensor& x) { return safe_normalize(x); },
                          [](const Tensor& x) { return squash(x); },
                          [](const Tensor& x) { return squash(x, 0.5, 0); },
                          [](const Tensor& x) { return squash_reference(x); },
                          [](const Tensor& x) { return norm(x, {-1}); },
                          [](const Tensor& x) { return frobenius_normalize(x); }};
  for (const DType t : {DType::f32, DType::f64})
    for (std::size_t f = 0; f < std::size(functions); ++f) {
      CAPTURE(f);
      CAPTURE(name_of(t));
      const Tensor x = zeros({3, 8}, t).requires_grad_();
      const Tensor y = functions[f](x);
      CHECK(largest(y) == 0);
      const Tensor c = full(y.shape(), 1.5, t).requires_grad_();
      const Tensor plain = grad(y, x, c, {.retain_graph = true});
      CHECK(largest(plain) == 0);
      CHECK(all(isfinite(plain)));
      const Tensor g = grad(y, x, c, {.create_graph = true});
      CHECK(largest(g) == 0);
      CHECK(all(isfinite(g)));
      const TensorList second = grad({sum(g) + sum(g * g)}, {x, c}, {}, {.create_graph = true});
      for (const Tensor& s : second) {
        CHECK(all(isfinite(s)));
        CHECK(largest(s) == 0);
      }
      if (!second[0].requires_grad()) continue;
      const Tensor third = grad(sum(second[0]), x, {}, {.allow_unused = true});
      if (third.defined()) CHECK(all(isfinite(third)));
    }
}

TEST_CASE("S1 a zero vector among others changes nothing for them") {
  const Tensor x = random({4, 8});
  Tensor mixed = empty_like(x).copy_(x);
  select(mixed, 0, 2).fill_(0);
  const auto gradient = [](const Tensor& v) {
    const Tensor leaf = v.detach().requires_grad_();
    const Tensor g = grad(sum(square(squash(leaf))), leaf, {}, {.create_graph = true});
    return add(g.detach(), grad(sum(g * g), leaf));
  };
  const Tensor a = gradient(x), b = gradient(mixed);
  for (const int row : {0, 1, 3}) CHECK(same_bits(select(a, 0, row), select(b, 0, row)));
  CHECK(largest(select(b, 0, 2)) == 0);
}

TEST_CASE("S2 tiny vectors: no epsilon hides them, and no step in the value") {
  // Squares below the smallest number count as 0, by definition: value and gradient 0, not NaN.
  for (const DType t : {DType::f32, DType::f64}) {
    const double tiny = t == DType::f32 ? 1e-15 : 1e-120;
    const Tensor x = full({1, 4}, tiny, t).requires_grad_();
    CHECK(safe_norm(x.detach()).item() == doctest::Approx(2 * tiny).epsilon(1e-5).scale(0));
    CHECK(values(safe_normalize(x.detach()))[0] == doctest::Approx(0.5).epsilon(1e-5));
    CHECK(values(grad(safe_norm(x), x, ones({1}, t)))[0] == doctest::Approx(0.5).epsilon(1e-5));
    for (const double under : {1e-30, 1e-300}) {
      const Tensor z = full({1, 4}, t == DType::f32 ? under * 1e-5 : under, t).requires_grad_();
      const Tensor g = grad(sum(squash(z)), z, {}, {.create_graph = true});
      CHECK(all(isfinite(g)));
      CHECK(all(isfinite(grad(sum(g), z))));
    }
  }
  const Tensor x = full({1, 8}, 1e-10, DType::f64);
  CHECK(safe_norm(squash(x)).item() == doctest::Approx(8e-20).epsilon(1e-12).scale(0));
}

TEST_CASE("S3 squash: lengths below 1 and monotone, direction kept, the right axis") {
  for (const double c : {0.25, 0.5, 1.0, 2.0}) {
    double last = -1;
    for (double n = 1e-3; n < 1e3; n *= 1.7) {
      const Tensor s = random({1, 6}) * (n / safe_norm(random({1, 6})).item());
      const Tensor v = squash(s, c);
      const double length = safe_norm(v).item();
      CHECK(length == doctest::Approx(n * n / (c + n * n)).epsilon(1e-13));
      CHECK(length < 1);
      CHECK(length > last);
      last = length;
      CHECK(max_difference(safe_normalize(v), safe_normalize(s)) < 1e-14);
    }
  }
  // Count and size differ, so that a wrong axis shows.
  const Tensor s = random({2, 5, 3});
  const Tensor moved = transpose(squash(contiguous(transpose(s, 1, 2)), 1.0, 1), 1, 2);
  CHECK(max_difference(squash(s), moved) < 1e-15);
  CHECK(max_difference(squash(s), squash(s, 1.0, 1)) > 0.01);
  // In f32 the length is 1 from 4096 on, but for the rounding of the product f s.
  for (const double n : {4096.0, 4097.0, 1e5, 1e6, 1e18}) {
    const Tensor long_one = full({1, 1}, n);
    CHECK(safe_norm(squash(long_one)).item() <= 1 + 0x1p-23);
    CHECK(safe_norm(squash(long_one)).item() > 0.999999);
  }
  CHECK(message_of<ValueError>([&] { squash(s, 0); }) ==
        "squash: c must be a positive normal number of f64; got 0");
  CHECK_THROWS_AS(squash(s, NAN), ValueError);
}

TEST_CASE(
    "S1 S3 squash_exp: lengths 1 - e^-n, continuous through the change of formula, 0 included") {
  double last = -1;
  for (double n = 1e-9; n < 30; n *= 1.3) {
    const Tensor s = random({1, 6}) * (n / safe_norm(random({1, 6})).item());
    const Tensor v = squash_exp(s);
    const double length = safe_norm(v).item();
    CHECK(length == doctest::Approx(-std::expm1(-n)).epsilon(1e-13));
    CHECK(length < 1);
    CHECK(length > last);
    last = length;
    CHECK(max_difference(safe_normalize(v), safe_normalize(s)) < 1e-14);
    // Along s: v' = e^(-n), v'' = -e^(-n), at any n and across the change of formula.
    const Tensor unit = safe_normalize(s), t = full({}, n, DType::f64).requires_grad_();
    const Tensor d = grad(sum(squash_exp(unit * t) * unit), t, {}, {.create_graph = true});
    CHECK(d.item() == doctest::Approx(std::exp(-n)).epsilon(1e-12));
    CHECK(grad(d, t).item() == doctest::Approx(-std::exp(-n)).epsilon(1e-9));
  }
  for (const DType t : {DType::f32, DType::f64}) {
    const Tensor x = zeros({2, 3}, t).requires_grad_(), c = full({2, 3}, 1.5, t).requires_grad_();
    CHECK(largest(squash_exp(x)) == 0);
    const Tensor g = grad(squash_exp(x), x, c, {.create_graph = true});
    CHECK(max_difference(g, c) == 0);  // the identity: a zero capsule still learns
    const TensorList second = grad({sum(g * g)}, {x, c});
    CHECK(largest(second[0]) == 0);
    CHECK(max_difference(second[1], full({2, 3}, 3, t)) == 0);
    // Tiny, under the square root of the smallest number, and long.
    for (const double n : {1e-30, 1e-18, 1e-6, 1e6, 1e18}) {
      const Tensor z = full({1, 4}, n, t).requires_grad_();
      const Tensor gz = grad(sum(squash_exp(z)), z, {}, {.create_graph = true});
      CHECK(all(isfinite(gz)));
      CHECK(all(isfinite(grad(sum(gz), z))));
    }
  }
  const Tensor s = random({2, 5, 3});
  const Tensor moved = transpose(squash_exp(contiguous(transpose(s, 1, 2)), 1), 1, 2);
  CHECK(max_difference(squash_exp(s), moved) < 1e-15);
  CHECK(max_difference(squash_exp(s), squash_exp(s, 1)) > 0.01);
  CHECK(std::isnan(squash_exp(full({1, 1}, NAN)).item()));
  CHECK_THROWS_AS(squash_exp(scalar(1)), ShapeError);
  CHECK_THROWS_AS(squash_exp(arange(3)), DTypeError);
}

TEST_CASE("S4 the full Jacobian of squash, off-diagonal terms included") {
  const Doubles at = {0.3, -1.2, 2.0};
  const Tensor s = from_vector(at, {1, 3}).requires_grad_();
  const double n = std::sqrt(0.09 + 1.44 + 4), w = 1 + n * n;
  for (std::int64_t i = 0; i < 3; ++i) {
    const Tensor row = grad(select(squash(s), 1, i), s, ones({1}, DType::f64));
    for (std::int64_t j = 0; j < 3; ++j) {
      const auto p = static_cast<std::size_t>(i), q = static_cast<std::size_t>(j);
      const double expected = (i == j ? n / w : 0) + at[p] * at[q] * (1 - n * n) / (w * w) / n;
      CHECK(values(row)[q] == doctest::Approx(expected).epsilon(1e-13));
    }
  }
  for (const std::int64_t d : {1, 3, 8, 16, 17}) {
    const Function f = [](const TensorList& x) { return TensorList{squash(x[0])}; };
    testing::check_gradients(f, {random({2, d})});
  }
}

TEST_CASE("D1 couplings: the softmax over parents sums to 1 for every input capsule") {
  const Tensor b = random({2, 7, 3}) * 3.0;  // [B, I, J]
  const Tensor c = softmax(b, 2);
  CHECK(max_difference(sum(c, {2}), ones({2, 7}, DType::f64)) < 1e-14);
  CHECK(max_difference(sum(c, {1}), ones({2, 3}, DType::f64)) > 0.1);
  CHECK(max_difference(softmax(b), c) == 0);
}

TEST_CASE("D11 votes of shared weights equal those of equal full weights") {
  const Tensor u = random({2, 6, 4}), w = random({3, 5, 4}, 2);
  const Tensor copies = contiguous(broadcast_to(w, {6, 3, 5, 4}));
  CHECK(max_difference(votes_shared(u, w), votes_full(u, copies)) < 1e-14);
  // Factorised votes with an identity below are shared votes as well.
  const Tensor identity = contiguous(broadcast_to(eye(4, DType::f64), {6, 4, 4}));
  CHECK(max_difference(votes_factorised(u, w, identity), votes_shared(u, w)) < 1e-14);
}

TEST_CASE("votes follow their formulas, also with a single one of anything") {
  for (const auto& [b, i, j, d, e] : {std::array<std::int64_t, 5>{2, 3, 4, 5, 6},
                                      {1, 1, 1, 1, 1},
                                      {1, 5, 1, 3, 2},
                                      {3, 1, 2, 1, 4}}) {
    const Tensor u = random({b, i, e}), w = random({i, j, d, e}, 2);
    const Tensor expected =
        sum(unsqueeze(unsqueeze(u, 2), 2) * unsqueeze(w, 0), {-1});  // Σ_e u[b,i,e] w[i,j,d,e]
    CHECK(max_difference(votes_full(u, w), expected) < 1e-13);
    const Tensor c = softmax(random({b, i, j}, 3), 2), votes = expected;
    const Tensor s = weighted_sum(c, votes);
    CHECK(max_difference(s, sum(unsqueeze(c, -1) * votes, {1})) < 1e-13);
    CHECK(max_difference(agreement(votes, s), sum(votes * unsqueeze(s, 1), {-1})) < 1e-12);
    CHECK(max_difference(outer_votes(c, s), unsqueeze(c, -1) * unsqueeze(s, 1)) < 1e-14);
  }
  const Tensor pose = random({2, 3, 4, 4}), w = random({3, 2, 4, 4}, 2);
  const Tensor v = votes_matrix(pose, w);
  CHECK(v.shape() == Shape{2, 3, 2, 16});
  const Tensor one = reshape(select(select(select(v, 0, 1), 0, 2), 0, 1), {4, 4});
  const Tensor p = select(select(pose, 0, 1), 0, 2), q = select(select(w, 0, 2), 0, 1);
  CHECK(max_difference(one, sum(unsqueeze(p, -1) * unsqueeze(q, 0), {1})) < 1e-14);
}

TEST_CASE("frobenius_normalize makes matrices of norm 1") {
  const Tensor w = frobenius_normalize(random({3, 2, 4, 5}));
  CHECK(max_difference(sum(square(w), {-2, -1}), ones({3, 2}, DType::f64)) < 1e-14);
}

TEST_CASE("capsule ops name the shapes that they take") {
  const Tensor u = random({2, 3, 4}), w = random({9, 2, 5, 4}), v = random({2, 3, 2, 5});
  CHECK(message_of<ShapeError>([&] { votes_full(u, w); }) ==
        "votes_full: takes u [B, I, E] and weight [I, J, D, E]; got [2, 3, 4] and [9, 2, 5, 4]");
  CHECK_THROWS_AS(votes_shared(u, w), ShapeError);
  CHECK_THROWS_AS(votes_factorised(u, u, w), ShapeError);
  CHECK(message_of<ShapeError>([&] {
          votes_factorised(u, random({2, 5, 6}), random({3, 7, 4}));
        }) ==
        "votes_factorised: takes weight [J, D, M] and lower weight [I, M, E]; got [2, 5, 6] and "
        "[3, 7, 4]");
  CHECK_THROWS_AS(votes_matrix(v, w), ShapeError);
  CHECK_THROWS_AS(weighted_sum(u, v), ShapeError);
  CHECK_THROWS_AS(agreement(v, u), ShapeError);
  CHECK_THROWS_AS(outer_votes(u, v), ShapeError);
  CHECK_THROWS_AS(weighted_sum(random({2, 3, 2}), cast_data(v, DType::f32)), DTypeError);
  CHECK_THROWS_AS(frobenius_normalize(ones({3})), ShapeError);
  CHECK_THROWS_AS(squash(scalar(1)), ShapeError);
  CHECK_THROWS_AS(squash(arange(3)), DTypeError);
  const Tensor zero = zeros({2, 3});
  CHECK(message_of<ValueError>([&] { squash(zero, 1e-46); }) ==
        "squash: c must be a positive normal number of f32; got 1e-46");  // 0/0 at 0
  for (double c : {0., -1., double{NAN}, double{INFINITY}})
    CHECK_THROWS_AS(squash(u, c), ValueError);
  CHECK_THROWS_AS(squash(zero, 1e39), ValueError);  // infinite there
  CHECK_FALSE(std::isnan(sum(squash(cast_data(zero, DType::f64), 1e-300)).item()));
}

TEST_CASE("squash: the same bits wherever its arrays lie, close to each other or not") {
  Rng rng(1), sizes(5);
  const Tensor s0 = rng.normal({1, 10, 16}, 0, 1), w = rng.normal({1, 10, 16}, 0, 1);
  std::vector<float> first;
  TensorList between;
  for (int i = 0; i < 1000; ++i) {
    if (between.size() > 40) between.erase(between.begin() + sizes.below(40));
    between.push_back(i % 2 == 0 ? empty_like(s0) : zeros({1 + sizes.below(700)}));
    const Tensor s = empty_like(s0).copy_(s0).requires_grad_(), v = squash(s);
    std::vector<float> got = v.to_vector<float>();
    for (const float g : grad(v, s, w).to_vector<float>()) got.push_back(g);
    if (first.empty()) first = got;
    REQUIRE(got == first);
  }
}
