#include <capsfw/ops/layout.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>

#include "../core/strided.hpp"

namespace capsfw {
namespace {

/// Strides that view x under another shape without a copy, if there are any: axes that were split
/// or merged must be contiguous among themselves.
bool view_strides(const Tensor& x, const Shape& shape, Strides& out) {
  if (x.is_contiguous()) {
    out = contiguous_strides(shape);
    return true;
  }
  if (x.numel() == 0) return false;
  const detail::StridedLoop merged(x.shape(), {x.strides()});  // runs of axes without gaps inside
  out = Dims::filled(shape.rank(), 0);
  int next = shape.rank() - 1;
  for (int i = merged.shape().rank() - 1; i >= 0; --i) {
    std::int64_t filled = 1;
    for (; next >= 0 && filled < merged.shape()[i]; --next) {
      if (merged.shape()[i] % (filled * shape[next]) != 0) return false;
      out[next] = merged.stride(0, i) * filled;
      filled *= shape[next];
    }
    if (filled != merged.shape()[i]) return false;
  }
  return true;  // what is left has length 1
}

Shape resolved(const Tensor& x, Shape shape) {
  int free = -1;
  Shape others;
  for (int i = 0; i < shape.rank(); ++i) {
    if (shape[i] == -1 && free < 0)
      free = i;
    else if (shape[i] < 0)
      throw ShapeError(
          fmt::format("reshape: lengths must not be negative, one may be -1; got {}", shape.str()));
    else
      others.push_back(shape[i]);
  }
  const std::int64_t known = others.numel();
  if (free >= 0 && known > 0 && x.numel() % known == 0) shape[free] = x.numel() / known;
  if ((free >= 0 && shape[free] < 0) || shape.numel() != x.numel())
    throw ShapeError(
        fmt::format("reshape: the sizes must be equal; got x = {} ({} elements), target = {}",
                    x.shape().str(), x.numel(), shape.str()));
  return shape;
}

struct Range {
  std::int64_t begin, length;
};

Range clipped(
    std::int64_t n, std::int64_t begin, std::int64_t end, std::int64_t step, const char* op) {
  if (step < 1)
    throw ValueError(
        fmt::format("{}: the step must be at least 1; got {}. Hint: flip() reverses", op, step));
  const auto bound = [n](std::int64_t v) {
    return std::clamp<std::int64_t>(v < 0 ? v + n : v, 0, n);
  };
  const std::int64_t b = bound(begin), e = bound(end);
  return {b, e > b ? (e - b - 1) / step + 1 : 0};
}

/// A view of every step-th element; plain data.
Tensor sliced(const Tensor& x, int axis, const Range& r, std::int64_t step) {
  Shape shape = x.shape();
  Strides strides = x.strides();
  const std::int64_t start = r.length > 0 ? r.begin : 0;
  shape[axis] = r.length;
  if (r.length > 1) strides[axis] *= step;  // of one element, any step is as good
  return strided_view(x, shape, strides, x.offset() + start * x.strides()[axis]);
}

}  // namespace

Tensor reshape(const Tensor& x, const Shape& wanted) {
  const Shape shape = resolved(x, wanted), old = x.shape();
  if (shape == old) return x;
  Strides strides;
  const Tensor y = view_strides(x, shape, strides)
                       ? strided_view(x, shape, strides, x.offset())
                       : strided_view(contiguous_data(x), shape, contiguous_strides(shape), 0);
  return record("reshape", {x}, y, Save::none,
                [old](const Saved&, const Tensor& gy) { return reshape(gy, old); });
}

Tensor flatten(const Tensor& x, int first, int last) {
  if (x.dim() == 0) return reshape(x, {1});
  const int a = normalize_axis(first, x.dim(), "flatten"),
            b = normalize_axis(last, x.dim(), "flatten");
  if (a > b)
    throw ShapeError(fmt::format(
        "flatten: the first axis must not lie behind the last; got {} and {}", first, last));
  Shape shape;
  for (int i = 0; i < a; ++i) shape.push_back(x.shape()[i]);
  std::int64_t merged = 1;
  for (int i = a; i <= b; ++i) merged *= x.shape()[i];
  shape.push_back(merged);
  for (int i = b + 1; i < x.dim(); ++i) shape.push_back(x.shape()[i]);
  return reshape(x, shape);
}

Tensor permute(const Tensor& x, const Axes& order) {
  const int rank = x.dim();
  if (order.rank() != rank)
    throw ShapeError(
        fmt::format("permute: the order must name every axis once; got x = {}, order = {}",
                    x.shape().str(), order.str()));
  Shape shape;
  Strides strides;
  Axes inverse = Dims::filled(rank, -1);
  for (int i = 0; i < rank; ++i) {
    const int a = normalize_axis(order[i], rank, "permute");
    if (inverse[a] >= 0)
      throw ShapeError(
          fmt::format("permute: the order must name every axis once; got {}", order.str()));
    inverse[a] = i;
    shape.push_back(x.shape()[a]);
    strides.push_back(x.strides()[a]);
  }
  return record("permute", {x}, strided_view(x, shape, strides, x.offset()), Save::none,
                [inverse](const Saved&, const Tensor& gy) { return permute(gy, inverse); });
}

Tensor transpose(const Tensor& x, int a, int b) {
  Axes order;
  for (int i = 0; i < x.dim(); ++i) order.push_back(i);
  std::swap(order[normalize_axis(a, x.dim(), "transpose")],
            order[normalize_axis(b, x.dim(), "transpose")]);
  return permute(x, order);
}

Tensor unsqueeze(const Tensor& x, int axis) {
  Shape shape = x.shape();
  shape.insert(normalize_axis(axis, x.dim() + 1, "unsqueeze"), 1);
  return reshape(x, shape);
}

Tensor squeeze(const Tensor& x, int axis) {
  Shape shape = x.shape();
  const int a = normalize_axis(axis, x.dim(), "squeeze");
  if (shape[a] != 1)
    throw ShapeError(fmt::format("squeeze: the axis must have length 1; got x = {}, axis {}",
                                 shape.str(), axis));
  shape.erase(a);
  return reshape(x, shape);
}

Tensor contiguous(const Tensor& x) {
  if (x.is_contiguous()) return x;
  return record("contiguous", {x}, contiguous_data(x), Save::none,
                [](const Saved&, const Tensor& gy) { return gy; });
}

Tensor slice(const Tensor& x, int axis, std::int64_t begin, std::int64_t end, std::int64_t step) {
  const int a = normalize_axis(axis, x.dim(), "slice");
  const Range r = clipped(x.shape()[a], begin, end, step, "slice");
  const Shape full = x.shape();
  return record(
      "slice", {x}, sliced(x, a, r, step), Save::none,
      [=](const Saved&, const Tensor& gy) { return slice_scatter(gy, full, a, begin, end, step); });
}

Tensor slice_scatter(const Tensor& x,
                     const Shape& shape,
                     int axis,
                     std::int64_t begin,
                     std::int64_t end,
                     std::int64_t step) {
  const int a = normalize_axis(axis, shape.rank(), "slice_scatter");
  const Range r = clipped(shape[a], begin, end, step, "slice_scatter");
  Tensor y = zeros(shape, x.dtype(), "slice_scatter");
  Tensor target = sliced(y, a, r, step);
  if (target.shape() != x.shape())
    throw ShapeError(fmt::format(
        "slice_scatter: x must have the shape of the slice; got x = {}, slice = {} of {}",
        x.shape().str(), target.shape().str(), shape.str()));
  target.copy_(x);
  return record("slice_scatter", {x}, y, Save::none,
                [=](const Saved&, const Tensor& gy) { return slice(gy, a, begin, end, step); });
}

Tensor narrow(const Tensor& x, int axis, std::int64_t start, std::int64_t length) {
  const int a = normalize_axis(axis, x.dim(), "narrow");
  if (start < 0 || length < 0 || start > x.shape()[a] - length)
    throw ShapeError(fmt::format("narrow: axis {} has no {} elements from {} on; got x = {}", axis,
                                 length, start, x.shape().str()));
  return slice(x, a, start, start + length);
}

Tensor select(const Tensor& x, int axis, std::int64_t index) {
  const int a = normalize_axis(axis, x.dim(), "select");
  const std::int64_t n = x.shape()[a], i = index < 0 ? index + n : index;
  if (i < 0 || i >= n)
    throw ShapeError(fmt::format("select: index {} is out of range for axis {} of {}", index, axis,
                                 x.shape().str()));
  return squeeze(slice(x, a, i, i + 1), a);
}

Tensor pad(const Tensor& x, const std::vector<std::int64_t>& widths) {
  if (widths.size() % 2 != 0 || widths.size() / 2 > static_cast<std::size_t>(x.dim()))
    throw ShapeError(
        fmt::format("pad: two widths for each of the last axes; got x = {}, widths = [{}]",
                    x.shape().str(), fmt::join(widths, ", ")));
  Tensor y = x;
  for (int k = 0; 2 * static_cast<std::size_t>(k) < widths.size(); ++k) {
    const auto at = 2 * static_cast<std::size_t>(k);
    const std::int64_t before = widths[at], after = widths[at + 1];
    if (before < 0 || after < 0)
      throw ValueError(fmt::format("pad: widths must not be negative; got [{}]. Hint: slice()",
                                   fmt::join(widths, ", ")));
    if (before == 0 && after == 0) continue;
    const int a = x.dim() - 1 - k;
    Shape shape = y.shape();
    shape[a] += before + after;
    y = slice_scatter(y, shape, a, before, before + y.shape()[a]);
  }
  return y;
}

Tensor flip(const Tensor& x, const Axes& wanted) {
  const Axes axes = normalize_axes(wanted, x.dim(), "flip");
  Strides strides = x.strides();
  std::int64_t offset = x.offset();
  for (std::int64_t axis : axes) {
    if (x.numel() == 0) break;  // lengths of empty tensors may be too large to compute with
    const int a = static_cast<int>(axis);
    offset += strides[a] * (x.shape()[a] - 1);
    strides[a] = -strides[a];
  }
  return record("flip", {x}, strided_view(x, x.shape(), strides, offset), Save::none,
                [axes](const Saved&, const Tensor& gy) { return flip(gy, axes); });
}

Tensor cat(const TensorList& parts, int axis) {
  if (parts.empty()) throw ShapeError("cat: takes at least one tensor; got none");
  const int a = normalize_axis(axis, parts[0].dim(), "cat");
  Shape shape = parts[0].shape();
  shape[a] = 0;
  for (std::size_t k = 0; k < parts.size(); ++k) {
    Shape other = parts[k].shape();
    const bool same_rank = other.rank() == shape.rank();
    const std::int64_t n = same_rank ? other[a] : 0;
    if (same_rank) other[a] = shape[a];
    if (other != shape || parts[k].dtype() != parts[0].dtype())
      throw ShapeError(
          fmt::format("cat: parts must agree in type and in all axes but {}; got part 0 = {} {}, "
                      "part {} = {} {}",
                      axis, parts[0].shape().str(), name_of(parts[0].dtype()), k,
                      parts[k].shape().str(), name_of(parts[k].dtype())));
    shape[a] += n;
  }
  Tensor y = empty(shape, parts[0].dtype(), "cat");
  std::int64_t at = 0;
  for (const Tensor& p : parts) {
    sliced(y, a, {at, p.shape()[a]}, 1).copy_(p);
    at += p.shape()[a];
  }
  return record("cat", parts, y, Save::none,
                [a, n = static_cast<int>(parts.size())](const Saved& s, const Tensor& gy) {
                  TensorList g;
                  std::int64_t begin = 0;
                  for (int k = 0; k < n; ++k) {
                    const std::int64_t length = s.shape(k)[a];
                    g.push_back(s.needs(k) ? slice(gy, a, begin, begin + length) : Tensor());
                    begin += length;
                  }
                  return g;
                });
}

Tensor stack(const TensorList& parts, int axis) {
  TensorList expanded;
  for (const Tensor& p : parts) expanded.push_back(unsqueeze(p, axis));
  return cat(expanded, axis);
}

namespace {

/// Pieces that end at the given positions of axis a, as results of one op.
TensorList split_at(const Tensor& x, int a, const std::vector<std::int64_t>& ends) {
  TensorList parts;
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    parts.push_back(sliced(x, a, {begin, end - begin}, 1));
    begin = end;
  }
  return record_many("split", {x}, parts, Save::none,
                     [a](const Saved&, const TensorList& gy) { return TensorList{cat(gy, a)}; });
}

}  // namespace

TensorList split(const Tensor& x, std::int64_t length, int axis) {
  if (length < 1)
    throw ValueError(fmt::format("split: the length must be at least 1; got {}", length));
  const int a = normalize_axis(axis, x.dim(), "split");
  const std::int64_t n = x.shape()[a];
  std::vector<std::int64_t> ends;
  for (std::int64_t at = length; at < n; at += length) ends.push_back(at);
  ends.push_back(n);
  return split_at(x, a, ends);
}

TensorList split(const Tensor& x, const std::vector<std::int64_t>& lengths, int axis) {
  const int a = normalize_axis(axis, x.dim(), "split");
  std::vector<std::int64_t> ends;
  std::int64_t at = 0;
  for (const std::int64_t n : lengths) {
    if (n < 0 || n > x.shape()[a] - at) at = x.shape()[a] + 1;  // not all there
    if (at > x.shape()[a]) break;
    ends.push_back(at += n);
  }
  if (at != x.shape()[a])
    throw ShapeError(fmt::format("split: the lengths must add up to axis {} of {}; got [{}]", axis,
                                 x.shape().str(), fmt::join(lengths, ", ")));
  return split_at(x, a, ends);
}

TensorList unbind(const Tensor& x, int axis) {
  const int a = normalize_axis(axis, x.dim(), "unbind");
  if (x.shape()[a] == 0) return {};
  TensorList parts = split(x, 1, a);
  for (Tensor& part : parts) part = squeeze(part, a);
  return parts;
}

Tensor diagonal(const Tensor& x) {
  if (x.dim() < 2 || x.size(-1) != x.size(-2))
    throw ShapeError(
        fmt::format("diagonal: the last two axes must be equal; got {}", x.shape().str()));
  const std::int64_t n = x.size(-1);
  // Of the flattened matrix [n·n], padded to [n, n+1], the diagonal is the first column.
  Shape flat = x.shape();
  flat.erase(flat.rank() - 1);
  flat[flat.rank() - 1] = n * n;
  return slice(reshape(x, flat), -1, 0, n * n, n + 1);
}

}  // namespace capsfw
