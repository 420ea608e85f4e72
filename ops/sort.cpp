// Sorting, declared in index.hpp.

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/index.hpp>

namespace capsfw {
namespace {

/// The same data with `axis` exchanged with the last one.
Tensor axis_last(const Tensor& x, int axis) {
  Shape shape = x.shape();
  Strides strides = x.strides();
  std::swap(shape[axis], shape[x.dim() - 1]);
  std::swap(strides[axis], strides[x.dim() - 1]);
  return strided_view(x, shape, strides, x.offset());
}

/// a before b in ascending order, a NaN after everything.
template <class T>
bool less(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a < b || (b != b && a == a);
  else
    return a < b;
}

/// The positions of the first k elements of each line in order, [.., k, ..].
Tensor order(const Tensor& x, int axis, std::int64_t k, bool descending) {
  const Tensor lines = contiguous_data(axis_last(x, axis));
  const std::int64_t n = lines.shape().back(), count = n == 0 ? 0 : lines.numel() / n;
  Tensor all = empty(lines.shape(), DType::i64, "argsort");
  visit_any(x.dtype(), [&]<class T>() {
    const T* xs = lines.data<T>();
    std::int64_t* is = all.mutable_data<std::int64_t>();
    parallel_for(count, 16 * n, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t line = begin; line < end; ++line) {
        const T* p = xs + line * n;
        std::int64_t* first = is + line * n;
        std::iota(first, first + n, std::int64_t{0});
        // Ties are broken by position: stable, without the buffer that stable_sort allocates.
        const auto before = [p, descending](std::int64_t i, std::int64_t j) {
          if (less(p[i], p[j])) return !descending;
          if (less(p[j], p[i])) return descending;
          return i < j;
        };
        if (k == n)
          std::sort(first, first + n, before);
        else
          std::partial_sort(first, first + k, first + n, before);
      }
    });
  });
  Shape shape = lines.shape();
  shape[shape.rank() - 1] = k;
  return contiguous_data(axis_last(strided_view(all, shape, all.strides(), all.offset()), axis));
}

}  // namespace

Tensor argsort(const Tensor& x, int axis, bool descending) {
  const int a = normalize_axis(axis, x.dim(), "argsort");
  return order(x, a, x.shape()[a], descending);
}

Sorted sort(const Tensor& x, int axis, bool descending) {
  const int a = normalize_axis(axis, x.dim(), "sort");
  const Tensor indices = order(x, a, x.shape()[a], descending);
  return {gather(x, a, indices), indices};
}

Sorted topk(const Tensor& x, std::int64_t k, int axis, bool largest) {
  const int a = normalize_axis(axis, x.dim(), "topk");
  if (k < 0 || k > x.shape()[a])
    throw ValueError(fmt::format("topk: k must lie in [0, {}], the length of axis {} of {}; got {}",
                                 x.shape()[a], a, x.shape().str(), k));
  const Tensor indices = order(x, a, k, largest);
  return {gather(x, a, indices), indices};
}

}  // namespace capsfw
