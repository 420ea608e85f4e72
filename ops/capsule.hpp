#pragma once
// The primitives of capsules: norms that are safe at zero, the squash, votes, and the two sums of
// which every routing is made. B batch, I lower and J upper capsules, D capsule size.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// ‖x‖ = √Σx² over `axes`. Where the sum of squares is exactly 0 the value and all derivatives are
/// 0; no epsilon.   vjp: gx = gy x / ‖x‖.   saves: x.
Tensor safe_norm(const Tensor& x, const Axes& axes = {-1}, bool keepdim = false);

/// x / ‖x‖ along an axis; value and all derivatives 0 where Σx² is 0.   Composed of safe_norm.
Tensor safe_normalize(const Tensor& x, int axis = -1);

/// v = ‖s‖ / (c + ‖s‖²) · s along an axis: the direction of s with length ‖s‖² / (c + ‖s‖²) < 1.
/// c = 1: Sabour, Frosst, Hinton 2017, eq (1); c = 0.5: Su 2018, From K-Means to Capsule. Value and
/// first derivative are 0 at s = 0, where the second derivative is defined as 0. Any length in f32;
/// in f64 up to 1e75, above which products of squares overflow.   ValueError unless c is
/// a positive normal number of the type.   vjp:
/// gs = f gv + f′/‖s‖ ⟨s, gv⟩ s with f = ‖s‖ / (c + ‖s‖²).   saves: s. Fused along the last axis;
/// reference: squash_reference.
Tensor squash(const Tensor& s, double c = 1.0, int axis = -1);
Tensor squash_reference(const Tensor& s, double c = 1.0, int axis = -1);

/// v = (1 − e^(−‖s‖)) s/‖s‖ along an axis: length at most 1, and almost s for short s, so that a
/// short capsule passes its gradient on (squash damps it). At s = 0 the value is 0, the first
/// derivative the identity, and the second, which depends on the direction there, is defined as 0.
/// Composed of safe_norm; the factor is a series for ‖s‖ < 0.02.   Mazzia, Salvetti, Chiaberge
/// 2021, Efficient-CapsNet, the squash of section 3.
Tensor squash_exp(const Tensor& s, int axis = -1);

/// û_{j|i} = W_ij u_i: u [B, I, E], W [I, J, D, E] -> [B, I, J, D].   Composed of einsum, as all
/// votes.   Sabour et al. 2017, eq (2).
Tensor votes_full(const Tensor& u, const Tensor& weight);
/// û_{j|i} = W_j u_i: u [B, I, E], W [J, D, E] -> [B, I, J, D]; any number of lower capsules.
/// Composed of einsum.
Tensor votes_shared(const Tensor& u, const Tensor& weight);
/// û_{j|i} = W_j W̃_i u_i: u [B, I, E], W [J, D, M], W̃ [I, M, E] -> [B, I, J, D].
/// Composed of einsum.   Su 2018.
Tensor votes_factorised(const Tensor& u, const Tensor& weight, const Tensor& lower);
/// V_ij = P_i W_ij, flattened row-major: pose [B, I, P, P], W [I, J, P, P] -> [B, I, J, P²].
/// Composed of einsum.   Hinton, Sabour, Frosst 2018, section 2.
Tensor votes_matrix(const Tensor& pose, const Tensor& weight);
/// W_ij / ‖W_ij‖_F over the last two axes; a zero matrix stays zero.   Composed of safe_normalize.
/// Wang, Liu 2018.
Tensor frobenius_normalize(const Tensor& weight);

/// s_j = Σ_i c_ij û_{j|i}: c [B, I, J], votes [B, I, J, D] -> [B, J, D].   vjp: agreement,
/// outer_votes.   saves: both.
Tensor weighted_sum(const Tensor& c, const Tensor& votes);
/// ⟨û_{j|i}, v_j⟩: votes [B, I, J, D], v [B, J, D] -> [B, I, J].   vjp: outer_votes, weighted_sum.
/// saves: both.
Tensor agreement(const Tensor& votes, const Tensor& v);
/// c_ij v_j: c [B, I, J], v [B, J, D] -> [B, I, J, D]: closes the two sums under differentiation.
/// vjp: agreement, weighted_sum.   saves: both.
Tensor outer_votes(const Tensor& c, const Tensor& v);

}  // namespace capsfw
