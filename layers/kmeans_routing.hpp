#pragma once

#include <capsfw/layers/routing.hpp>

namespace capsfw {

/// Options of kmeans_routing.
struct KmeansRoutingOptions {
  int iterations = 3;     ///< r; makes r + 1 weighted sums, the uniform one counts
  double sharpness = 1;   ///< K of the softmax; the scale of the vote weights contains it
  double squash_c = 1.0;  ///< constant of the squash at the end
  bool detach = false;  ///< couplings are constants: the gradient passes only the last weighted sum
  bool hard = false;    ///< each child gives all to its best parent (the first one on ties)
};

/// Routing by K-means on normalised means, Su 2018, From K-Means to Capsule, eqs (12), (13). From
/// v_j = (1/J) Σ_i û_{j|i}, repeat r times:
///   v_j ← v_j / ‖v_j‖;  c_ij = softmax_j(K ⟨û_{j|i}, v_j⟩);  v_j ← Σ_i c_ij û_{j|i}
/// and squash once at the end. Unlike dynamic_routing the logits are replaced, not accumulated.
/// Hard couplings are constants; a parent without votes gets 0. With r = 0 the couplings are
/// uniform. ShapeError unless votes are [B, I, J, D], ValueError for r < 0, K ≤ 0 or c ≤ 0.
Routed kmeans_routing(const Tensor& votes, const KmeansRoutingOptions& options = {});

}  // namespace capsfw
