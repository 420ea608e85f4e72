// The spectral norm: values, where singular values meet, and power iteration.

#include "ops_support.hpp"

#include <cmath>
#include <limits>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/spectral.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::test;
using capsfw::testing::contains;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

/// A random orthogonal matrix: a product of reflections.
Tensor orthogonal(std::int64_t n, std::uint64_t seed) {
  Tensor q = eye(n, DType::f64);
  for (std::uint64_t k = 0; k < 3; ++k) {
    const Tensor v = random({n, 1}, seed + k);
    q = q - matmul(v, matmul(transpose(v), q)) * (2 / sum(v * v).item());
  }
  return q;
}

/// U diag(s) Vᵀ of shape [m, n].
Tensor with_singular_values(std::int64_t m, std::int64_t n, const Values& s, std::uint64_t seed) {
  Tensor d = zeros({m, n}, DType::f64);
  double* p = d.mutable_data<double>();
  for (std::size_t i = 0; i < s.size(); ++i) p[static_cast<std::int64_t>(i) * (n + 1)] = s[i];
  return matmul(matmul(orthogonal(m, seed), d), orthogonal(n, seed + 10));
}

}  // namespace

TEST_CASE("spectral_norm finds the largest singular value, tall, wide and in batches") {
  for (const auto& size : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {5, 3}, {3, 5}, {4, 4}, {1, 6}, {6, 1}, {1, 1}, {40, 30}}) {
    const std::int64_t m = size.first, n = size.second;
    CAPTURE(m);
    CAPTURE(n);
    Values s;
    for (std::int64_t i = 0; i < std::min(m, n); ++i) s.push_back(3.7 / static_cast<double>(1 + i));
    const Tensor w = with_singular_values(m, n, s, 1);
    CHECK(spectral_norm(w).item() == doctest::Approx(3.7).epsilon(1e-13));
    CHECK(spectral_norm(to(w, DType::f32)).item() == doctest::Approx(3.7).epsilon(1e-6));
    CHECK(power_iteration(w).sigma.item() == doctest::Approx(3.7).epsilon(1e-12));
  }
  const Tensor w = random({2, 3, 4, 5});
  const Tensor all = spectral_norm(w);
  CHECK(all.shape() == Shape{2, 3});
  CHECK(spectral_norm(select(select(w, 0, 1), 0, 2)).item() ==
        doctest::Approx(values(all)[5]).epsilon(1e-14));
  CHECK(max_difference(power_iteration(w).sigma, all) < 1e-12);
  CHECK(spectral_norm(empty({0, 3, 4})).shape() == Shape{0});
}

TEST_CASE("spectral_norm at the edges: zero, huge, tiny, equal singular values, not finite") {
  const Tensor zero = zeros({3, 2}, DType::f64).requires_grad_();
  CHECK(spectral_norm(zero).item() == 0);
  CHECK(largest(grad(spectral_norm(zero), zero)) == 0);
  const Tensor w = with_singular_values(4, 3, {2, 1, 0.5}, 3);
  for (const double scale : {1e-200, 1e200})
    CHECK(spectral_norm(w * scale).item() / scale == doctest::Approx(2).epsilon(1e-13));
  // Equal ones: any leading pair is a subgradient; ⟨u vᵀ, W⟩ = σ.
  const Tensor same = with_singular_values(4, 3, {2, 2, 2}, 3).requires_grad_();
  CHECK(spectral_norm(same).item() == doctest::Approx(2).epsilon(1e-13));
  CHECK(dot(grad(spectral_norm(same), same), same) == doctest::Approx(2).epsilon(1e-13));
  CHECK(power_iteration(same).sigma.item() == doctest::Approx(2).epsilon(1e-13));
  // Nearly equal ones.
  const Tensor close = with_singular_values(30, 30, {1, 1 - 1e-9, 1 - 2e-9, 0.5}, 5);
  CHECK(spectral_norm(close).item() == doctest::Approx(1).epsilon(1e-14));
  const double power = power_iteration(close).sigma.item();
  CHECK(power == doctest::Approx(1).epsilon(1e-8));
  CHECK(power <= 1 + 1e-14);
  CHECK(std::isnan(spectral_norm(full({2, 2}, NAN, DType::f64)).item()));
  CHECK(std::isnan(spectral_norm(full({2, 2}, INFINITY, DType::f64)).item()));
}

TEST_CASE("spectral_norm has derivatives of two orders, also in wide matrices") {
  for (const Shape& shape : {Shape{4, 3}, Shape{3, 4}, Shape{2, 3, 3}, Shape{1, 4}}) {
    CAPTURE(shape.str());
    check_gradients([](const TensorList& in) { return TensorList{spectral_norm(in[0])}; },
                    {random(shape)});
  }
}

TEST_CASE("power iteration approaches from below, its vectors are constants") {
  const Tensor w = random({6, 4}).requires_grad_(), u0 = random({6}, 2);
  const double exact = spectral_norm(w).item();
  double previous = 0;
  for (int n = 1; n <= 8; ++n) {
    const PowerIteration p = power_iteration(w, u0, n);
    CHECK(p.sigma.item() <= exact * (1 + 1e-14));
    CHECK(p.sigma.item() >= previous * (1 - 1e-14));
    previous = p.sigma.item();
    CHECK_FALSE(p.u.requires_grad());
    const Tensor g = grad(p.sigma, w);
    CHECK(max_difference(g, unsqueeze(p.u, 1) * unsqueeze(p.v, 0)) < 1e-15);
  }
  const PowerIteration converged = power_iteration(w);
  CHECK(converged.sigma.item() == doctest::Approx(exact).epsilon(1e-13));
  CHECK(converged.iterations < 1000);
  CHECK(max_difference(grad(converged.sigma, w), grad(spectral_norm(w), w)) < 1e-6);
  CHECK(power_iteration(zeros({3, 2})).sigma.item() == 0);
}

TEST_CASE("spectral norms have the same bits for any number of threads") {
  const Tensor w = random({50, 12, 20});
  const auto run = [&](int threads) {
    const capsfw::testing::Threads guard(threads);
    return std::pair(spectral_norm(w), power_iteration(w).sigma);
  };
  const auto one = run(1);
  for (const int n : {2, 3}) {
    CHECK(same_bits(run(n).first, one.first));
    CHECK(same_bits(run(n).second, one.second));
  }
}

TEST_CASE("spectral norms say what is wrong") {
  CHECK(message_of<ShapeError>([] { spectral_norm(zeros({3})); }) ==
        "spectral_norm: takes matrices of at least one element on the last two axes; got [3]");
  CHECK_THROWS_AS(spectral_norm(zeros({3, 0})), ShapeError);
  CHECK_THROWS_AS(spectral_norm(zeros({3, 3}, DType::i64)), DTypeError);
  CHECK(message_of<ShapeError>([] {
          power_iteration(zeros({3, 2}), zeros({2}), 1);
        }) == "power_iteration: u0 must be f32 [3] for w = [3, 2]; got f32 [2]");
  CHECK(message_of<ValueError>([] {
          power_iteration(zeros({3, 2}), zeros({3}), 0);
        }) == "power_iteration: at least 1 iteration; got 0");
  CHECK_THROWS_AS(power_iteration(zeros({3, 2}), {.tolerance = 0}), ValueError);
  // A second derivative where the largest singular value is not simple.
  const Tensor same = eye(2, DType::f64).requires_grad_();
  const Tensor g = grad(spectral_norm(same), same, {}, {.create_graph = true});
  CHECK(contains(message_of<ValueError>([&] { grad(sum(g), same); }), "positive definite"));
}
