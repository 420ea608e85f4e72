#pragma once
// The vector-space operations that the engine itself needs: gradients are added, and summed back to
// the shape of an input that was broadcast. They are differentiable, and each other's adjoints.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// a + b with broadcasting.   vjp: ga = gy, gb = gy.   saves: nothing.
/// ShapeError if the shapes do not broadcast, DTypeError if the types differ.
Tensor add(const Tensor& a, const Tensor& b);

/// Σ over the axes on which `shape` has length 1 or no axis: the adjoint of broadcast_to.
/// vjp: gx = broadcast_to(gy, x.shape).   saves: nothing.   ShapeError unless `shape` broadcasts to
/// x's.
Tensor sum_to(const Tensor& x, const Shape& shape);

/// x repeated along the axes on which it has length 1, as a view without copies.
/// vjp: gx = sum_to(gy, x.shape).   saves: nothing.   ShapeError if impossible.
Tensor broadcast_to(const Tensor& x, const Shape& shape);

/// Adds `g` to `sum` in place where nobody else can see `sum`; false where somebody could. Never
/// recorded.
bool try_add_in_place(Tensor& sum, const Tensor& g);

}  // namespace capsfw
