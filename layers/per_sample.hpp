#pragma once
// The gradient of every sample of a batch by the parameters, without a loop over the batch.
//
// A layer that is linear in its parameters needs no more for them than its input and the gradient δ
// of its result, and both keep the samples apart: ∇_W f_b = δ_b x_bᵀ for Linear (Goodfellow 2015,
// Efficient per-example gradient computations), the same with patches for Conv2d, δ_ij u_iᵀ for the
// votes of capsules. So one backward pass of Σ_b f_b is enough, to every order. The graph of
// `values` tells where each parameter is used; any code may have computed them.
//
// Known uses: Linear and products with a matrix (any leading axes, samples first), Conv2d, einsum
// where the other operand and the result have the samples first (votes of capsules are such, full,
// shared, factorised, matrix; stored or not), and parameters that are added, subtracted or
// multiplied elementwise (biases, the affine part of layer norm and of batch norm in evaluation).
// GradError naming the parameter and the op for any other (learned priors of a routing, weights
// that are made of several parameters, fused loops of your own): for these
// param_gradient_penalty_per_sample runs sample by sample. Batch norm in training mode is refused.

#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// Options of the functions below.
struct PerSampleOptions {
  bool create_graph = false;  ///< record the result, to differentiate it again
};

/// ∇_θ f_b for all b: one tensor [B, p.shape...] for every parameter p of model.parameters(), in
/// that order; undefined where `values` [B] do not depend on p or p is frozen. B times the memory
/// of the parameters. The graph of `values` is kept.   ShapeError unless values are [B].
TensorList per_sample_gradients(const Tensor& values, Module& model, PerSampleOptions options = {});

/// Σ over all parameters of ‖∇_θ f_b‖²: [B]. Uses ‖δ_b x_bᵀ‖² = ‖δ_b‖² ‖x_b‖² where a layer sees
/// one row per sample, and the same per capsule for full votes, so that no gradient of the size of
/// B weights is formed there.
Tensor per_sample_square_norms(const Tensor& values, Module& model, PerSampleOptions options = {});

}  // namespace capsfw
