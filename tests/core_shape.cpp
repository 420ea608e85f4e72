// Dims and the rules of broadcasting.

#include <limits>

#include <doctest/doctest.h>

#include <capsfw/core/shape.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("Dims holds up to eight numbers by value") {
  Dims d = {2, 3};
  d.push_back(4);
  d.insert(0, 1);
  CHECK(d == Dims{1, 2, 3, 4});
  d.erase(1);
  CHECK(d == Dims{1, 3, 4});
  CHECK(d.back() == 4);
  CHECK(d.str() == "[1, 3, 4]");
  CHECK(Dims{}.str() == "[]");
  CHECK(Dims{}.empty());
  CHECK(Dims{}.numel() == 1);
  CHECK(Dims{3, 0, 5}.numel() == 0);
  CHECK(Dims{1, 2} != Dims{1, 2, 1});
  CHECK(Dims::filled(3, 7) == Dims{7, 7, 7});
  CHECK(Dims::filled(8, 1).rank() == 8);
}

TEST_CASE("a ninth axis and a size beyond 63 bits are errors") {
  CHECK(message_of<ShapeError>([] {
          Dims({1, 1, 1, 1, 1, 1, 1, 1, 1});
        }) == "shape: at most 8 axes; got 9");
  Dims full = Dims::filled(8, 2);
  CHECK_THROWS_AS(full.push_back(1), ShapeError);
  CHECK_THROWS_AS(full.insert(0, 1), ShapeError);
  CHECK(full.rank() == 8);
  const std::int64_t big = std::int64_t{1} << 32;
  CHECK(contains(message_of<ShapeError>([=] { (void)Dims({big, big}).numel(); }), "2^63"));
  CHECK(Dims{big, big, 0}.numel() == 0);
}

TEST_CASE("an axis that is not there is neither read, put nor removed") {
  Dims none, two = {4, 5};
  CHECK_THROWS_WITH_AS(none.back(), "shape: [] has no last axis", ShapeError);
  CHECK_THROWS_WITH_AS(
      two.erase(2), "shape: the axis to remove must lie in [0, 2) for [4, 5]; got 2", ShapeError);
  CHECK_THROWS_AS(none.erase(0), ShapeError);
  CHECK_THROWS_AS(two.erase(-1), ShapeError);
  CHECK_THROWS_AS(two.insert(3, 1), ShapeError);
  CHECK_THROWS_AS(two.insert(-1, 1), ShapeError);
  two.insert(2, 6);
  none.insert(0, 7);
  CHECK(two == Dims{4, 5, 6});
  CHECK(none.back() == 7);
}

TEST_CASE("row-major strides") {
  constexpr std::int64_t kHuge = 1LL << 40;
  CHECK(zeros({0, kHuge, kHuge}).numel() == 0);  // no overflow
  CHECK(zeros({kHuge, kHuge, kHuge, 0}).numel() == 0);
  CHECK(zeros({0, kHuge, kHuge}).to_vector<float>().empty());
  CHECK(flip(zeros({0, kHuge, kHuge}), {0, 1, 2}).numel() == 0);
  CHECK(contiguous_strides({2, 3, 4}) == Strides{12, 4, 1});
  CHECK(contiguous_strides({}) == Strides{});
  CHECK(contiguous_strides({2, 0, 4}).rank() == 3);
}

TEST_CASE("shapes broadcast as in NumPy") {
  CHECK(broadcast_shapes({2, 3}, {3}, "op") == Shape{2, 3});
  CHECK(broadcast_shapes({}, {4}, "op") == Shape{4});
  CHECK(broadcast_shapes({2, 1, 4}, {3, 1}, "op") == Shape{2, 3, 4});
  CHECK(broadcast_shapes({0}, {1}, "op") == Shape{0});
  CHECK(broadcast_shapes({2, 0}, {1, 1}, "op") == Shape{2, 0});
  CHECK(message_of<ShapeError>([] {
          broadcast_shapes({2, 3}, {2, 4, 5}, "mul");
        }) ==
        "mul: shapes must broadcast: equal or 1 on every axis counted from the last; got a = [2, "
        "3], b = [2, 4, 5] (3 vs 5 on axis -1)");
  CHECK(contains(message_of<ShapeError>([] { broadcast_shapes({0}, {2}, "x"); }), "0 vs 2"));
  CHECK(broadcastable_to({3, 1}, {2, 3, 4}));
  CHECK_FALSE(broadcastable_to({2, 3}, {3}));
  CHECK_FALSE(broadcastable_to({3}, {1}));
}

TEST_CASE("an op on shapes that do not broadcast names itself and both of them") {
  const std::string text = message_of<ShapeError>([] { add(zeros({2, 3}), zeros({4})); });
  CHECK(contains(text, "add: "));
  CHECK(contains(text, "[2, 3]"));
  CHECK(contains(text, "[4]"));
  CHECK(message_of<ShapeError>([] {
          broadcast_to(zeros({2, 3}), {3});
        }) == "broadcast_to: every axis must be equal or 1; got x = [2, 3], target = [3]");
  CHECK_THROWS_AS(broadcast_to(zeros({1}), {-1}), ShapeError);
  CHECK_THROWS_AS(broadcast_to(zeros({}), {2, -3}), ShapeError);
  CHECK(contains(message_of<ShapeError>([] { sum_to(zeros({2, 3}), {2}); }), "sum_to"));
  const std::int64_t large = (std::int64_t{1} << 53) + 1;  // no double has it
  CHECK(sum_to(from_vector<std::int64_t>({large, 1}), {2}).to_vector<std::int64_t>()[0] == large);
  CHECK(contains(message_of<DTypeError>([] { add(zeros({1}), zeros({1}, DType::f64)); }),
                 "a = f32 [1], b = f64 [1]. Hint"));
}

TEST_CASE("axes may be negative, but must exist and be distinct") {
  CHECK(normalize_axis(-1, 3, "op") == 2);
  CHECK(normalize_axes({-1, 0}, 3, "op") == Axes{0, 2});
  CHECK(normalize_axes({}, 2, "op") == Axes{0, 1});
  CHECK(normalize_axes({}, 0, "op") == Axes{});
  CHECK(message_of<ShapeError>([] { normalize_axis(2, 2, "sum"); }) ==
        "sum: axis must lie in [-2, 2) for rank 2; got 2");
  CHECK_THROWS_AS(sum(zeros({2, 3}), {std::int64_t{1} << 32}), ShapeError);
  CHECK_THROWS_AS(permute(zeros({2, 3}), {1, std::int64_t{1} << 32}), ShapeError);
  CHECK(message_of<ShapeError>([] {
          normalize_axes({0, -2}, 2, "sum");
        }) == "sum: axes must be distinct; got [0, -2]");
}
