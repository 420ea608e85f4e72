// The factories of tensor.hpp, and printing.

#include <algorithm>
#include <cmath>
#include <ostream>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/tensor.hpp>

#include "tensor_impl.hpp"

namespace capsfw {
namespace {

template <class F>
Tensor generate(std::int64_t n, DType dtype, std::string_view op, const F& f) {
  Tensor y = empty({n}, dtype, op);
  visit_any(dtype, [&]<class T>() {
    T* p = y.mutable_data<T>();
    for (std::int64_t i = 0; i < n; ++i) p[i] = static_cast<T>(f(i));
  });
  return y;
}

std::string format_element(bool v) { return v ? "true" : "false"; }
std::string format_element(std::int64_t v) { return fmt::format("{}", v); }
std::string format_element(double v) {
  if (std::isnan(v)) return "nan";  // whatever its sign bit
  if (std::isfinite(v) && v == std::trunc(v) && std::abs(v) < 1e6) return fmt::format("{:.0f}.", v);
  return fmt::format("{:.4g}", v);
}

/// Brackets and gaps, with a call of `cell` where an element is shown.
template <class Cell>
void print_axis(std::string& out,
                const Shape& shape,
                int axis,
                std::int64_t first,
                std::int64_t block,
                bool shorten,
                const Cell& cell) {
  if (axis == shape.rank()) {
    cell(first);
    return;
  }
  const std::int64_t n = shape[axis], inner = n == 0 ? 0 : block / n;
  const bool last = axis == shape.rank() - 1;
  const std::string gap =
      last ? ", "
           : fmt::format(",{}{}",
                         std::string(static_cast<std::size_t>(shape.rank() - axis - 1), '\n'),
                         std::string(static_cast<std::size_t>(axis) + 1, ' '));
  out += '[';
  for (std::int64_t i = 0; i < n; ++i) {
    if (i > 0) out += gap;
    if (shorten && n > 6 && i == 3) {
      out += "...";
      i = n - 4;
      continue;
    }
    print_axis(out, shape, axis + 1, first + i * inner, inner, shorten, cell);
  }
  out += ']';
}

}  // namespace

Tensor empty(const Shape& shape, DType dtype) {
  for (std::int64_t d : shape)
    if (d < 0)
      throw ShapeError(fmt::format("empty: lengths must not be negative; got {}", shape.str()));
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(shape.numel(), static_cast<std::int64_t>(size_of(dtype)), &bytes))
    throw ShapeError(
        fmt::format("empty: {} of {} is more than 2^63 bytes", shape.str(), name_of(dtype)));
  auto storage = std::make_shared<Storage>(static_cast<std::size_t>(bytes));
  return Tensor(std::make_shared<detail::TensorImpl>(std::move(storage), shape,
                                                     contiguous_strides(shape), 0, dtype));
}

Tensor full(const Shape& shape, double value, DType dtype) {
  if (!holds(dtype, value))
    throw ValueError(fmt::format("full: {} has no value in {}; got the shape {}", value,
                                 name_of(dtype), shape.str()));
  return empty(shape, dtype, "full").fill_(value);
}
Tensor zeros(const Shape& shape, DType dtype) { return full(shape, 0, dtype); }
Tensor ones(const Shape& shape, DType dtype) { return full(shape, 1, dtype); }
Tensor scalar(double value, DType dtype) { return full({}, value, dtype); }
Tensor empty_like(const Tensor& x) { return empty(x.shape(), x.dtype()); }
Tensor full_like(const Tensor& x, double value) { return full(x.shape(), value, x.dtype()); }
Tensor zeros_like(const Tensor& x) { return full_like(x, 0); }
Tensor ones_like(const Tensor& x) { return full_like(x, 1); }

Tensor arange(double start, double end, double step, DType dtype) {
  if (step == 0 || !std::isfinite(start) || !std::isfinite(end) || !std::isfinite(step))
    throw ValueError(fmt::format("arange: finite bounds and a step other than 0; got {}, {}, {}",
                                 start, end, step));
  const double count = std::max(0.0, std::ceil((end - start) / step));
  if (!(count < 0x1p62))
    throw ValueError(fmt::format("arange: too many elements; got {}, {}, {}", start, end, step));
  const auto n = static_cast<std::int64_t>(count);
  const auto at = [&](std::int64_t i) { return start + static_cast<double>(i) * step; };
  for (const std::int64_t i : {std::int64_t{0}, std::int64_t{1}, n - 1})  // if these, then all
    if (i < n && n > 0 && !holds(dtype, at(i)))
      throw ValueError(fmt::format("arange: {} has no value in {}; got {}, {}, {}", at(i),
                                   name_of(dtype), start, end, step));
  return generate(n, dtype, "arange", at);
}

Tensor arange(std::int64_t n) {
  if (n < 0) throw ValueError(fmt::format("arange: n must not be negative; got {}", n));
  return generate(n, DType::i64, "arange", [](std::int64_t i) { return i; });
}

Tensor linspace(double start, double end, std::int64_t n, DType dtype) {
  if (n < 0) throw ValueError(fmt::format("linspace: n must not be negative; got {}", n));
  if (!is_floating(dtype)) throw_not_floating(dtype, "linspace", {}, "make f32, then to(x, dtype)");
  return generate(n, dtype, "linspace", [&](std::int64_t i) {
    if (n == 1) return start;
    const double t = static_cast<double>(i) / static_cast<double>(n - 1);
    return start * (1 - t) + end * t;
  });
}

Tensor eye(std::int64_t n, DType dtype) {
  if (n < 0) throw ShapeError(fmt::format("eye: n must not be negative; got {}", n));
  Tensor y = empty({n, n}, dtype, "eye").fill_(0);
  visit_any(dtype, [&]<class T>() {
    T* p = y.mutable_data<T>();
    for (std::int64_t i = 0; i < n; ++i) p[i * n + i] = static_cast<T>(1);
  });
  return y;
}

template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape) {
  if (static_cast<std::int64_t>(values.size()) != shape.numel())
    throw ShapeError(fmt::format(
        "from_vector: the count of values must be the size of the shape; got {} values for {}",
        values.size(), shape.str()));
  Tensor y = empty(shape, dtype_v<T>, "from_vector");
  std::copy(values.begin(), values.end(), y.mutable_data<T>());
  return y;
}
template Tensor from_vector<float>(const std::vector<float>&, const Shape&);
template Tensor from_vector<double>(const std::vector<double>&, const Shape&);
template Tensor from_vector<std::int64_t>(const std::vector<std::int64_t>&, const Shape&);
template Tensor from_vector<bool>(const std::vector<bool>&, const Shape&);

std::string to_string(const Tensor& x) {
  if (!x.defined()) return "undefined";
  const bool shorten = x.numel() > 1000;
  const Tensor dense = contiguous_data(x);
  std::string out;
  visit_any(x.dtype(), [&]<class T>() {
    const T* v = dense.data<T>();
    std::size_t width = 0;
    print_axis(out, x.shape(), 0, 0, x.numel(), shorten,
               [&](std::int64_t i) { width = std::max(width, format_element(v[i]).size()); });
    out.clear();
    print_axis(out, x.shape(), 0, 0, x.numel(), shorten,
               [&](std::int64_t i) { out += fmt::format("{:>{}}", format_element(v[i]), width); });
  });
  return out;
}

std::ostream& operator<<(std::ostream& os, const Tensor& x) { return os << to_string(x); }

}  // namespace capsfw
