#include "ops_support.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// Visits every position of a shape of rank 3.
template <class F>
void each(const Shape& s, F f) {
  std::size_t flat = 0;
  for (std::int64_t i = 0; i < s[0]; ++i)
    for (std::int64_t j = 0; j < s[1]; ++j)
      for (std::int64_t k = 0; k < s[2]; ++k) f(Dims{i, j, k}, flat++);
}

std::size_t flat_of(const Dims& at, const Shape& s) {
  return static_cast<std::size_t>((at[0] * s[1] + at[1]) * s[2] + at[2]);
}

Tensor i64(const Indices& v) { return from_vector(v); }

}  // namespace

TEST_CASE("gather and scatter_add equal loops on every axis and any strides") {
  const Shape shape = {4, 3, 5};
  const Tensor x = swapped_storage(random(shape));
  REQUIRE_FALSE(x.is_contiguous());
  for (int axis = -3; axis < 3; ++axis) {
    const int a = axis < 0 ? axis + 3 : axis;
    Shape is = {2, 3, 4};  // shorter than x on the other axes
    is[a] = 7;             // longer on this one: repeats
    const Tensor index = swapped_storage(integers(is, shape[a]));
    const Tensor src = swapped_storage(random(is, 2));
    Values expected(static_cast<std::size_t>(is.numel())), added(60, 0.0);
    const Values xs = values(x), ss = values(src);
    const Indices ix = indices(index);
    each(is, [&](Dims at, std::size_t flat) {
      at[a] = ix[flat];
      expected[flat] = xs[flat_of(at, shape)];
      added[flat_of(at, shape)] += ss[flat];
    });
    CHECK(values(gather(x, axis, index)) == expected);
    check_close(values(scatter_add(shape, axis, index, src)), added);
    CHECK(dot(gather(x, axis, index), src) ==
          doctest::Approx(dot(x, scatter_add(shape, axis, index, src))));
  }
}

TEST_CASE("gather and scatter_add have gradients of both orders") {
  const Tensor index = integers({3, 6}, 4);
  check_gradients([&](const TensorList& in) { return TensorList{square(gather(in[0], 1, index))}; },
                  {random({3, 4})});
  check_gradients(
      [&](const TensorList& in) {
        return TensorList{square(scatter_add({3, 4}, 1, index, in[0]))};
      },
      {random({3, 6})});
}

TEST_CASE("index_select and index_add equal loops, with repeated and strided indices") {
  const Shape shape = {4, 3, 5};
  const Tensor x = swapped_storage(random(shape));
  for (int axis = -3; axis < 3; ++axis) {
    const int a = axis < 0 ? axis + 3 : axis;
    const Tensor index = slice(i64({2, 9, 0, 9, 2, 9, 1}), 0, 0, 7, 2);  // 2 0 2 1
    Shape ys = shape;
    ys[a] = 4;
    Values expected(static_cast<std::size_t>(ys.numel())), added(60, 0.0);
    const Tensor src = swapped_storage(random(ys, 2));
    const Values xs = values(x), ss = values(src);
    const Indices ix = indices(index);
    each(ys, [&](Dims at, std::size_t flat) {
      at[a] = ix[static_cast<std::size_t>(at[a])];
      expected[flat] = xs[flat_of(at, shape)];
      added[flat_of(at, shape)] += ss[flat];
    });
    CHECK(values(index_select(x, axis, index)) == expected);
    check_close(values(index_add(shape[a], axis, index, src)), added);
    check_gradients(
        [&](const TensorList& in) {
          return TensorList{square(index_select(in[0], axis, index)),
                            square(index_add(shape[a], axis, index, in[1]))};
        },
        {x, src});
  }
}

TEST_CASE("adding by index gives the same bits for any number of threads") {
  Rng rng(3);
  const Tensor index = rng.integers({5000}, 7), src = randn({5000, 33}, rng);
  const Tensor lines = rng.integers({5000, 33}, 7);
  const int before = num_threads();
  set_num_threads(1);
  const auto rows = index_add(7, 0, index, src).to_vector<float>();
  const auto scattered = scatter_add({7, 33}, 0, lines, src).to_vector<float>();
  for (int n : {2, 3, 7}) {
    set_num_threads(n);
    CHECK(index_add(7, 0, index, src).to_vector<float>() == rows);
    CHECK(scatter_add({7, 33}, 0, lines, src).to_vector<float>() == scattered);
  }
  set_num_threads(before);
}

TEST_CASE("embedding reads rows by ids of any shape and adds the gradients of repeated ids") {
  const Tensor table = random({5, 2}).requires_grad_();
  const Tensor ids = from_vector(Indices{1, 4, 1, 1, 0, 4}, {2, 3});
  const Tensor y = embedding(table, ids);
  CHECK(y.shape() == Shape{2, 3, 2});
  CHECK(select(select(y, 0, 1), 0, 1).to_vector<double>() ==
        select(table, 0, 0).to_vector<double>());
  CHECK(values(grad(sum(y), table)) == Values{1, 1, 3, 3, 0, 0, 0, 0, 2, 2});
  CHECK(embedding(table, from_vector(Indices{3}, Shape{})).shape() == Shape{2});
  check_gradients([&](const TensorList& in) { return TensorList{square(embedding(in[0], ids))}; },
                  {random({5, 2})});
  CHECK_THROWS_WITH_AS(embedding(table, i64({0, 5})),
                       "embedding: indices must lie in [0, 5), the rows of the table; got 5 at "
                       "position 1 of [2]",
                       ValueError);
  CHECK_THROWS_WITH_AS(embedding(ones({3}), ids), doctest::Contains("must be [V, E]; got [3]"),
                       ShapeError);
}

TEST_CASE("one_hot sets one element per label") {
  const Tensor y = one_hot(from_vector(Indices{2, 0}, {2, 1}), 3, DType::f64);
  CHECK(y.shape() == Shape{2, 1, 3});
  CHECK(values(y) == Values{0, 0, 1, 1, 0, 0});
  CHECK(one_hot(i64({1}), 2).dtype() == DType::f32);
  CHECK(one_hot(i64({1}), 2, DType::b8).to_vector<bool>() == std::vector<bool>{false, true});
  CHECK(one_hot(i64({}), 4).shape() == Shape{0, 4});
  CHECK_THROWS_WITH_AS(one_hot(i64({0, -1}), 3),
                       doctest::Contains("[0, 3), the number of classes; got -1"), ValueError);
  CHECK_THROWS_AS(one_hot(i64({0}), 0), ValueError);
}

TEST_CASE("multi_hot sets one element for each label of a row, repeated ones once") {
  const Tensor y = multi_hot(from_vector(Indices{2, 0, 1, 1}, {2, 1, 2}), 3, DType::f64);
  CHECK(y.shape() == Shape{2, 1, 3});
  CHECK(values(y) == Values{1, 0, 1, 0, 1, 0});
  CHECK(multi_hot(i64({1}), 2).dtype() == DType::f32);
  CHECK(multi_hot(i64({1, 3}), 4, DType::b8).to_vector<bool>() ==
        std::vector<bool>{false, true, false, true});
  const Tensor columns = transpose(from_vector(Indices{0, 1, 2, 3}, {2, 2}), 0, 1);
  CHECK(values(multi_hot(columns, 4, DType::f64)) == Values{1, 0, 1, 0, 0, 1, 0, 1});
  CHECK(multi_hot(zeros({0, 2}, DType::i64), 4).shape() == Shape{0, 4});
  CHECK(values(multi_hot(zeros({1, 0}, DType::i64), 2, DType::f64)) == Values{0, 0});
  CHECK_THROWS_WITH_AS(multi_hot(i64({0, 3}), 3),
                       doctest::Contains("multi_hot: indices must lie in [0, 3)"), ValueError);
  CHECK_THROWS_AS(multi_hot(i64({0}), 0), ValueError);
  CHECK_THROWS_WITH_AS(multi_hot(from_vector(Indices{1}, {}), 3),
                       doctest::Contains("multi_hot: takes labels [..., K]; got []"), ShapeError);
}

TEST_CASE("masked_fill replaces values and cuts their gradient") {
  const Tensor x = from_vector(Values{1, kNan, 3, 4}, {2, 2}).requires_grad_();
  const Tensor mask = from_vector(std::vector<bool>{false, true});
  const Tensor y = masked_fill(x, mask, -kInf);
  CHECK(values(y) == Values{1, -kInf, 3, -kInf});
  CHECK(values(grad(y, x, ones({2, 2}, DType::f64))) == Values{1, 0, 1, 0});
  check_gradients(
      [&](const TensorList& in) { return TensorList{square(masked_fill(in[0], mask, 2.0))}; },
      {random({2, 2})});
  CHECK_THROWS_AS(masked_fill(x, ones({2, 2}), 0), DTypeError);
  CHECK_THROWS_WITH_AS(masked_fill(x, full({3, 2}, 1, DType::b8), 0),
                       doctest::Contains("x = [2, 2], mask = [3, 2]"), ShapeError);
}

TEST_CASE("sort is stable, keeps any strides and puts NaN where the largest belong") {
  const Tensor x = from_vector(Values{2, kNan, 1, 2, -kInf, kInf, 1, kNan});
  const Sorted up = sort(x), down = sort(x, 0, true);
  CHECK(indices(up.indices) == Indices{4, 2, 6, 0, 3, 5, 1, 7});
  CHECK(indices(down.indices) == Indices{1, 7, 5, 0, 3, 2, 6, 4});
  CHECK(std::isnan(values(up.values)[7]));
  CHECK(values(up.values)[5] == kInf);
  CHECK(indices(argsort(x, -1, true)) == indices(down.indices));

  const Tensor wide = swapped_storage(integers({5, 40, 3}, 6));  // many ties
  for (int axis = -3; axis < 3; ++axis)
    for (const bool descending : {false, true}) {
      const int a = axis < 0 ? axis + 3 : axis;
      const Indices where = indices(argsort(wide, axis, descending)), all = indices(wide);
      const auto value = [&](Dims at, std::int64_t k) {
        at[a] = k;
        return all[flat_of(at, wide.shape())];
      };
      each(wide.shape(), [&](const Dims& at, std::size_t flat) {
        if (at[a] != 0) return;
        Indices expected(static_cast<std::size_t>(wide.shape()[a]));
        std::iota(expected.begin(), expected.end(), 0);
        std::stable_sort(expected.begin(), expected.end(), [&](std::int64_t i, std::int64_t j) {
          return descending ? value(at, i) > value(at, j) : value(at, i) < value(at, j);
        });
        const auto step = static_cast<std::size_t>(contiguous_strides(wide.shape())[a]);
        for (std::size_t k = 0; k < expected.size(); ++k)
          REQUIRE(where[flat + k * step] == expected[k]);
      });
      CHECK(indices(sort(wide, axis, descending).values) ==
            indices(gather(wide, axis, argsort(wide, axis, descending))));
    }
  CHECK(indices(argsort(from_vector(std::vector<bool>{true, false, true}))) == Indices{1, 0, 2});
}

TEST_CASE("topk takes the first of equal elements and is the head of sort") {
  const Tensor x = from_vector(Values{1, 3, kNan, 3, 2});
  CHECK(indices(topk(x, 3).indices) == Indices{2, 1, 3});
  CHECK(indices(topk(x, 4, 0, false).indices) == Indices{0, 4, 1, 3});
  const Tensor y = swapped_storage(random({6, 4, 5}));
  for (int axis = 0; axis < 3; ++axis)
    for (std::int64_t k = 0; k <= y.size(axis); ++k)
      for (const bool largest : {false, true}) {
        const Sorted top = topk(y, k, axis, largest), full = sort(y, axis, largest);
        CHECK(values(top.values) == values(slice(full.values, axis, 0, k)));
        CHECK(indices(top.indices) == indices(slice(full.indices, axis, 0, k)));
      }
  CHECK_THROWS_WITH_AS(topk(x, 6), "topk: k must lie in [0, 5], the length of axis 0 of [5]; got 6",
                       ValueError);
  CHECK_THROWS_AS(topk(x, -1), ValueError);
  CHECK_THROWS_AS(topk(x, 1, 1), ShapeError);
}

TEST_CASE("the values of sort and topk are differentiable") {
  const auto fn = [](const TensorList& in) {
    return TensorList{square(sort(in[0], 0).values), square(topk(in[0], 2, -1).values)};
  };
  check_gradients(fn, {random({4, 3})});
  const Tensor x = from_vector(Values{5, 5, 1}).requires_grad_();
  CHECK(values(grad(sum(topk(x, 1).values), x)) == Values{1, 0, 0});
}

TEST_CASE("index ops work on empty tensors and on single elements") {
  const Tensor none = empty({0}, DType::i64), x = random({3, 2});
  CHECK(index_select(x, 0, none).shape() == Shape{0, 2});
  CHECK(values(index_add(3, 0, none, random({0, 2}))) == Values(6, 0.0));
  CHECK(gather(x, 1, empty({3, 0}, DType::i64)).shape() == Shape{3, 0});
  CHECK(values(scatter_add({3, 2}, 1, empty({3, 0}, DType::i64), random({3, 0}))) ==
        Values(6, 0.0));
  CHECK(embedding(x, empty({2, 0}, DType::i64)).shape() == Shape{2, 0, 2});
  for (int axis : {0, 1}) {
    CHECK(sort(empty({0, 3}), axis).values.shape() == Shape{0, 3});
    CHECK(topk(empty({0, 3}), 0, axis).indices.shape()[axis] == 0);
  }
  CHECK(index_select(empty({0, 3}), 1, i64({2, 2})).shape() == Shape{0, 2});
  CHECK(values(sort(ones({1}, DType::f64)).values) == Values{1});
  CHECK(values(gather(ones({1, 1}, DType::f64), 0, zeros({1, 1}, DType::i64))) == Values{1});
  const Tensor leaf = random({3, 2}).requires_grad_();
  CHECK(values(grad(index_select(leaf, 0, none), leaf, random({0, 2}))) == Values(6, 0.0));
}

TEST_CASE("wrong indices are named") {
  const Tensor x = random({2, 5});
  CHECK_THROWS_WITH_AS(gather(x, 1, from_vector(Indices{0, 4, 5, 1}, {2, 2})),
                       "gather: indices must lie in [0, 5), the length of axis 1 of [2, 5]; got 5 "
                       "at position 2 of [2, 2]",
                       ValueError);
  CHECK_THROWS_WITH_AS(index_select(x, 0, i64({-1})),
                       "index_select: indices must lie in [0, 2), the length of axis 0 of [2, 5]; "
                       "got -1 at position 0 of [1]",
                       ValueError);
  CHECK_THROWS_WITH_AS(index_select(empty({0, 2}), 0, i64({0})), doctest::Contains("[0, 0)"),
                       ValueError);
  CHECK_THROWS_WITH_AS(index_add(2, 0, i64({2}), ones({1, 3})),
                       doctest::Contains("[0, 2), the number of rows; got 2"), ValueError);
  CHECK_THROWS_WITH_AS(scatter_add({2, 2}, 0, full({1, 2}, 2, DType::i64), ones({1, 2})),
                       doctest::Contains("scatter_add: indices must lie in [0, 2)"), ValueError);
  CHECK_THROWS_WITH_AS(gather(x, 0, ones({1, 5})), doctest::Contains("must be i64; got f32 [1, 5]"),
                       DTypeError);
  CHECK_THROWS_WITH_AS(gather(x, 1, zeros({3, 1}, DType::i64)),
                       doctest::Contains("x = [2, 5], index = [3, 1]"), ShapeError);
  CHECK_THROWS_AS(gather(x, 1, i64({0})), ShapeError);
  CHECK_THROWS_AS(gather(x, 2, zeros({2, 5}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(index_select(x, 0, zeros({1, 1}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(index_add(3, 0, i64({0, 1}), ones({3, 2})), ShapeError);
  CHECK_THROWS_AS(index_add(-1, 0, i64({}), ones({0, 2})), ValueError);
  CHECK_THROWS_AS(scatter_add({2, 2}, 0, zeros({1, 2}, DType::i64), ones({2, 2})), ShapeError);
  CHECK_THROWS_AS(index_add(2, 0, i64({0}), full({1}, 1, DType::b8)), DTypeError);
}
