#pragma once
// Gaussian mixtures on a data matrix x [B, N, D] or [N, D], fitted by expectation-maximisation that
// is differentiable from end to end. Shapes below are those with a batch axis. Mixtures of votes:
// em_routing.hpp, where the cluster entropy is, too.

#include <cstdint>
#include <string_view>

#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/fixed_point.hpp>

namespace capsfw {

/// ln N(x_i; μ_j, Σ_j) = −½ ((x − μ)ᵀ Σ⁻¹ (x − μ) + ln det Σ + D ln 2π): x [B, N, D], mean
/// [B, k, D], covariance [B, k, D, D] -> [B, N, k]. Through the Cholesky factor of the symmetric
/// part of Σ.   ShapeError on sizes that do not fit; ValueError if a Σ is not positive definite.
/// Su 2018, New dynamic routing, eq (2).
Tensor gaussian_log_prob_full(const Tensor& x, const Tensor& mean, const Tensor& covariance);

/// The same for Σ_j = diag var_j: −½ Σ_h ((x − μ)² / var + ln var + ln 2π). Variance [B, k, D] ->
/// [B, N, k].   Su 2018, eq (10).
Tensor gaussian_log_prob_diag(const Tensor& x, const Tensor& mean, const Tensor& variance);

/// What a component may look like.
enum class Covariance : std::uint8_t {
  full,       ///< Σ_j [B, k, D, D]
  diag,       ///< a variance per dimension [B, k, D]
  spherical,  ///< one variance [B, k]
  fixed       ///< one variance of all components [], held: σ → 0 gives hard K-means
};

/// The kind named "full", "diag", "spherical" or "fixed"; ValueError otherwise.
Covariance covariance_kind(std::string_view name);

/// Parameters of a mixture.
struct GaussianMixture {
  Tensor means;       ///< μ [B, k, D]
  Tensor covariance;  ///< see Covariance
  Tensor weights;     ///< π [B, k], Σ_j π_j = 1
};

/// Means as given, variances all equal to that of the sample (mean over the dimensions; a fixed
/// one: over the samples, too; 1 where the data coincide), weights 1/k: a start for gmm_em.
/// Variances and weights are constants.   ShapeError on sizes that do not fit; ValueError for no
/// points.
GaussianMixture mixture_at(const Tensor& x, const Tensor& means, Covariance kind);

/// Options of gmm_em.
struct GmmOptions {
  int iterations = 10;                       ///< of E and M step
  Covariance covariance = Covariance::diag;  ///< form of the covariance
  double eps = 0;               ///< added to the variances; 0 keeps the likelihood monotone
  bool log_likelihoods = true;  ///< compute them; costs one more pass over the densities
};

/// What gmm_em returns.
struct GmmResult {
  GaussianMixture mixture;  ///< weights, means, covariances
  Tensor responsibilities;  ///< R of the last E step, that is, of the mixture before [B, N, k]
  Tensor log_likelihoods;   ///< Σ_i ln Σ_j π_j N_ij at the start and after each iteration
                            ///< [B, iterations + 1]; or none
};

/// EM from a given start, Su 2018, EM algorithms 1 and 2, eqs (4), (6), (7), (9):
///   R_ij = softmax_j(ln π_j + ln N(x_i; μ_j, Σ_j));   w_ij = R_ij / Σ_i R_ij;   π_j = Σ_i R_ij / N
///   μ_j = Σ_i w_ij x_i;   Σ_j = Σ_i w_ij (x_i − μ_j)(x_i − μ_j)ᵀ + eps I   (new μ; diag,
///   spherical: its diagonal, the mean of its diagonal). Both ratios from ln R: finite for starved
///   components.
/// With eps = 0 the log-likelihood never falls. Gradients pass through all iterations.
/// ShapeError on sizes that do not fit; ValueError for no points, iterations < 1, eps < 0, a start
/// with variances or weights that are not positive, or when a covariance becomes singular, as that
/// of a component that owns about D points or fewer: eps > 0 is the cure.
GmmResult gmm_em(const Tensor& x, const GaussianMixture& start, const GmmOptions& options = {});

/// What gmm_em_converged returns.
struct ConvergedGmm {
  GaussianMixture mixture;  ///< unchanged by a further iteration
  Tensor responsibilities;  ///< of this mixture [B, N, k]
  Tensor log_likelihood;    ///< of this mixture [B]
  int iterations = 0;       ///< made
  bool converged = false;   ///< see FixedPoint
};

/// gmm_em until its parameters stand still, with the implicit gradient of fixed_point: no unrolled
/// graph, and no gradient for the start, but for a fixed variance. EM is slow where components
/// overlap. `options.iterations` is not used.   Errors: as gmm_em and fixed_point.
ConvergedGmm gmm_em_converged(const Tensor& x,
                              const GaussianMixture& start,
                              const GmmOptions& options = {},
                              const FixedPointOptions& fixed_point = {});

}  // namespace capsfw
