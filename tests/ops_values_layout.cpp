// Views, shapes and products: values, sharing, and the texts of errors.

#include <doctest/doctest.h>

#include <capsfw/core/random.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Ints = std::vector<std::int64_t>;

namespace {

Tensor grid(const Shape& shape) { return reshape(arange(shape.numel()), shape); }
Ints ints(const Tensor& x) { return x.to_vector<std::int64_t>(); }
bool shares(const Tensor& a, const Tensor& b) { return a.storage() == b.storage(); }

}  // namespace

TEST_CASE("expanded and flipped matrices multiply as their copies do") {
  Rng rng(1);
  const Tensor a = rng.normal({40, 50}, 0, 1, DType::f64),
               b = rng.normal({50, 60}, 0, 1, DType::f64);
  const auto same = [](const Tensor& x, const Tensor& y) {
    CHECK(max_difference(matmul(x, y), matmul(contiguous(x), contiguous(y))) < 1e-12);
    CHECK(max_difference(einsum("ij,jk->ik", x, y), matmul(contiguous(x), contiguous(y))) < 1e-12);
  };
  same(broadcast_to(narrow(a, 0, 0, 1), {40, 50}), b);
  same(broadcast_to(narrow(a, 1, 0, 1), {40, 50}), b);
  same(a, broadcast_to(narrow(b, 0, 0, 1), {50, 60}));
  same(a, broadcast_to(narrow(b, 1, 0, 1), {50, 60}));
  same(flip(a, {0}), flip(b, {1}));
}

TEST_CASE("views share memory, copies do not") {
  const Tensor x = grid({2, 3, 4});
  CHECK(shares(permute(x, {2, 0, 1}), x));
  CHECK(shares(slice(x, 1, 0, 2), x));
  CHECK(shares(select(x, 0, 1), x));
  CHECK(shares(flip(x, {1}), x));
  CHECK(shares(broadcast_to(x, {5, 2, 3, 4}), x));
  CHECK(shares(reshape(x, {6, 4}), x));
  CHECK(shares(unsqueeze(x, 0), x));
  CHECK(shares(diagonal(grid({3, 3})), grid({3, 3})) == false);
  const Tensor square = grid({3, 3});
  CHECK(shares(diagonal(square), square));
  CHECK(shares(split(x, 2, 1)[1], x));
  CHECK(shares(contiguous(x), x));
  CHECK_FALSE(shares(contiguous(permute(x, {2, 0, 1})), x));
  CHECK_FALSE(shares(cat({x}), x));
}

TEST_CASE("reshape of a view: shared where the strides allow it, right in any case") {
  const Tensor x = grid({4, 6});
  const Tensor half = slice(x, 0, 0, 4, 2);  // rows 0 and 2
  CHECK(shares(reshape(half, {2, 3, 2}), x));
  CHECK(ints(reshape(half, {2, 3, 2})) == Ints{0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17});
  CHECK_FALSE(shares(reshape(half, {12}), x));
  CHECK(ints(reshape(half, {12})) == ints(half));
  const Tensor t = transpose(x);
  CHECK_FALSE(shares(reshape(t, {24}), x));
  CHECK(ints(reshape(t, {3, 8})) == ints(t));
  CHECK(ints(reshape(flip(x, {0, 1}), {24}))[0] == 23);
  CHECK(reshape(x, {-1, 8}).shape() == Shape{3, 8});
  CHECK(reshape(zeros({0, 3}), {3, -1}).shape() == Shape{3, 0});
  CHECK(reshape(scalar(1), {1, 1}).shape() == Shape{1, 1});
  CHECK(message_of<ShapeError>([&] {
          reshape(x, {5, 5});
        }) == "reshape: the sizes must be equal; got x = [4, 6] (24 elements), target = [5, 5]");
  CHECK_THROWS_AS(reshape(x, {-1, 7}), ShapeError);
  CHECK_THROWS_AS(reshape(x, {-1, -1}), ShapeError);
  CHECK_THROWS_AS(reshape(x, {-2, 12}), ShapeError);
  CHECK_THROWS_AS(reshape(zeros({0}), {-1, 0}), ShapeError);
  CHECK_THROWS_AS(reshape(x, {std::int64_t{1} << 62, 4, -1}), ShapeError);
}

TEST_CASE("slice: negative bounds, clipping, steps") {
  const Tensor x = arange(6);
  CHECK(ints(slice(x, 0, -2, 99)) == Ints{4, 5});
  CHECK(ints(slice(x, 0, -99, 2)) == Ints{0, 1});
  CHECK(ints(slice(x, 0, 1, 6, 2)) == Ints{1, 3, 5});
  CHECK(ints(slice(x, 0, 1, 5, 3)) == Ints{1, 4});
  CHECK(ints(slice(x, 0, 4, 2)).empty());
  CHECK(ints(slice(x, 0, INT64_MIN, INT64_MAX, INT64_MAX)) == Ints{0});
  CHECK(contains(message_of<ValueError>([&] { slice(x, 0, 0, 6, 0); }), "Hint: flip() reverses"));
  CHECK(ints(narrow(x, 0, 6, 0)).empty());
  CHECK(contains(message_of<ShapeError>([&] { narrow(x, 0, 4, 3); }),
                 "narrow: axis 0 has no 3 elements from 4 on; got x = [6]"));
  CHECK_THROWS_AS(narrow(x, 0, 1, INT64_MAX), ShapeError);
  CHECK(select(x, 0, -1).item() == 5);
  CHECK_THROWS_AS(select(x, 0, 6), ShapeError);
  CHECK_THROWS_AS(select(x, 0, -7), ShapeError);
}

TEST_CASE("permute, transpose, squeeze, unsqueeze, flatten") {
  const Tensor x = grid({2, 3});
  CHECK(ints(transpose(x)) == Ints{0, 3, 1, 4, 2, 5});
  CHECK(ints(permute(x, {-1, 0})) == Ints{0, 3, 1, 4, 2, 5});
  CHECK(contains(message_of<ShapeError>([&] { permute(x, {0, 0}); }), "must name every axis once"));
  CHECK_THROWS_AS(permute(x, {0}), ShapeError);
  CHECK_THROWS_AS(transpose(arange(3)), ShapeError);
  CHECK(contains(message_of<ShapeError>([&] { squeeze(x, 0); }), "must have length 1"));
  CHECK(unsqueeze(x, -1).shape() == Shape{2, 3, 1});
  CHECK_THROWS_AS(unsqueeze(x, 3), ShapeError);
  CHECK_THROWS_AS(unsqueeze(ones({1, 1, 1, 1, 1, 1, 1, 1}), 0), ShapeError);
  CHECK(flatten(scalar(1)).shape() == Shape{1});
  CHECK_THROWS_AS(flatten(x, 1, 0), ShapeError);
}

TEST_CASE("pad counts axes from the last, as in PyTorch") {
  CHECK(ints(pad(from_vector<std::int64_t>({1, 2}, {1, 2}), {1, 2, 0, 1})) ==
        Ints{0, 1, 2, 0, 0, 0, 0, 0, 0, 0});
  CHECK(pad(zeros({1, 1, 1, 1, 2}), {0, 1, 0, 2, 0, 3, 0, 4, 0, 5}).shape() ==
        Shape{6, 5, 4, 3, 3});
  CHECK_THROWS_AS(pad(arange(3), {1}), ShapeError);
  CHECK_THROWS_AS(pad(arange(3), {1, 1, 1, 1}), ShapeError);
  CHECK(contains(message_of<ValueError>([] { pad(arange(3), {-1, 0}); }), "Hint: slice()"));
}

TEST_CASE("cat, stack and split") {
  const Tensor a = grid({2, 2}), b = grid({2, 1});
  CHECK(ints(cat({a, b}, 1)) == Ints{0, 1, 0, 2, 3, 1});
  CHECK(ints(stack({arange(2), arange(2) + 5}, 1)) == Ints{0, 5, 1, 6});
  CHECK(split(arange(5), 2).size() == 3);
  CHECK(ints(split(arange(5), 2)[2]) == Ints{4});
  CHECK(split(arange(5), Ints{2, 3})[1].shape() == Shape{3});
  CHECK(split(arange(12), {1, 1, 1, 1, 1, 1, 1, 1, 1, 3})[9].shape() == Shape{3});
  const std::string text = message_of<ShapeError>([&] { cat({a, b}, 0); });
  CHECK(contains(text, "part 0 = [2, 2] i64, part 1 = [2, 1] i64"));
  CHECK_THROWS_AS(cat({}), ShapeError);
  CHECK_THROWS_AS(cat({a, ones({2, 2})}), ShapeError);
  CHECK_THROWS_AS(stack({a, b}), ShapeError);
  CHECK_THROWS_AS(split(arange(5), 0), ValueError);
  CHECK(contains(message_of<ShapeError>([] {
                   split(arange(5), Ints{2, 2});
                 }),
                 "the lengths must add up to axis 0 of [5]; got [2, 2]"));
  CHECK_THROWS_AS(split(arange(5), Ints{2, 4}), ShapeError);
}

TEST_CASE("flip, diagonal and slice_scatter") {
  CHECK(ints(flip(grid({2, 2}), {0})) == Ints{2, 3, 0, 1});
  CHECK(ints(flip(grid({2, 2}), {0, 1})) == Ints{3, 2, 1, 0});
  CHECK(ints(diagonal(grid({2, 3, 3}))) == Ints{0, 4, 8, 9, 13, 17});
  CHECK_THROWS_AS(diagonal(grid({2, 3})), ShapeError);
  CHECK(ints(slice_scatter(arange(2) + 1, {5}, 0, 1, 4, 2)) == Ints{0, 1, 0, 2, 0});
  CHECK(contains(message_of<ShapeError>([] { slice_scatter(arange(3), {5}, 0, 1, 3); }),
                 "got x = [3], slice = [2] of [5]"));
}

TEST_CASE("matmul: values, vectors, and an error with both shapes and a hint") {
  const Tensor a = to(grid({2, 3}), DType::f64), b = to(grid({3, 2}), DType::f64);
  CHECK(values(matmul(a, b)) == std::vector<double>{10, 13, 28, 40});
  CHECK(matmul(select(a, 0, 0), b).shape() == Shape{2});
  CHECK(matmul(a, select(a, 0, 0)).shape() == Shape{2});
  CHECK(matmul(select(a, 0, 1), select(a, 0, 1)).item() == 50);
  CHECK(matmul(a, transpose(a)).shape() == Shape{2, 2});
  CHECK(message_of<ShapeError>([] {
          matmul(zeros({32, 1152, 8}), zeros({1152, 16, 8}));
        }) ==
        "matmul: a.shape[-1] must equal b.shape[-2]; got a = [32, 1152, 8], b = [1152, 16, "
        "8] (8 vs 16). Hint: transpose(b)?");
  CHECK(contains(message_of<ShapeError>([&] { matmul(a, a); }), "(3 vs 2). Hint"));
  CHECK_FALSE(contains(message_of<ShapeError>([&] {
                         matmul(a, zeros({4, 2}, DType::f64));
                       }),
                       "Hint"));
  CHECK_THROWS_AS(matmul(zeros({2, 3, 4}), zeros({3, 4, 5})), ShapeError);
  CHECK(contains(message_of<ShapeError>([] { matmul(scalar(1), ones({2})); }), "Hint: a * b"));
  CHECK_THROWS_AS(matmul(a, zeros({3, 2})), DTypeError);
  CHECK_THROWS_AS(matmul(arange(3), arange(3)), DTypeError);
}

TEST_CASE("matmul and einsum agree with sums of products, for any layout and size") {
  Rng rng(1);
  for (const std::int64_t n : {1, 2, 7, 33, 130}) {
    const Tensor a = randn({n, 5, n + 1}, rng, DType::f64),
                 b = randn({n, n + 1, 3}, rng, DType::f64);
    const Tensor expected = sum(unsqueeze(a, -1) * unsqueeze(b, 1), {2});
    CHECK(max_difference(matmul(a, b), expected) < 1e-11);
    CHECK(max_difference(einsum("bij,bjk->bik", a, b), expected) < 1e-11);
    CHECK(max_difference(einsum("bij,bjk->kib", a, b), permute(expected, {2, 1, 0})) < 1e-11);
    const Tensor fa = flip(a, {0, 1, 2}), fb = flip(b, {0, 1, 2});
    CHECK(max_difference(matmul(fa, fb), flip(expected, {0, 1, 2})) < 1e-11);
    CHECK(max_difference(einsum("bij,bjk->bik", fa, fb), flip(expected, {0, 1, 2})) < 1e-11);
  }
}

TEST_CASE("einsum says what is wrong with an equation") {
  const Tensor a = zeros({2, 3}), b = zeros({3, 4});
  const auto text = [&](std::string_view e) {
    return message_of<ShapeError>([&] { einsum(e, a, b); });
  };
  CHECK(contains(text("ij,jk"), "must look like 'ij,jk->ik'; got 'ij,jk'"));
  CHECK(contains(text("ij->i"), "must look like"));
  CHECK(contains(text("ii,jk->ik"), "once per operand"));
  CHECK(contains(text("ij,jk->ix"), "letter 'x' of the result occurs in no operand"));
  CHECK(contains(text("i1,jk->ik"), "axes are named by letters"));
  CHECK(contains(text("ijk,jk->ik"),
                 "one letter per axis; got 'ijk,jk->ik' for a = [2, 3], b = [3, 4]"));
  CHECK(contains(text("ij,ik->jk"), "letter 'i' must have one length"));
  CHECK(contains(text("ij,ik->jk"), "(2 vs 3)"));
  CHECK(contains(text("abcdefghi,jk->ik"), "at most eight letters"));
  CHECK_THROWS_AS(einsum("ij,jk->ik", a, zeros({3, 4}, DType::f64)), DTypeError);
}

TEST_CASE("linear names the sizes of the layer") {
  CHECK(message_of<ShapeError>([] {
          linear(zeros({2, 3}), zeros({5, 4}));
        }) ==
        "linear: x [..., in], weight [out, in], bias [out]; got x = [2, 3], weight = [5, 4], bias "
        "= none");
  CHECK_THROWS_AS(linear(zeros({2, 4}), zeros({5, 4}), zeros({4})), ShapeError);
  CHECK(linear(zeros({4}), zeros({5, 4})).shape() == Shape{5});
  CHECK(linear(zeros({2, 1, 4}), zeros({5, 4}), ones({5})).shape() == Shape{2, 1, 5});
}
