#include <capsfw/core/vspace.hpp>

#include <algorithm>
#include <type_traits>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>

#include "reduction.hpp"
#include "strided.hpp"
#include "tensor_impl.hpp"

namespace capsfw {
namespace {

/// y += x, of one shape; y is row-major and shares no memory with x.
void accumulate_data(const Tensor& x, Tensor& y) {
  visit_any(y.dtype(), [&]<class T>() {
    const T* xs = x.data<T>();
    T* ys = y.mutable_data<T>();
    detail::StridedLoop(y, {&x}).run(1, [&](const auto* o, std::int64_t n, const auto* s) {
      const T* __restrict xp = xs + o[1];
      T* __restrict yp = ys + o[0];
      const std::int64_t sx = s[1], sy = s[0];
      detail::simd([=] {
        if (sx == 1 && sy == 1)
          for (std::int64_t i = 0; i < n; ++i) yp[i] = static_cast<T>(yp[i] + xp[i]);
        else
          for (std::int64_t i = 0; i < n; ++i) yp[i * sy] = static_cast<T>(yp[i * sy] + xp[i * sx]);
      });
    });
  });
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) {
  check_same_type(a, b, "add");
  Tensor y = empty(broadcast_shapes(a.shape(), b.shape(), "add"), a.dtype(), "add");
  visit_any(y.dtype(), [&]<class T>() {
    detail::map2<T, T>(a, b, y, [](T p, T q) { return static_cast<T>(p + q); });
  });
  return record("add", {a, b}, y, Save::none, [](const Saved&, const Tensor& gy) {
    return TensorList{gy, gy};
  });
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  const bool negative = std::any_of(shape.begin(), shape.end(), [](auto d) { return d < 0; });
  if (negative || !broadcastable_to(x.shape(), shape))
    throw ShapeError(
        fmt::format("broadcast_to: every axis must be equal or 1; got x = {}, target = {}",
                    x.shape().str(), shape.str()));
  const Tensor y =
      strided_view(x, shape, broadcast_strides(x.shape(), x.strides(), shape), x.offset());
  // The engine sums the gradient back to the shape of x.
  return record("broadcast_to", {x}, y, Save::none,
                [](const Saved&, const Tensor& gy) { return gy; });
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (!broadcastable_to(shape, x.shape()))
    throw ShapeError(fmt::format("sum_to: the target must broadcast to x; got x = {}, target = {}",
                                 x.shape().str(), shape.str()));
  Axes axes;
  const int lead = x.dim() - shape.rank();
  for (int i = 0; i < x.dim(); ++i)
    if (i < lead || (shape[i - lead] == 1 && x.shape()[i] != 1)) axes.push_back(i);
  Tensor y = empty(shape, x.dtype(), "sum_to");
  visit_any(x.dtype(), [&]<class T>() {
    using Sum = std::conditional_t<std::is_same_v<T, std::int64_t>, T, double>;
    detail::reduce_axes<T, Sum>(
        x, axes, y, Sum(0), [](Sum s, T v) { return s + static_cast<Sum>(v); },
        [](Sum a, Sum b) { return a + b; }, [](Sum s) { return static_cast<T>(s); });
  });
  const Shape full = x.shape();
  return record("sum_to", {x}, y, Save::none,
                [full](const Saved&, const Tensor& gy) { return broadcast_to(gy, full); });
}

bool try_add_in_place(Tensor& sum, const Tensor& g) {
  const bool sole =
      sum.impl_ptr().use_count() == 1 && sum.storage().use_count() == 1 && !sum.impl()->autograd;
  if (!sole || sum.shape() != g.shape() || sum.dtype() != g.dtype() || !sum.is_contiguous() ||
      sum.storage() == g.storage())
    return false;
  accumulate_data(g, sum);
  return true;
}

}  // namespace capsfw
