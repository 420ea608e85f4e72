#pragma once
// Private: initial weights that give capsules a length from which they can learn.

#include <functional>

#include <capsfw/layers/em_routing.hpp>

namespace capsfw::detail {

/// Scales `weights` until the capsules that `run` makes of them have the mean length ½, as Mishkin,
/// Matas 2016, "All you need is a good init", do for variances. The squash shortens short capsules
/// quadratically: layer upon layer they, and their gradients, would all but vanish.
void scale_to_half_length(const TensorList& weights, const std::function<Tensor()>& run);

/// weight · factor in place; nothing for a factor that is not finite.
void scale(Tensor weight, double factor);

/// Scales `weight` so that the votes of a parent, which are linear in it, have variance 1 over the
/// children.
void scale_to_unit_variance(const Tensor& votes, const Tensor& weight);

/// A layer that routes by EM, as balance_em() sees it.
struct EmLayer {
  std::function<Tensor()> variance;  ///< routes: that of the parents
  EmVariant variant;                 ///< form of the cost
  double dims;                       ///< of a vote
  double data;                       ///< Σ_i a_i R_ij of a parent as long as the R are uniform
  Tensor weight, beta_a, beta_u;     ///< votes are linear in `weight`; no betas for v1
};

/// Starting values of EM routing, see ConvMatrixCapsules::balance.
void balance_em(const EmLayer& layer);

}  // namespace capsfw::detail
