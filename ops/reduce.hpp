#pragma once
// Reductions. `axes` empty means all axes; negative axes count from the last; `keepdim` leaves the
// reduced axes with length 1. Sums of f32 accumulate in double. Results do not depend on the number
// of threads. ShapeError for axes out of range or repeated.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Σ x.   vjp: gx = gy expanded.   saves: nothing.   The sum of nothing is 0.
Tensor sum(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Σ x / n.   vjp: gx = gy / n expanded.   The mean of nothing is NaN.
Tensor mean(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Σ (x − mean)² / (n − correction), in two passes.   Composed of mean, square and sum.
Tensor var(const Tensor& x, const Axes& axes = {}, double correction = 1, bool keepdim = false);
/// Π x over one axis.   vjp: gx_i = gy Π_{k≠i} x_k, right with zeros too.   saves: x.   The product
/// of nothing is 1.
Tensor prod(const Tensor& x, int axis, bool keepdim = false);
/// Largest element.   vjp: gy, split evenly among equal maximisers.   saves: x, y.   NaN if any is
/// NaN. ShapeError if there is nothing to take it of.
Tensor max(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Smallest element; its vjp and the rest as for max.
Tensor min(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// Index of the first maximiser along an axis, as i64; a NaN counts as largest. No gradient.
/// ShapeError if the axis is empty.
Tensor argmax(const Tensor& x, int axis, bool keepdim = false);
/// Index of the first minimiser along an axis, as i64; a NaN counts as smallest. No gradient.
/// ShapeError if the axis is empty.
Tensor argmin(const Tensor& x, int axis, bool keepdim = false);
/// ln Σ e^x with the maximum subtracted.   vjp: gx = gy e^(x − y), 0 where x = −∞.   saves: x, y.
Tensor logsumexp(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// y_i = Σ_{k≤i} x_k along an axis.   vjp: gx_i = Σ_{k≥i} gy_k.   saves: nothing.
Tensor cumsum(const Tensor& x, int axis);

/// ‖x‖₂ = √Σx².   Value 0 and gradient 0 where x = 0, to any order (safe_norm of ops/capsule.hpp).
Tensor norm(const Tensor& x, const Axes& axes = {}, bool keepdim = false);
/// ‖x‖₁ = Σ|x|; gradient 0 where an element is 0.
Tensor norm1(const Tensor& x, const Axes& axes = {}, bool keepdim = false);

}  // namespace capsfw
