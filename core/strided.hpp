#pragma once
// Private: the one iterator over several strided operands of a common shape. Neighbouring axes that
// every operand crosses with one stride are merged first, so that contiguous data is a single row.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/tensor.hpp>

#include "simd.hpp"

namespace capsfw::detail {

/// At most four operands over one iteration space; strides in elements, operand 0 is the result.
class StridedLoop {
 public:
  /// row(offsets, count, steps): `count` elements of every operand from its offset on, by its step.
  /// It is called through a pointer: what walks is compiled once and not for each op.
  using Row =
      FunctionRef<void(const std::int64_t* offsets, std::int64_t count, const std::int64_t* steps)>;

  StridedLoop(const Shape& full, std::span<const Strides> operands);
  StridedLoop(const Shape& full, std::initializer_list<Strides> operands)
      : StridedLoop(full, std::span(operands.begin(), operands.size())) {}
  /// Over the elements of y, to whose shape the operands `xs` are broadcast.
  StridedLoop(const Tensor& y, std::initializer_list<const Tensor*> xs);

  /// The merged space: its axes, and the stride of operand k over one of them.
  const Shape& shape() const { return shape_; }
  std::int64_t stride(int k, int axis) const { return strides_[axis][k]; }

  /// Calls row for the pieces of rows that cover elements [begin, end), in order.
  void walk(std::int64_t begin, std::int64_t end, Row row) const;
  /// walk() over the whole space, in parallel. `cost` is the work per element (see parallel_for).
  void run(std::int64_t cost, Row row) const;

 private:
  static constexpr int kMaxOperands = 4;
  using OfOperands = std::array<std::int64_t, kMaxOperands>;
  template <class StrideOf>
  void merge(const Shape& full, const StrideOf& stride_of);

  int operands_;
  Shape shape_;
  std::array<OfOperands, kMaxRank> strides_;  // set for the axes of shape_
};

/// y = value everywhere, without reading y: memory may be uninitialised.
template <class T>
void fill(Tensor& y, T value) {
  T* ys = y.mutable_data<T>();
  StridedLoop(y, {}).run(1, [&](const auto* o, std::int64_t n, const auto* s) {
    for (std::int64_t i = 0; i < n; ++i) ys[o[0] + i * s[0]] = value;
  });
}

/// y = f(x), elementwise; y is row-major, x any strides of the same shape.
template <class Y, class X, class F>
void map1(const Tensor& x, Tensor& y, F f, std::int64_t cost = 1) {
  const X* xs = x.data<X>();
  Y* ys = y.mutable_data<Y>();
  StridedLoop(y, {&x}).run(cost, [&](const auto* o, std::int64_t n, const auto* s) {
    const X* __restrict xp = xs + o[1];
    Y* __restrict yp = ys + o[0];
    const std::int64_t sx = s[1], sy = s[0];
    simd([=] {
      if (sx == 1 && sy == 1)
        for (std::int64_t i = 0; i < n; ++i) yp[i] = f(xp[i]);
      else
        for (std::int64_t i = 0; i < n; ++i) yp[i * sy] = f(xp[i * sx]);
    });
  });
}

/// y = f(a, b), elementwise with broadcasting; y is row-major and has the common shape.
template <class Y, class X, class F>
void map2(const Tensor& a, const Tensor& b, Tensor& y, F f, std::int64_t cost = 1) {
  const X *as = a.data<X>(), *bs = b.data<X>();
  Y* ys = y.mutable_data<Y>();
  StridedLoop(y, {&a, &b}).run(cost, [&](const auto* o, std::int64_t n, const auto* s) {
    const X* __restrict ap = as + o[1], * __restrict bp = bs + o[2];
    Y* __restrict yp = ys + o[0];
    const std::int64_t sa = s[1], sb = s[2], sy = s[0];
    simd([=] {
      if (sy == 1 && sa == 1 && sb == 1)
        for (std::int64_t i = 0; i < n; ++i) yp[i] = f(ap[i], bp[i]);
      else if (sy == 1 && sa == 1 && sb == 0) {
        const X v = bp[0];
        for (std::int64_t i = 0; i < n; ++i) yp[i] = f(ap[i], v);
      } else if (sy == 1 && sa == 0 && sb == 1) {
        const X v = ap[0];
        for (std::int64_t i = 0; i < n; ++i) yp[i] = f(v, bp[i]);
      } else
        for (std::int64_t i = 0; i < n; ++i) yp[i * sy] = f(ap[i * sa], bp[i * sb]);
    });
  });
}

}  // namespace capsfw::detail
