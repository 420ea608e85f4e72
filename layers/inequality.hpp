#pragma once
// An inequality between the two gradient penalties of a multilayer perceptron: the parameter
// gradients of a sample are at least as long, layer by layer, as its input gradient over the gains
// on the way. Su 2021, An inequality between the input and the parameter gradient penalty; Dherin
// et al. 2021, arXiv 2111.15090. Proof by components in docs/gradient-penalty.md.

#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/mlp.hpp>
#include <capsfw/layers/penalty.hpp>

namespace capsfw {

/// Both sides of the inequality for B samples and l layers, h₁ = x, h_{t+1} = g_t(W_t h_t + b_t):
///
///   (w)  ‖∇ₓf‖² ‖h_t‖² / (‖W_t‖² ‖∇ₓh_t‖²)  ≤  ‖∇_{W_t} f‖²
///   (b)  ‖∇ₓf‖²        / (‖W_t‖² ‖∇ₓh_t‖²)  ≤  ‖∇_{b_t} f‖²
///   (f)  the sum of all left sides          ≤  ‖∇_θ f‖²
///
/// with spectral norms of W and ∇ₓh and Euclidean ones of all else. In a layer both (w) and (b)
/// have the same ratio. Where ∇ₓh_t = 0 or W_t = 0 the left side is 0 (as is the right side behind
/// it). A layer without bias has 0 on both sides of (b). Plain data, layer 1 first.
struct InequalityTerms {
  Tensor h2, w2, j2;    ///< ‖h_t‖², ‖W_t‖², ‖∇ₓh_t‖² [B, l]
  Tensor lhs_w, rhs_w;  ///< (w) [B, l]
  Tensor lhs_b, rhs_b;  ///< (b) [B, l]
  Tensor gx2;           ///< ‖∇ₓf‖² [B]
  Tensor lhs, rhs;      ///< (f) [B]
};

/// How spectral norms are found: exactly (spectral_norm, for widths up to some hundreds), or by
/// power iteration until it has converged. The latter never exceeds the true norm, so that the left
/// sides come out too large by what it lacks.
enum class SpectralMethod { exact, power };

/// The terms for samples x [B, n] and any scalar function f [B, m] -> [B] of the last h, sample by
/// sample; a layer with an empty activation is linear. Meant for f64: converts nothing. ShapeError
/// on sizes that do not fit, ValueError without layers.
InequalityTerms inequality_terms(const std::vector<MlpLayer>& layers,
                                 const Tensor& x,
                                 const SampleFunction& f,
                                 SpectralMethod method = SpectralMethod::exact);

/// The largest left side over right side.
struct Tightness {
  double ratio = 0;   ///< lhs / rhs; 0/0 = 0, and infinite if only the right side is 0
  std::string where;  ///< "(w) of layer 2, sample 7"
};

/// Of all entries of (w), (b) and (f): the inequality holds if the ratio is at most 1, up to
/// rounding (1e-9 in f64, 1e-4 in f32). NaN if any entry is.
Tightness tightness(const InequalityTerms& terms);

}  // namespace capsfw
