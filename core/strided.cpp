#include "strided.hpp"

#include <algorithm>

namespace capsfw::detail {

StridedLoop::StridedLoop(const Shape& full, std::span<const Strides> operands) {
  merge(full, operands);
}

StridedLoop::StridedLoop(const Tensor& y, std::initializer_list<const Tensor*> xs) {
  std::array<Strides, kMaxOperands> all{y.strides()};
  std::size_t n = 1;
  for (const Tensor* x : xs) all[n++] = broadcast_strides(x->shape(), x->strides(), y.shape());
  merge(y.shape(), std::span(all.data(), n));
}

void StridedLoop::merge(const Shape& full, std::span<const Strides> operands) {
  operands_ = static_cast<int>(operands.size());
  const int n = operands_;
  bool empty = false;
  for (std::int64_t length : full) empty |= length == 0;
  if (empty) {  // nothing to walk: strides as large as these lengths may not fit
    shape_.push_back(0);
    for (int k = 0; k < n; ++k) strides_[k].push_back(1);
    return;
  }
  for (int axis = 0; axis < full.rank(); ++axis) {
    if (full[axis] == 1) continue;
    const int last = shape_.rank() - 1;
    bool merge = last >= 0;
    for (int k = 0; merge && k < n; ++k)
      merge = strides_[k][last] == operands[k][axis] * full[axis];
    if (merge) {
      shape_[last] *= full[axis];
      for (int k = 0; k < n; ++k) strides_[k][last] = operands[k][axis];
    } else {
      shape_.push_back(full[axis]);
      for (int k = 0; k < n; ++k) strides_[k].push_back(operands[k][axis]);
    }
  }
  if (shape_.empty()) {
    shape_.push_back(1);
    for (int k = 0; k < n; ++k) strides_[k].push_back(1);
  }
}

void StridedLoop::walk(std::int64_t begin, std::int64_t end, Row row) const {
  if (begin >= end) return;
  const int n = operands_, last = shape_.rank() - 1;
  std::array<std::int64_t, kMaxOperands> step{}, offset{};
  std::array<std::int64_t, kMaxRank> index{};
  for (int k = 0; k < n; ++k) step[k] = strides_[k][last];
  std::int64_t rest = begin;
  for (int a = last; a >= 0 && rest > 0; --a) {
    index[a] = rest % shape_[a];
    rest /= shape_[a];
    for (int k = 0; k < n; ++k) offset[k] += index[a] * strides_[k][a];
  }
  while (true) {
    const std::int64_t count = std::min(shape_[last] - index[last], end - begin);
    row(offset.data(), count, step.data());
    begin += count;
    if (begin >= end) return;
    // The row was walked to its end: carry into the axes above it.
    for (int k = 0; k < n; ++k) offset[k] -= index[last] * step[k];
    index[last] = 0;
    for (int a = last - 1; a >= 0; --a) {
      for (int k = 0; k < n; ++k) offset[k] += strides_[k][a];
      if (++index[a] < shape_[a]) break;
      for (int k = 0; k < n; ++k) offset[k] -= shape_[a] * strides_[k][a];
      index[a] = 0;
    }
  }
}

void StridedLoop::run(std::int64_t cost, Row row) const {
  parallel_for(shape_.numel(), cost,
               [&](std::int64_t begin, std::int64_t end) { walk(begin, end, row); });
}

}  // namespace capsfw::detail
