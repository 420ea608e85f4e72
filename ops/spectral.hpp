#pragma once
// The spectral norm of matrices, the last two axes of w [..., m, n]: exact for small ones, by power
// iteration for any. f32 or f64; ShapeError unless there are two axes of at least one element.

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// ‖w‖₂, the largest singular value: [..., m, n] -> [...]. vjp: gw = gy u vᵀ with the leading
/// singular vectors, which are differentiated in turn (by a linear system, see spectral.cpp):
/// gradients exist to any order where the largest singular value is simple. Where it is not, u vᵀ
/// is one of the subgradients and a second derivative a ValueError; a zero matrix has gradient 0.
/// Saves: w. Jacobi's eigenvalue method on the smaller of w wᵀ and wᵀw, in double: k³ flops and
/// more for k = min(m, n), meant for k up to some hundreds. A NaN or infinity gives NaN.
Tensor spectral_norm(const Tensor& w);

/// What power_iteration returns.
struct PowerIteration {
  Tensor sigma;        ///< uᵀ w v [...]
  Tensor u, v;         ///< unit vectors [..., m] and [..., n], constants
  int iterations = 0;  ///< taken
};

/// Repeats v ← wᵀu / ‖wᵀu‖, u ← w v / ‖w v‖ from u0 [..., m] and returns σ = uᵀ w v ≤ ‖w‖₂.
/// u and v are constants: the gradient of σ is u vᵀ and there is no second one (Miyato et al. 2018,
/// Spectral Normalization for GANs, section 2.1 and appendix A).   ValueError for less than one
/// iteration.
PowerIteration power_iteration(const Tensor& w, const Tensor& u0, int iterations);

/// Options of the converged power iteration.
struct PowerOptions {
  double tolerance = 1e-8;  ///< of the residual ‖wᵀu − σ v‖ / σ; not below a few ulps of the type
  int max_iterations = 5000;  ///< then it gives up
  std::uint64_t seed = 0;     ///< of u0
};

/// The same from a random u0 until the residual of every matrix is small, which bounds the distance
/// of σ to a singular value by tolerance · σ (and by its square over the gap, if there is a gap).
/// Gradient as above.   ValueError for options out of range.
PowerIteration power_iteration(const Tensor& w, const PowerOptions& options = {});

}  // namespace capsfw
