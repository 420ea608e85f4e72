#pragma once
// Private: the one iterator over several strided operands of a common shape. Neighbouring axes that
// every operand crosses with one stride are merged first, so that contiguous data is a single row.

#include <algorithm>
#include <array>
#include <cstdint>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/tensor.hpp>

#include "simd.hpp"

namespace capsfw::detail {

/// N operands over one iteration space; strides in elements, operand 0 is the result.
template <int N>
struct StridedLoop {
  Shape shape;
  std::array<Strides, N> strides;

  StridedLoop(const Shape& full, const std::array<Strides, N>& all) {
    for (int axis = 0; axis < full.rank(); ++axis) {
      if (full[axis] == 1) continue;
      const int last = shape.rank() - 1;
      bool merge = last >= 0;
      for (int k = 0; merge && k < N; ++k) merge = strides[k][last] == all[k][axis] * full[axis];
      if (merge) {
        shape[last] *= full[axis];
        for (int k = 0; k < N; ++k) strides[k][last] = all[k][axis];
      } else {
        shape.push_back(full[axis]);
        for (int k = 0; k < N; ++k) strides[k].push_back(all[k][axis]);
      }
    }
    if (shape.empty()) {
      shape.push_back(full.numel());  // 1, or 0 for an empty tensor
      for (int k = 0; k < N; ++k) strides[k].push_back(1);
    }
  }

  /// Calls row(offsets, count, inner_strides) for the pieces of rows that cover elements [begin,
  /// end).
  template <class Row>
  void walk(std::int64_t begin, std::int64_t end, const Row& row) const {
    if (begin >= end) return;
    const int rank = shape.rank();
    std::array<std::int64_t, N> step{}, offset{};
    std::array<std::int64_t, kMaxRank> index{};
    std::int64_t rest = begin;
    for (int a = rank - 1; a >= 0; --a) {
      index[a] = rest % shape[a];
      rest /= shape[a];
      for (int k = 0; k < N; ++k) offset[k] += index[a] * strides[k][a];
    }
    for (int k = 0; k < N; ++k) step[k] = strides[k][rank - 1];
    while (begin < end) {
      const std::int64_t count = std::min(shape[rank - 1] - index[rank - 1], end - begin);
      row(offset, count, step);
      begin += count;
      index[rank - 1] += count;
      for (int k = 0; k < N; ++k) offset[k] += count * step[k];
      for (int a = rank - 1; a > 0 && index[a] == shape[a]; --a) {
        index[a] = 0;
        ++index[a - 1];
        for (int k = 0; k < N; ++k) offset[k] += strides[k][a - 1] - shape[a] * strides[k][a];
      }
    }
  }

  /// walk() over the whole space, in parallel. `cost` is the work per element (see parallel_for).
  template <class Row>
  void run(std::int64_t cost, const Row& row) const {
    parallel_for(shape.numel(), cost,
                 [&](std::int64_t begin, std::int64_t end) { walk(begin, end, row); });
  }
};

/// y = value everywhere, without reading y: memory may be uninitialised.
template <class T>
void fill(Tensor& y, T value) {
  T* ys = y.mutable_data<T>();
  StridedLoop<1>(y.shape(), {y.strides()})
      .run(1, [&](const auto& o, std::int64_t n, const auto& s) {
        for (std::int64_t i = 0; i < n; ++i) ys[o[0] + i * s[0]] = value;
      });
}

/// y = f(x), elementwise; y is row-major, x any strides of the same shape.
template <class Y, class X, class F>
void map1(const Tensor& x, Tensor& y, F f, std::int64_t cost = 1) {
  const X* xs = x.data<X>();
  Y* ys = y.mutable_data<Y>();
  StridedLoop<2>(y.shape(), {y.strides(), x.strides()})
      .run(cost, [&](const auto& o, std::int64_t n, const auto& s) {
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
  const StridedLoop<3> loop(y.shape(),
                            {y.strides(), broadcast_strides(a.shape(), a.strides(), y.shape()),
                             broadcast_strides(b.shape(), b.strides(), y.shape())});
  loop.run(cost, [&](const auto& o, std::int64_t n, const auto& s) {
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
