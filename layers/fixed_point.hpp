#pragma once
// Differentiation at a fixed point: what an iteration converges to, without its unrolled graph.

#include <functional>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// One iteration x' = f(x, θ): (state, inputs) -> state of the same shapes, in public ops. Tensors
/// that it captures are constants to the gradient; what shall have one belongs into the inputs.
using FixedPointStep = std::function<TensorList(const TensorList&, const TensorList&)>;

/// Options of fixed_point().
struct FixedPointOptions {
  double tolerance = 1e-6;    ///< stop when max |x' − x| ≤ tolerance · max(1, max |x'|)
  int max_iterations = 1000;  ///< of the forward iteration
  double backward_tolerance = 1e-10;  ///< of the adjoint system, relative to its right side; in f32
                                      ///< not below 1e-6
  int backward_iterations = 500;      ///< products with ∂f/∂x at most, per solution
};

/// What fixed_point() returns.
struct FixedPoint {
  TensorList state;        ///< the last x
  int iterations = 0;      ///< made
  double change = 0;       ///< max |x' − x| of the last one
  bool converged = false;  ///< the tolerance was met; without it gradients are approximate
};

/// Iterates x ← f(x, θ) from `x0`, recording nothing, so that memory does not grow with the number
/// of iterations. The gradient is that of the point reached, by the implicit function theorem:
///   w = (I − ∂f/∂x)⁻ᵀ gx  by restarted GMRES on vector-Jacobian products,   gθ = (∂f/∂θ)ᵀ w
/// of one graph of a single step at the end (Bai, Kolter, Koltun 2019, Deep Equilibrium Models,
/// theorem 1; Saad, Schultz 1986, GMRES). x0 gets no gradient: an attracting fixed point does not
/// depend on it. Derivatives of every order exist, because w is a fixed point itself:
/// w = gx + (∂f/∂x)ᵀ w. The samples of a batch stop together, when the last one stands still.
/// ValueError for options out of range or an empty state; ShapeError if f changes shapes; in the
/// backward pass GradError if the adjoint system cannot be solved (I − ∂f/∂x is singular).
FixedPoint fixed_point(const FixedPointStep& step,
                       const TensorList& x0,
                       const TensorList& inputs,
                       const FixedPointOptions& options = {});

}  // namespace capsfw
