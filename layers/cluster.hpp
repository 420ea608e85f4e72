#pragma once
// Clustering of a data matrix as an ordinary differentiable graph: smooth extrema and K-means. Data
// u [B, N, D] or [N, D], centres v [B, k, D] or [k, D]; results have the batch axis that the data
// have. Gaussian mixtures are in gmm.hpp, fuzzy clustering in fuzzy.hpp. B batch, N points, k
// clusters, D size.

#include <cstdint>
#include <string_view>

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/fixed_point.hpp>

namespace capsfw {

/// smax_K(x) = (1/K) ln Σ e^(K x) along an axis, with the maximum subtracted: at least max x and at
/// most ln(n)/K above it.   ValueError unless K is positive and finite.   Su 2018, From K-Means to
/// Capsule, eq (4).
Tensor smooth_max(const Tensor& x, double sharpness, int axis = -1);
/// smin_K(x) = −smax_K(−x).   Su 2018, eq (5).
Tensor smooth_min(const Tensor& x, double sharpness, int axis = -1);

/// w_ij = a_i R_ij / Σ_i a_i R_ij from l = ln R [..., I, J], without underflow of R: the weights of
/// a mean over i. a [..., I] or undefined (all ones). 0/0 = 0, also where all l_ij of a column are
/// −∞; a total too small to be divided by (below 1e-31 in f32) counts as 0.   ShapeError unless a
/// fits.
Tensor log_normalize_weights(const Tensor& log_weights, const Tensor& activation = {});

/// How far a point is from a centre.
enum class ClusterMetric : std::uint8_t {
  euclid,  ///< d = ‖u − v‖²
  inner    ///< d = −⟨u, v/‖v‖⟩; a centre that is 0 is at distance 0 from everything
};

/// The metric named "euclid" or "inner"; ValueError otherwise.
ClusterMetric cluster_metric(std::string_view name);

/// d(u_i, v_j) [B, N, k].   ShapeError on sizes that do not fit.
Tensor cluster_distances(const Tensor& u, const Tensor& v, ClusterMetric metric);

/// L_K = −(1/K) Σ_i ln Σ_j e^(−K d_ij) [B]: Su 2018, eq (6).   L_K ≤ L ≤ L_K + N ln(k)/K.
Tensor smoothed_kmeans_loss(const Tensor& u,
                            const Tensor& v,
                            double sharpness,
                            ClusterMetric metric);
/// L = Σ_i min_j d_ij [B]: Su 2018, eq (2). The gradient of equally near centres is split evenly.
Tensor hard_kmeans_loss(const Tensor& u, const Tensor& v, ClusterMetric metric);

/// Options of kmeans_soft and kmeans_hard.
struct KmeansOptions {
  int iterations = 10;     ///< at most
  double sharpness = 1.0;  ///< K, an inverse temperature; kmeans_hard has none
  ClusterMetric metric = ClusterMetric::euclid;  ///< distance
  bool losses = true;  ///< compute them; costs one more pass over the distances
};

/// What a K-means returns.
struct Clustering {
  Tensor centres;    ///< v [B, k, D]
  Tensor couplings;  ///< c of the last iteration, that is, of the centres before it [B, N, k]
  Tensor losses;     ///< at the first centres and after each iteration [B, iterations + 1]; or none
};

/// Soft K-means from given centres, Su 2018, eqs (7) to (13). Each iteration:
///   c_ij = softmax_j(−K d_ij)
///   v_j = Σ_i c_ij u_i / Σ_i c_ij (euclid) or Σ_i c_ij u_i (inner)
/// The ratio is formed from ln c and stays finite if every c_ij of a cluster underflows. The loss
/// L_K never rises. Gradients pass through all iterations, to u and to the first centres.
/// ShapeError on sizes that do not fit; ValueError for no points, no centres, a K that is not
/// positive and finite, or fewer than 1 iteration.
Clustering kmeans_soft(const Tensor& u, const Tensor& centres, const KmeansOptions& options = {});

/// Lloyd's K-means from given centres, the limit K → ∞: c is one-hot of the nearest centre, ties to
/// the lowest index; v is the mean (euclid) or sum (inner) of the members, and a cluster without
/// members keeps its centre. The loss L never rises. c is a constant to the gradient, which passes
/// through the means.   Errors: as kmeans_soft, also for a K that it does not use.   Lloyd 1982; Su
/// 2018, eq (2).
Clustering kmeans_hard(const Tensor& u, const Tensor& centres, const KmeansOptions& options = {});

/// First centres [B, k, D] among the points: the first uniform, each other with probability
/// proportional to its squared distance from the nearest centre chosen so far; where all that is
/// left coincides with centres, uniform among the points not chosen. The choice is a constant, the
/// gradient goes to the chosen points.   ShapeError unless u is [B, N, D] or [N, D]; ValueError
/// unless 1 ≤ k ≤ N, or if u is not finite.   Arthur, Vassilvitskii 2007, k-means++, section 2.2.
Tensor kmeans_plus_plus(const Tensor& u, std::int64_t k, Rng& rng);

/// What kmeans_soft_converged returns.
struct ConvergedKmeans {
  Tensor centres;          ///< v [B, k, D], v = step(v)
  Tensor couplings;        ///< c at these centres [B, N, k]
  Tensor loss;             ///< L_K at these centres [B]
  int iterations = 0;      ///< made
  bool converged = false;  ///< see FixedPoint
};

/// kmeans_soft until its centres stand still, with the implicit gradient of fixed_point: no
/// unrolled graph, and no gradient for the first centres. `options.iterations` is not used.
/// Errors: as kmeans_soft and fixed_point.
ConvergedKmeans kmeans_soft_converged(const Tensor& u,
                                      const Tensor& centres,
                                      const KmeansOptions& options = {},
                                      const FixedPointOptions& fixed_point = {});

}  // namespace capsfw
