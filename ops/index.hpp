#pragma once
// Reading and adding by index, sorting, masks. Indices are i64 and count from 0; one that is
// negative or beyond its axis is a ValueError naming op, index and length, any other index type a
// DTypeError. Sums over repeated indices run in the order of the indices: the same bits for any
// number of threads. gather and scatter_add, index_select and index_add are each other's adjoints.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// y[i, j, k] = x[i, index[i, j, k], k] for axis 1: `index` has the rank of x and may be shorter on
/// the other axes.   vjp: gx = scatter_add(x.shape, axis, index, gy).   saves: index.
Tensor gather(const Tensor& x, int axis, const Tensor& index);

/// Zeros of `shape` with every src[i, j, k] added at [i, index[i, j, k], k] (axis 1).
/// vjp: gsrc = gather(gy, axis, index).   saves: index.   ShapeError unless index and src have the
/// same shape, which fits into `shape` on the other axes.
Tensor scatter_add(const Shape& shape, int axis, const Tensor& index, const Tensor& src);

/// The positions index [n] of an axis, in that order, with repetition.
/// vjp: gx = index_add(x.size(axis), axis, index, gy).   saves: index.
Tensor index_select(const Tensor& x, int axis, const Tensor& index);

/// Zeros with `rows` positions along the axis, to which position k of src is added at index[k].
/// vjp: gsrc = index_select(gy, axis, index).   saves: index.
Tensor index_add(std::int64_t rows, int axis, const Tensor& index, const Tensor& src);

/// Rows of a table [V, E] by ids of any shape -> [..., E]; repeated ids add their gradients.
/// vjp and saves: as index_select along axis 0.
Tensor embedding(const Tensor& table, const Tensor& ids);

/// labels [...] in [0, classes) -> [..., classes] with a single 1. No gradient.
Tensor one_hot(const Tensor& labels, std::int64_t classes, DType dtype = DType::f32);

/// Several labels each, [..., K] in [0, classes) -> [..., classes] with a 1 at every one that is
/// named, once or more. No gradient.
Tensor multi_hot(const Tensor& labels, std::int64_t classes, DType dtype = DType::f32);

/// y = mask ? value : x.   vjp: gx = where(mask, 0, gy).   saves: mask (b8).   ShapeError unless
/// the mask broadcasts to x.
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);

/// Elements in order and where they were. values = gather(x, axis, indices), which is their
/// gradient; the indices have none.
struct Sorted {
  Tensor values, indices;  ///< and where they stood in x
};

/// The elements along an axis in order. Stable: equal elements keep their order. A NaN counts as
/// largest: last when ascending, first when descending.   Values composed of gather.
Sorted sort(const Tensor& x, int axis = -1, bool descending = false);
/// The indices of sort().
Tensor argsort(const Tensor& x, int axis = -1, bool descending = false);
/// The k largest (smallest) elements along an axis, in order; of equal ones the first come first. A
/// NaN counts as largest.   Values composed of gather.   ValueError unless 0 ≤ k ≤ x.size(axis).
Sorted topk(const Tensor& x, std::int64_t k, int axis = -1, bool largest = true);

}  // namespace capsfw
