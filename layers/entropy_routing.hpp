#pragma once

#include <vector>

#include <capsfw/layers/routing.hpp>

namespace capsfw {

/// Options of entropy_routing.
struct EntropyRoutingOptions {
  /// Temperature α_t of each iteration (alpha_schedule makes an annealed list); the last is never
  /// used.
  std::vector<double> alphas = {1.0, 0.5, 0.25};
  bool detach = false;  ///< couplings are constants: the gradient passes only the last weighted sum
};

/// Entropy-regularised routing, Wang, Liu 2018, An Optimization View on Dynamic Routing Between
/// Capsules, Algorithm 1. From b_ij = 0, for each α_t:
///   c_ij = softmax_j(b_ij);  s_j = Σ_i c_ij û_{j|i};  b_ij = ⟨û_{j|i}, s_j / ‖s_j‖⟩ / α_t
/// and v_j = s_j / (1 + max_k ‖s_k‖), the maximum taken per sample and differentiated. The layer of
/// the paper votes with Frobenius-normalised weights (frobenius_normalize). ShapeError unless votes
/// are [B, I, J, D], ValueError without temperatures or with one that is not positive.
Routed entropy_routing(const Tensor& votes, const EntropyRoutingOptions& options = {});

}  // namespace capsfw
