#include "ops_support.hpp"

#include <cmath>
#include <limits>

#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/linalg.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

/// S Sᵀ + n I.
Tensor positive(const Tensor& s) {
  return matmul(s, transpose(s)) + eye(s.size(-1), DType::f64) * static_cast<double>(s.size(-1));
}

}  // namespace

TEST_CASE("tril and triu keep their triangle on any diagonal") {
  const Tensor x = swapped_storage(random({2, 3, 4}));
  const Values xs = values(x);
  for (std::int64_t offset = -4; offset <= 4; ++offset) {
    const Values low = values(tril(x, offset)), up = values(triu(x, offset));
    for (std::int64_t i = 0; i < 24; ++i) {
      const std::int64_t row = i / 4 % 3, column = i % 4;
      const auto at = static_cast<std::size_t>(i);
      CHECK(low[at] == (column - row <= offset ? xs[at] : 0.0));
      CHECK(up[at] == (column - row >= offset ? xs[at] : 0.0));
    }
    check_gradients(
        [&](const TensorList& in) {
          return TensorList{square(tril(in[0], offset)), square(triu(in[0], offset))};
        },
        {x});
  }
  CHECK(tril(empty({0, 3})).shape() == Shape{0, 3});
  CHECK(triu(empty({3, 0})).shape() == Shape{3, 0});
  CHECK_THROWS_AS(tril(ones({3})), ShapeError);
}

TEST_CASE("cholesky multiplies back to the matrix, alone and in batches") {
  for (const Shape& shape : {Shape{1, 1}, Shape{5, 5}, Shape{2, 3, 4, 4}}) {
    const Tensor a = positive(random(shape)), l = cholesky(a);
    CHECK(allclose(matmul(l, transpose(l)), a, 1e-12));
    CHECK(values(l) == values(tril(l)));
  }
  const Tensor a = from_vector(Values{4, 2, 2, 5}, {2, 2});
  CHECK(values(cholesky(a)) == Values{2, 0, 1, 2});
  // The symmetric part counts, not one of the triangles.
  CHECK(values(cholesky(from_vector(Values{4, 1, 3, 5}, {2, 2}))) == Values{2, 0, 1, 2});
  CHECK(cholesky(empty({0, 3, 3})).shape() == Shape{0, 3, 3});
  CHECK(cholesky(empty({2, 0, 0})).shape() == Shape{2, 0, 0});
  const Tensor strided = swapped_storage(from_vector(Values{4, 1, 3, 5}, {2, 2}));
  CHECK(values(cholesky(strided)) == Values{2, 0, 1, 2});
  CHECK(cholesky(to(a, DType::f32)).to_vector<float>() == std::vector<float>{2, 0, 1, 2});
}

TEST_CASE("cholesky has gradients of both orders, also for matrices that are not symmetric") {
  const auto fn = [](const TensorList& in) { return TensorList{cholesky(in[0])}; };
  check_gradients(fn, {positive(random({4, 4})) + random({4, 4}, 2) * 0.1});
  check_gradients(fn, {positive(random({2, 3, 3}))});
}

TEST_CASE("cholesky gives the log determinant and a quadratic form") {
  check_gradients(
      [](const TensorList& in) {
        const Tensor l = cholesky(positive(in[0]));
        const Tensor w = triangular_solve(l, unsqueeze(in[1], -1));
        return TensorList{sum(log(diagonal(l))) * 2.0, sum(square(w))};
      },
      {random({3, 3}), random({3}, 2)});
}

TEST_CASE("cholesky names the matrix that is not positive definite") {
  Tensor a = zeros({2, 3, 2, 2}, DType::f64);
  a.copy_(broadcast_to(eye(2, DType::f64), {2, 3, 2, 2}));
  a.mutable_data<double>()[4 * 4 + 3] = -1;
  CHECK_THROWS_WITH_AS(cholesky(a),
                       "cholesky: every matrix must be positive definite; matrix 4 of the 6 in "
                       "[2, 3, 2, 2] fails at row 1. Hint: add a small multiple of eye(n)",
                       ValueError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS(cholesky(full({1, 1}, nan, DType::f64)), ValueError);
  CHECK_THROWS_AS(cholesky(full({1, 1}, 1 / 0.0, DType::f64)), ValueError);
  CHECK_THROWS_AS(cholesky(zeros({2, 2})), ValueError);
  CHECK_THROWS_WITH_AS(cholesky(ones({2, 3})),
                       "cholesky: takes square matrices on the last two "
                       "axes; got [2, 3]",
                       ShapeError);
  CHECK_THROWS_AS(cholesky(ones({2})), ShapeError);
  CHECK_THROWS_AS(cholesky(ones({2, 2}, DType::i64)), DTypeError);
}

TEST_CASE("triangular_solve inverts the product, reading one triangle") {
  for (const bool upper : {false, true})
    for (const bool transposed : {false, true}) {
      const SolveOptions options = {.upper = upper, .transpose = transposed};
      const Tensor m = random({3, 4, 4}) + eye(4, DType::f64) * 4.0;
      const Tensor b = swapped_storage(random({2, 1, 4, 2}, 2));
      const Tensor x = triangular_solve(m, b, options);
      CHECK(x.shape() == Shape{2, 3, 4, 2});
      const Tensor t = upper ? triu(m) : tril(m);
      const Tensor back = matmul(transposed ? transpose(t) : t, x);
      CHECK(allclose(back, broadcast_to(b, {2, 3, 4, 2}), 1e-10, 1e-12));
      CHECK(values(triangular_solve(swapped_storage(m), b, options)) == values(x));
      check_gradients(
          [&](const TensorList& in) { return TensorList{triangular_solve(in[0], in[1], options)}; },
          {m, b});
      check_gradients(
          [&](const TensorList& in) { return TensorList{triangular_solve(in[0], in[1], options)}; },
          {select(m, 0, 0), random({2, 4, 1})});
    }
}

TEST_CASE("triangular_solve: edge cases and errors") {
  CHECK(values(triangular_solve(full({1, 1}, 2, DType::f64), full({1, 1}, 6, DType::f64))) ==
        Values{3});
  CHECK(triangular_solve(eye(3), empty({3, 0})).shape() == Shape{3, 0});
  CHECK(triangular_solve(empty({0, 3, 3}), ones({3, 2})).shape() == Shape{0, 3, 2});
  CHECK(triangular_solve(empty({0, 0}), empty({0, 2})).shape() == Shape{0, 2});
  CHECK(std::isinf(triangular_solve(zeros({1, 1}), ones({1, 1})).item()));
  CHECK_THROWS_WITH_AS(triangular_solve(eye(3), ones({3})),
                       doctest::Contains("L = [3, 3], b = [3]. Hint: unsqueeze"), ShapeError);
  CHECK_THROWS_AS(triangular_solve(eye(3), ones({2, 1})), ShapeError);
  CHECK_THROWS_AS(triangular_solve(ones({2, 3}), ones({3, 1})), ShapeError);
  CHECK_THROWS_AS(triangular_solve(ones({2, 3, 3}), ones({4, 3, 1})), ShapeError);
  CHECK_THROWS_AS(triangular_solve(eye(3), ones({3, 1}, DType::f64)), DTypeError);
}

TEST_CASE("linear algebra gives the same bits for any number of threads") {
  const Tensor a = positive(random({300, 6, 6})), b = random({300, 6, 3}, 2);
  const int before = num_threads();
  set_num_threads(1);
  const Values l = values(cholesky(a)), x = values(triangular_solve(cholesky(a), b));
  for (int n : {2, 3, 7}) {
    set_num_threads(n);
    CHECK(values(cholesky(a)) == l);
    CHECK(values(triangular_solve(cholesky(a), b)) == x);
  }
  set_num_threads(before);
}
