#pragma once
// Private: reduction of a strided tensor over some of its axes, the same bits for any thread count.

#include <memory>

#include "strided.hpp"

namespace capsfw::detail {

/// The positions of a reduction: kept axes (operand 0 the result, operand 1 the input) and reduced
/// axes.
struct ReductionPlan {
  ReductionPlan(const Tensor& x, const Axes& axes) : ReductionPlan(split(x, axes)) {}
  StridedLoop kept;
  StridedLoop reduced;

 private:
  struct Parts {
    Shape kept, reduced;
    Strides kept_strides, reduced_strides;
  };
  static Parts split(const Tensor& x, const Axes& axes) {
    Parts p;
    for (int i = 0; i < x.dim(); ++i) {
      const bool gone = std::find(axes.begin(), axes.end(), i) != axes.end();
      (gone ? p.reduced : p.kept).push_back(x.shape()[i]);
      (gone ? p.reduced_strides : p.kept_strides).push_back(x.strides()[i]);
    }
    return p;
  }
  explicit ReductionPlan(const Parts& p)
      : kept(p.kept, {contiguous_strides(p.kept), p.kept_strides}),
        reduced(p.reduced, {p.reduced_strides}) {}
};

/// Reduces one row into 16 lanes and these in order: fixed, and open to vector instructions.
template <class Acc, class T, class Op, class Combine>
Acc reduce_row(const T* p, std::int64_t n, std::int64_t stride, Acc init, Op op, Combine combine) {
  constexpr std::int64_t kLanes = 16;
  Acc lanes[kLanes];
  for (Acc& l : lanes) l = init;
  std::int64_t i = 0;
  if (stride == 1)
    for (; i + kLanes <= n; i += kLanes)
      for (std::int64_t k = 0; k < kLanes; ++k) lanes[k] = op(lanes[k], p[i + k]);
  Acc acc = init;
  for (; i < n; ++i) acc = op(acc, p[i * stride]);
  for (Acc l : lanes) acc = combine(acc, l);
  return acc;
}

/// out[j] = op over i of p[i * stride + j], in order. Four rows at a time: an accumulator waits for
/// its last store, and so for memory, a quarter as often.
template <class Acc, class T, class Op>
void reduce_columns(
    const T* p, std::int64_t n, std::int64_t stride, std::int64_t m, Acc* __restrict out, Op op) {
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const T *a = p + i * stride, *b = a + stride, *c = b + stride, *d = c + stride;
    for (std::int64_t j = 0; j < m; ++j) out[j] = op(op(op(op(out[j], a[j]), b[j]), c[j]), d[j]);
  }
  for (; i < n; ++i)
    for (std::int64_t j = 0; j < m; ++j) out[j] = op(out[j], p[i * stride + j]);
}

/// y[kept] = finish(op over the reduced axes), y row-major over the kept axes of x. `init` must be
/// neutral for `op(acc, element)` and `combine(acc, acc)`.
template <class T, class Acc, class Op, class Combine, class Finish>
void reduce_axes(
    const Tensor& x, const Axes& axes, Tensor& y, Acc init, Op op, Combine combine, Finish finish) {
  constexpr std::int64_t kBlock = 256;  // accumulators of a column block
  const ReductionPlan plan(x, axes);
  const T* xs = x.data<T>();
  T* ys = y.mutable_data<T>();
  const std::int64_t outputs = plan.kept.shape().numel(), depth = plan.reduced.shape().numel();
  if (outputs == 0) return;
  if (axes.empty()) {
    map1<T, T>(x, y, [finish, op, init](T v) { return finish(op(init, v)); });
    return;
  }
  // Reduces positions [r0, r1) for outputs [k0, k1) into acc[k - k0].
  const auto reduce = [&](std::int64_t k0, std::int64_t k1, std::int64_t r0, std::int64_t r1,
                          Acc* acc) {
    plan.kept.walk(k0, k1, [&](const auto* at, std::int64_t count, const auto* step) {
      const std::int64_t sx = step[1];
      if (sx == 1 && plan.reduced.stride(0, plan.reduced.shape().rank() - 1) != 1 && count > 1) {
        for (std::int64_t c = 0; c < count; c += kBlock) {  // columns: add whole rows
          const std::int64_t m = std::min(kBlock, count - c);
          Acc* out = acc;
          for (std::int64_t j = 0; j < m; ++j) out[j] = init;
          plan.reduced.walk(r0, r1, [&](const auto* ro, std::int64_t n, const auto* rs) {
            const T* p = xs + at[1] + c + ro[0];
            const std::int64_t stride = rs[0];
            simd([=] { reduce_columns(p, n, stride, m, out, op); });
          });
          acc += m;
        }
        return;
      }
      if (plan.reduced.shape().rank() == 1) {  // rows in one piece
        const std::int64_t stride = plan.reduced.stride(0, 0), n = r1 - r0;
        const T* p = xs + at[1] + r0 * stride;
        Acc* out = acc;
        simd([=] {
          for (std::int64_t j = 0; j < count; ++j)
            out[j] = combine(init, reduce_row<Acc>(p + j * sx, n, stride, init, op, combine));
        });
        acc += count;
        return;
      }
      for (std::int64_t j = 0; j < count; ++j, ++acc) {  // rows of several pieces
        *acc = init;
        plan.reduced.walk(r0, r1, [&](const auto* ro, std::int64_t n, const auto* rs) {
          const T* p = xs + at[1] + j * sx + ro[0];
          const std::int64_t stride = rs[0];
          Acc part;
          Acc* out = &part;
          simd([=] { *out = reduce_row<Acc>(p, n, stride, init, op, combine); });
          *acc = combine(*acc, part);
        });
      }
    });
  };
  // Few outputs of great depth: cut the depth into fixed segments, combined in order.
  constexpr std::int64_t kSegment = 1 << 15;
  const std::int64_t segments =
      outputs < 2048 && depth * outputs > 4 * kSegment
          ? std::min<std::int64_t>(64, std::max<std::int64_t>(1, depth * outputs / kSegment))
          : 1;
  if (segments > 1) {
    const auto partial = std::make_unique<Acc[]>(static_cast<std::size_t>(segments * outputs));
    parallel_for(segments, kSegment, [&](std::int64_t s0, std::int64_t s1) {
      for (std::int64_t s = s0; s < s1; ++s)
        reduce(0, outputs, s * depth / segments, (s + 1) * depth / segments,
               partial.get() + s * outputs);
    });
    for (std::int64_t k = 0; k < outputs; ++k) {
      Acc acc = init;
      for (std::int64_t s = 0; s < segments; ++s)
        acc = combine(acc, partial[static_cast<std::size_t>(s * outputs + k)]);
      ys[k] = finish(acc);
    }
    return;
  }
  parallel_for((outputs + kBlock - 1) / kBlock, kBlock * std::max<std::int64_t>(depth, 1),
               [&](std::int64_t b0, std::int64_t b1) {
                 Acc acc[kBlock];
                 for (std::int64_t b = b0; b < b1; ++b) {
                   const std::int64_t k0 = b * kBlock, k1 = std::min(outputs, k0 + kBlock);
                   reduce(k0, k1, 0, depth, acc);
                   for (std::int64_t k = k0; k < k1; ++k) ys[k] = finish(acc[k - k0]);
                 }
               });
}

}  // namespace capsfw::detail
