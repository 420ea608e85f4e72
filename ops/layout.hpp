#pragma once
// Shapes and views. permute, slice, expand, split, flip and (where strides allow) reshape are
// views: they share memory and cost nothing. Their vjps are each other's adjoints.

#include <capsfw/core/tensor.hpp>
#include <capsfw/core/vspace.hpp>

namespace capsfw {

// broadcast_to(x, shape) and sum_to(x, shape) are declared in core/vspace.hpp.

/// The elements in row-major order under another shape; one length may be −1. A view where
/// possible. vjp: gx = reshape(gy, x.shape).   saves: nothing.   ShapeError if the sizes differ.
Tensor reshape(const Tensor& x, const Shape& shape);
/// Merges axes [first, last] into one.   Composed of reshape.
Tensor flatten(const Tensor& x, int first = 0, int last = -1);
/// Axis i of the result is axis order[i] of x.   vjp: gx = permute(gy, inverse order).   saves:
/// nothing.
Tensor permute(const Tensor& x, const Axes& order);
/// Exchanges two axes.   Composed of permute.
Tensor transpose(const Tensor& x, int a = -2, int b = -1);
/// Inserts an axis of length 1 before position `axis` (negative: counted from the end of the
/// result).   Composed of reshape.
Tensor unsqueeze(const Tensor& x, int axis);
/// Removes an axis of length 1.   Composed of reshape.   ShapeError if it is longer.
Tensor squeeze(const Tensor& x, int axis);
/// A row-major copy, or x itself if it is row-major.   vjp: gx = gy.
Tensor contiguous(const Tensor& x);

/// Elements begin, begin + step, ... below `end` along an axis; negative bounds count from the end,
/// bounds beyond the axis are clipped.   vjp: gx = slice_scatter(gy).   saves: nothing. ValueError
/// unless step ≥ 1.
Tensor slice(
    const Tensor& x, int axis, std::int64_t begin, std::int64_t end, std::int64_t step = 1);
/// `length` elements from `start`.   Composed of slice.   ShapeError if they are not all there.
Tensor narrow(const Tensor& x, int axis, std::int64_t start, std::int64_t length);
/// One position of an axis, which disappears.   Composed of slice and squeeze.
Tensor select(const Tensor& x, int axis, std::int64_t index);
/// Zeros of `shape` with x written at the positions that slice(axis, begin, end, step) reads: the
/// adjoint of slice.   vjp: gx = slice(gy).   saves: nothing.
Tensor slice_scatter(const Tensor& x,
                     const Shape& shape,
                     int axis,
                     std::int64_t begin,
                     std::int64_t end,
                     std::int64_t step = 1);
/// Zeros before and after each axis: {before_0, after_0, before_1, after_1, ...} for the LAST axes
/// given first, as in PyTorch: pad(x, {1, 2, 0, 1}) pads the last axis by (1, 2) and the one before
/// by (0, 1). vjp: gx = the inner slice of gy.   saves: nothing.   ValueError for negative widths.
Tensor pad(const Tensor& x, const std::vector<std::int64_t>& widths);
/// Reverses the order along axes.   vjp: gx = flip(gy).   saves: nothing.
Tensor flip(const Tensor& x, const Axes& axes);

/// Joins along an axis.   vjp: slices of gy.   saves: nothing.   ShapeError unless all other axes
/// agree.
Tensor cat(const TensorList& parts, int axis = 0);
/// Joins along a new axis.   Composed of unsqueeze and cat.
Tensor stack(const TensorList& parts, int axis = 0);
/// Consecutive pieces of `length` (the last may be shorter) along an axis, as views.
/// vjp: gx = cat(gy).   saves: nothing.
TensorList split(const Tensor& x, std::int64_t length, int axis = 0);
/// Pieces of the given lengths, which must add up to the axis.   vjp and saves: as above.
TensorList split(const Tensor& x, const std::vector<std::int64_t>& lengths, int axis = 0);
/// All positions of an axis, which disappears, as views: the inverse of stack.   Composed of split.
TensorList unbind(const Tensor& x, int axis = 0);

/// y = x on the diagonal [n] of the last two axes [n, n].   vjp: gx has gy on its diagonal.
Tensor diagonal(const Tensor& x);

}  // namespace capsfw
