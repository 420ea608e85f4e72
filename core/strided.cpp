#include "strided.hpp"

#include <algorithm>

namespace capsfw::detail {

StridedLoop::StridedLoop(const Shape& full, std::span<const Strides> operands)
    : operands_(static_cast<int>(operands.size())) {
  merge(full, [&](int k, int axis) { return operands[k][axis]; });
}

StridedLoop::StridedLoop(const Tensor& y, std::initializer_list<const Tensor*> xs)
    : operands_(static_cast<int>(xs.size()) + 1) {
  const Shape& full = y.shape();
  merge(full, [&](int k, int axis) -> std::int64_t {
    if (k == 0) return y.strides()[axis];
    const Tensor& x = *xs.begin()[k - 1];
    const int a = axis - full.rank() + x.dim();  // counted from the last, as broadcasting does
    return a < 0 || x.shape()[a] != full[axis] ? 0 : x.strides()[a];
  });
}

template <class StrideOf>
void StridedLoop::merge(const Shape& full, const StrideOf& stride_of) {
  bool empty = false;
  for (std::int64_t length : full) empty |= length == 0;
  if (empty) {  // nothing to walk: strides as large as these lengths may not fit
    shape_.push_back(0);
    strides_[0].fill(1);
    return;
  }
  for (int axis = 0; axis < full.rank(); ++axis) {
    if (full[axis] == 1) continue;
    OfOperands here{};
    for (int k = 0; k < operands_; ++k) here[k] = stride_of(k, axis);
    const int last = shape_.rank() - 1;
    bool merge = last >= 0;
    for (int k = 0; merge && k < operands_; ++k) merge = strides_[last][k] == here[k] * full[axis];
    if (merge)
      shape_[last] *= full[axis];
    else
      shape_.push_back(full[axis]);
    strides_[shape_.rank() - 1] = here;
  }
  if (shape_.empty()) {
    shape_.push_back(1);
    strides_[0].fill(1);
  }
}

void StridedLoop::walk(std::int64_t begin, std::int64_t end, Row row) const {
  if (begin >= end) return;
  const int n = operands_, last = shape_.rank() - 1;
  const OfOperands& step = strides_[last];
  OfOperands offset{};
  std::array<std::int64_t, kMaxRank> index{};
  std::int64_t rest = begin;
  for (int a = last; a >= 0 && rest > 0; --a) {
    index[a] = rest % shape_[a];
    rest /= shape_[a];
    for (int k = 0; k < n; ++k) offset[k] += index[a] * strides_[a][k];
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
      for (int k = 0; k < n; ++k) offset[k] += strides_[a][k];
      if (++index[a] < shape_[a]) break;
      for (int k = 0; k < n; ++k) offset[k] -= shape_[a] * strides_[a][k];
      index[a] = 0;
    }
  }
}

void StridedLoop::run(std::int64_t cost, Row row) const {
  parallel_for(shape_.numel(), cost,
               [&](std::int64_t begin, std::int64_t end) { walk(begin, end, row); });
}

}  // namespace capsfw::detail
