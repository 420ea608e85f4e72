// Tensors as containers: factories, elements, views, changes in place.

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;
using Ints = std::vector<std::int64_t>;

TEST_CASE("factories make the values that their names say, in every type") {
  for (const DType t : {DType::f32, DType::f64, DType::i64}) {
    CAPTURE(name_of(t));
    CHECK(values(zeros({2, 2}, t)) == Doubles{0, 0, 0, 0});
    CHECK(values(ones({3}, t)) == Doubles{1, 1, 1});
    CHECK(values(full({2}, -7, t)) == Doubles{-7, -7});
    CHECK(values(eye(2, t)) == Doubles{1, 0, 0, 1});
    CHECK(values(arange(1, 8, 2, t)) == Doubles{1, 3, 5, 7});
    CHECK(values(arange(3, 0, -1, t)) == Doubles{3, 2, 1});
    if (t != DType::i64) CHECK(values(linspace(0, 4, 3, t)) == Doubles{0, 2, 4});
    CHECK(zeros({2}, t).dtype() == t);
    CHECK(values(zeros_like(ones({2}, t))) == Doubles{0, 0});
    CHECK(full_like(ones({2}, t), 3).dtype() == t);
    CHECK(ones_like(zeros({1, 4}, t)).shape() == Shape{1, 4});
    CHECK(empty_like(zeros({1, 4}, t)).shape() == Shape{1, 4});
  }
  CHECK(ones({2}, DType::b8).to_vector<bool>() == std::vector<bool>{true, true});
  CHECK(arange(3).dtype() == DType::i64);
  CHECK(arange(3).to_vector<std::int64_t>() == Ints{0, 1, 2});
  CHECK(arange(0).numel() == 0);
  CHECK(arange(5, 5).numel() == 0);
  CHECK(arange(0, 1, 0.25, DType::f64).numel() == 4);
  CHECK(values(linspace(1, 2, 1)) == Doubles{1});
  const Tensor line = linspace(-0.1, 0.3, 5, DType::f64);
  CHECK(values(line).front() == -0.1);
  CHECK(values(line).back() == 0.3);
  CHECK(scalar(2.5).dim() == 0);
  CHECK(scalar(2.5).numel() == 1);
}

TEST_CASE("factories reject what has no meaning") {
  CHECK(contains(message_of<ShapeError>([] { zeros({2, -1}); }), "must not be negative"));
  CHECK(contains(message_of<ShapeError>([] { empty({1LL << 40, 1LL << 40}); }), "2^63"));
  CHECK(contains(message_of<ShapeError>([] { empty({1LL << 61}, DType::f64); }), "2^63 bytes"));
  CHECK(contains(message_of<ValueError>([] { arange(0, 1, 0); }), "step"));
  CHECK_THROWS_AS(arange(0, 1e300, 1), Error);
  CHECK_THROWS_AS(arange(0, INFINITY), ValueError);
  CHECK_THROWS_AS(arange(-1), ValueError);
  CHECK_THROWS_AS(linspace(0, 1, -1), ValueError);
  CHECK(contains(message_of<ShapeError>([] { eye(-1); }), "eye: n must not be negative; got -1"));
  CHECK(contains(message_of<DTypeError>([] { linspace(0, 9, 4, DType::i64); }), "linspace: takes"));
  CHECK(message_of<ValueError>([] { full({2}, 0.5, DType::i64); }) ==
        "full: 0.5 has no value in i64; got the shape [2]");
  for (double v : {double{NAN}, double{INFINITY}, 0x1p63, -0x1p64})
    CHECK_THROWS_AS(full({2}, v, DType::i64), ValueError);
  CHECK_THROWS_AS(full({2}, 2, DType::b8), ValueError);
  CHECK(message_of<ValueError>([] { arange(0, 1, 0.25, DType::i64); }) ==
        "arange: 0.25 has no value in i64; got 0, 1, 0.25");
  CHECK_THROWS_AS(arange(0, 2e19, 5e18, DType::i64), ValueError);  // the third one
  CHECK_THROWS_AS(arange(0, 5, 1, DType::b8), ValueError);
  CHECK(arange(3, 3.5, 1, DType::i64).to_vector<std::int64_t>() == Ints{3});
  CHECK(arange(0.5, 0.5, 1, DType::i64).numel() == 0);
  CHECK_THROWS_AS(arange(0.5, 3, 1, DType::i64), ValueError);
  CHECK(arange(4, 0, -2, DType::i64).to_vector<std::int64_t>() == Ints{4, 2});
  CHECK(message_of<ShapeError>([] {
          from_vector<double>({1, 2, 3}, {2, 2});
        }) ==
        "from_vector: the count of values must be the size of the shape; got 3 values for [2, 2]");
}

TEST_CASE("elements are read in their own type, and converted on request") {
  const Tensor x = from_vector<float>({1.5F, -2.F, 3.F}, {3});
  CHECK(x.data<float>()[1] == -2.F);
  CHECK(x.to_vector<std::int64_t>() == Ints{1, -2, 3});
  CHECK(from_vector<bool>({true, false}).dtype() == DType::b8);
  CHECK(values(from_vector<bool>({true, false})) == Doubles{1, 0});
  CHECK(scalar(4, DType::i64).item() == 4);
  CHECK(ones({1, 1, 1}).item() == 1);
  CHECK(message_of<ShapeError>([&] { x.item(); }) ==
        "item: takes a tensor of one element; got [3]");
  CHECK(message_of<DTypeError>([&] { x.data<double>(); }) ==
        "data<T>: T must be the element type; the tensor is f32 [3], T is f64");
  Tensor y = x;
  CHECK_THROWS_AS(y.mutable_data<std::int64_t>(), DTypeError);
  CHECK(x.size(-1) == 3);
  CHECK(contains(message_of<ShapeError>([&] { x.size(1); }), "size: axis must lie in [-1, 1)"));
}

TEST_CASE("an undefined tensor says so instead of crashing") {
  const Tensor none;
  CHECK_FALSE(none.defined());
  CHECK_FALSE(static_cast<bool>(none));
  CHECK(to_string(none) == "undefined");
  CHECK(contains(message_of<ValueError>([&] { none.shape(); }), "undefined tensor"));
  CHECK_THROWS_AS(none.data<float>(), ValueError);
  CHECK_THROWS_AS(none.requires_grad(), ValueError);
  CHECK_THROWS_AS(none.detach(), ValueError);
  CHECK_THROWS_AS(none.item(), ValueError);
}

TEST_CASE("a view shares memory, conversions copy only where something changes") {
  Tensor x = arange(0, 6, 1, DType::f64);
  const Tensor columns = strided_view(x, {3, 2}, {1, 3}, 0);  // [[0, 3], [1, 4], [2, 5]]
  CHECK(values(columns) == Doubles{0, 3, 1, 4, 2, 5});
  CHECK_FALSE(columns.is_contiguous());
  x.mutable_data<double>()[3] = 30;
  CHECK(values(columns) == Doubles{0, 30, 1, 4, 2, 5});
  const Tensor back = strided_view(x, {6}, {-1}, 5);
  CHECK(values(back) == Doubles{5, 4, 30, 2, 1, 0});
  CHECK(contiguous_data(x).storage() == x.storage());
  CHECK(contiguous_data(back).storage() != x.storage());
  CHECK(contiguous_data(back).is_contiguous());
  CHECK(cast_data(x, DType::f64).storage() == x.storage());
  CHECK(cast_data(back, DType::f32).to_vector<float>()[2] == 30.F);
  CHECK(values(strided_view(x, {2, 2}, {0, 1}, 4)) == Doubles{4, 5, 4, 5});
}

TEST_CASE("a view outside of the memory of its tensor is refused") {
  const Tensor x = cast_data(arange(6), DType::f64);
  CHECK(values(strided_view(x, {2, 2}, {-3, -1}, 5)) == Doubles{5, 4, 2, 1});
  CHECK(message_of<ShapeError>([&] {
          strided_view(x, {2, 3}, {3, 2}, 0);
        }) ==
        "strided_view: one stride for each axis, and all elements in the memory of x, which holds "
        "6; got shape = [2, 3], strides = [3, 2], offset = 0");
  CHECK_THROWS_AS(strided_view(x, {6}, {1}, 1), ShapeError);
  CHECK_THROWS_AS(strided_view(x, {6}, {-1}, 4), ShapeError);
  CHECK_THROWS_AS(strided_view(x, {1}, {1}, -1), ShapeError);
  CHECK_THROWS_AS(strided_view(x, {2, 3}, {1}, 0), ShapeError);
  CHECK_THROWS_AS(strided_view(x, {-1}, {1}, 0), ShapeError);
  CHECK_THROWS_AS(strided_view(x, {1LL << 40, 3}, {1LL << 40, 1}, 0), ShapeError);
  CHECK_THROWS_AS(strided_view(Tensor(), {1}, {1}, 0), ValueError);
  CHECK(strided_view(x, {0, 9}, {1, 1}, 7).numel() == 0);  // nothing lies outside
  CHECK(strided_view(x, {}, {}, 5).item() == 5);
}

TEST_CASE("numbers without an integer are not converted to one") {
  for (const DType t : {DType::f32, DType::f64}) {
    const Tensor large = full({1}, 0x1p62, t), negative = full({1}, -0x1p63, t);
    CHECK(cast_data(large, DType::i64).item() == 0x1p62);
    CHECK(cast_data(negative, DType::i64).item() == -0x1p63);
    for (double v : {double{NAN}, double{INFINITY}, -double{INFINITY}, 0x1p63, -1e30}) {
      const Tensor x = strided_view(full({9}, v, t), {3}, {2}, 1);
      CAPTURE(v);
      CHECK_THROWS_AS(cast_data(x, DType::i64), ValueError);
      CHECK_THROWS_AS(x.to_vector<std::int64_t>(), ValueError);
      CHECK_THROWS_AS(zeros({3}, DType::i64).copy_(x), ValueError);
      CHECK(cast_data(x, DType::b8).to_vector<bool>() == std::vector<bool>{true, true, true});
    }
  }
  const Tensor x = from_vector<float>({1, 2, NAN, 4});
  CHECK(message_of<ValueError>([&] { cast_data(x, DType::i64); }) ==
        "to: nan has no value in i64; got x = f32 [4], element 2 in row-major order");
}

TEST_CASE("detach shares memory and version but not the graph") {
  Tensor x = ones({3}).requires_grad_();
  const Tensor y = add(x, x), d = y.detach();
  CHECK(y.requires_grad());
  CHECK_FALSE(d.requires_grad());
  CHECK(d.is_leaf());
  CHECK(d.grad_fn() == nullptr);
  CHECK(d.storage() == y.storage());
  const auto before = y.version();
  Tensor(d).fill_(5);
  CHECK(values(y) == Doubles{5, 5, 5});
  CHECK(y.version() > before);
}

TEST_CASE("copy_ converts, keeps the place in memory, and bears overlap") {
  Tensor x = zeros({2, 2}, DType::i64);
  const Tensor same = x;
  x.copy_(from_vector<double>({1.9, -1.9, 2, 3}, {2, 2}));
  CHECK(same.to_vector<std::int64_t>() == Ints{1, -1, 2, 3});
  CHECK(contains(message_of<ShapeError>([&] { x.copy_(zeros({4})); }),
                 "copy_: shapes must be equal; got target = [2, 2], source = [4]"));
  for (const DType t : {DType::f32, DType::f64, DType::i64}) {
    CAPTURE(name_of(t));
    constexpr std::int64_t n = 100000;
    Tensor all = arange(0, n, 1, t);
    Tensor head = strided_view(all, {n - 1}, {1}, 0), tail = strided_view(all, {n - 1}, {1}, 1);
    tail.copy_(head);
    CHECK(all.to_vector<std::int64_t>()[0] == 0);
    CHECK(all.to_vector<std::int64_t>()[1] == 0);
    CHECK(all.to_vector<std::int64_t>()[n - 1] == n - 2);
    Tensor row = arange(0, 5, 1, t);
    row.copy_(strided_view(row, {5}, {-1}, 4));  // reversed onto itself
    CHECK(values(row) == Doubles{4, 3, 2, 1, 0});
  }
  Tensor one = zeros({1, 2});
  Tensor wide = strided_view(one, {3, 2}, {0, 1}, 0);
  CHECK(
      message_of<ValueError>([&] {
        wide.copy_(ones({3, 2}));
      }) ==
      "copy_: elements of an expanded target share memory; got target = [3, 2], axis 0 has stride "
      "0. Hint: contiguous(x)");
  CHECK(values(one) == Doubles{0, 0});
  const std::int64_t big = (1LL << 53) + 1;  // not a double
  Tensor exact = from_vector<std::int64_t>({big, 0});
  Tensor second = strided_view(exact, {1}, {1}, 1);
  second.copy_(strided_view(exact, {1}, {1}, 0));
  CHECK(exact.to_vector<std::int64_t>() == Ints{big, big});
}

TEST_CASE("fill_ writes through a view and nowhere else") {
  Tensor x = zeros({3, 4}, DType::f64);
  Tensor column = strided_view(x, {3}, {4}, 1);
  column.fill_(2);
  CHECK(values(x) == Doubles{0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0});
}

TEST_CASE("set_data is seen through every handle, and changes type and shape") {
  Tensor x = zeros({2}).requires_grad_();
  const Tensor handle = x;
  x.set_grad(ones({2}));
  x.set_data(from_vector<double>({1, 2, 3}, {1, 3}));
  CHECK(handle.shape() == Shape{1, 3});
  CHECK(handle.dtype() == DType::f64);
  CHECK(values(handle) == Doubles{1, 2, 3});
  CHECK(handle.requires_grad());
  CHECK_FALSE(handle.grad().defined());
  const Tensor y = add(handle, handle);
  CHECK(values(grad(y, x, ones({1, 3}, DType::f64))) == Doubles{2, 2, 2});
  CHECK(contains(message_of<GradError>([&] { Tensor(y).set_data(x); }), "set_data: only leaves"));
}

TEST_CASE("set_data of an integer would leave a gradient without a type") {
  Tensor p = ones({2}).requires_grad_(), plain = ones({2});
  CHECK(contains(message_of<GradError>([&] { p.set_data(arange(3)); }), "got i64 [3]"));
  CHECK(p.dtype() == DType::f32);
  plain.set_data(arange(3));
  CHECK(plain.dtype() == DType::i64);
}

TEST_CASE("set_data of its own memory, and what stays of a leaf") {
  Tensor x = from_vector<double>({1, 2, 3, 4, 5, 6}, {2, 3}).requires_grad_();
  int calls = 0;
  x.register_hook([&](const Tensor&) {
    ++calls;
    return Tensor();
  });
  const Tensor before = sum(x * x);
  x.set_data(reshape(x.detach(), {3, 2}));
  CHECK(x.shape() == Shape{3, 2});
  CHECK_THROWS_AS(backward(before), GradError);  // its data may have changed
  x.set_data(x);
  backward(sum(x * x));
  CHECK(values(x.grad()) == Doubles{2, 4, 6, 8, 10, 12});
  CHECK(calls == 1);
}

TEST_CASE("requires_grad_ takes floating leaves only") {
  Tensor i = arange(3);
  CHECK(message_of<GradError>([&] { i.requires_grad_(); }) ==
        "requires_grad_: gradients exist for f32 and f64; got i64");
  CHECK_THROWS_AS(ones({2}, DType::b8).requires_grad_(), GradError);
  i.requires_grad_(false);
  Tensor x = ones({2}).requires_grad_();
  Tensor y = add(x, x);
  CHECK(contains(message_of<GradError>([&] { y.requires_grad_(false); }), "only leaves"));
  x.requires_grad_(false);
  CHECK_FALSE(x.requires_grad());
  CHECK_FALSE(add(x, x).requires_grad());
}

TEST_CASE("set_grad insists on the shape and type of its tensor") {
  Tensor x = ones({2});
  x.set_grad(full({2}, 3));
  CHECK(values(x.grad()) == Doubles{3, 3});
  CHECK(contains(message_of<ShapeError>([&] { x.set_grad(ones({3})); }),
                 "tensor = [2] f32, gradient = [3] f32"));
  CHECK_THROWS_AS(x.set_grad(ones({2}, DType::f64)), ShapeError);
  x.set_grad({});
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("contiguity ignores axes of length one and empty tensors") {
  const Tensor x = zeros({4, 6});
  CHECK(strided_view(x, {4, 1, 6}, {6, 99, 1}, 0).is_contiguous());
  CHECK_FALSE(strided_view(x, {6, 4}, {1, 6}, 0).is_contiguous());
  CHECK(strided_view(x, {0, 4}, {1, 6}, 0).numel() == 0);
  CHECK(zeros({2, 0, 3}).is_contiguous());
  CHECK(values(zeros({2, 0, 3})).empty());
}
