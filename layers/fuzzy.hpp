#pragma once
// Fuzzy clustering by coordinate descent, of which the vector routings are cases, and what it
// descends on. Votes û [B, I, J, D], couplings c [B, I, J], directions s [B, J, D]; data u [B, N,
// D] or [N, D] are votes that are the same for every cluster.

#include <vector>

#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/fixed_point.hpp>

namespace capsfw {

/// F = −Σ_ij w_j c_ij ⟨û_{j|i}, s_j⟩ + Σ_i KL(c_i ‖ c_i^old) [B], with w [B, J] and 0 ln 0 = 0.
/// ShapeError on sizes that do not fit.   Wang, Liu 2018, as in Su 2018, eq (15).
Tensor kl_objective(
    const Tensor& votes, const Tensor& c, const Tensor& s, const Tensor& w, const Tensor& c_old);

/// F = −Σ_ij c_ij ⟨û_{j|i}, s_j⟩ + α Σ_ij c_ij ln c_ij [B], 0 ln 0 = 0.   ShapeError on sizes that
/// do not fit.   Su 2018, eq (38).
Tensor entropy_objective(const Tensor& votes, const Tensor& c, const Tensor& s, double alpha);

/// What the descents return.
struct FuzzyClustering {
  Tensor centres;     ///< [B, J, D]: v_j = w_j s_j (KL) or s_j (entropy)
  Tensor couplings;   ///< [B, I, J], of these centres
  Tensor objectives;  ///< F(c_old, s_old), F(c_old, s_new), F(c_new, s_new) [B, iterations, 3]
};

/// Descent on kl_objective, Su 2018, eqs (28), (35) to (37). From c = 1/J and s = 0:
///   ŝ_j = Σ_i c_ij û_{j|i};   s_j = ŝ_j/‖ŝ_j‖;   w_j = ‖ŝ_j‖²/(1 + ‖ŝ_j‖²)
///   c_ij ∝ c_ij e^(w_j ⟨û_{j|i}, s_j⟩)
/// The centres are the poses of dynamic_routing with as many iterations. With w and c_old held, no
/// half step raises F; from one iteration to the next it may rise. ShapeError unless votes are
/// [B, I, J, D]; ValueError for iterations < 1.
FuzzyClustering kl_trace(const Tensor& votes, int iterations);

/// Descent on entropy_objective, one iteration per α, Su 2018, eqs (39), (40). From c = 1/J, s = 0:
///   s_j = Σ_i c_ij û_{j|i}, normalised;   c_ij = softmax_j(⟨û_{j|i}, s_j⟩/α)
/// For constant α no half step raises F. ShapeError unless votes are [B, I, J, D]; ValueError for
/// no α or one that is not positive.
FuzzyClustering entropy_trace(const Tensor& votes, const std::vector<double>& alphas);

/// kl_trace of data from given centres v [B, k, D], since equal votes never part from uniform
/// couplings: s = v/‖v‖, w = ‖v‖²/(1 + ‖v‖²) make the first couplings from uniform ones.
/// ShapeError on sizes that do not fit; ValueError for no points, no centres, iterations < 1;
/// OverflowError where finite data give an objective that is not.
FuzzyClustering kl_clustering(const Tensor& u, const Tensor& centres, int iterations);

/// entropy_trace of data from given centres: s = v/‖v‖ and the first α make the first couplings.
/// Errors: as kl_clustering, and for α as entropy_trace.
FuzzyClustering entropy_clustering(const Tensor& u,
                                   const Tensor& centres,
                                   const std::vector<double>& alphas);

/// What entropy_clustering_converged returns.
struct ConvergedFuzzy {
  Tensor centres;          ///< unit vectors s [B, k, D], s = step(s)
  Tensor couplings;        ///< of these centres [B, N, k]
  Tensor objective;        ///< F at both [B]
  int iterations = 0;      ///< made
  bool converged = false;  ///< see FixedPoint
};

/// entropy_clustering with a constant α until its centres stand still, with the implicit gradient
/// of fixed_point: no unrolled graph, and no gradient for the first centres. (The KL descent has no
/// such version: its couplings sharpen for ever, until they are hard.)   Errors: as
/// entropy_clustering and fixed_point.
ConvergedFuzzy entropy_clustering_converged(const Tensor& u,
                                            const Tensor& centres,
                                            double alpha,
                                            const FixedPointOptions& fixed_point = {});

/// Ψ_t = Σ_j (n_j − √c atan(n_j/√c)), n_j = ‖Σ_i c_ij û_{j|i}‖, at each iteration of
/// dynamic_routing with this squash constant [B, iterations]. Convex in the couplings with
/// ∂Ψ/∂c_ij = ⟨û_{j|i}, squash_c(s_j)⟩: the routing is exponentiated-gradient ascent with step 1 on
/// it (Kivinen, Warmuth 1997), so that Ψ never falls.   ShapeError unless votes are [B, I, J, D];
/// ValueError for iterations < 1 or c ≤ 0.
Tensor dynamic_routing_potential(const Tensor& votes, int iterations, double squash_c = 1.0);

}  // namespace capsfw
