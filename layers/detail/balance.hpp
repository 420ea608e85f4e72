#pragma once
// Private: initial weights that give capsules a length from which they can learn.

#include <functional>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// Scales `weights` until the capsules that `run` makes of them have the mean length ½, as Mishkin,
/// Matas 2016, "All you need is a good init", do for variances. The squash shortens short capsules
/// quadratically: layer upon layer they, and their gradients, would all but vanish.
void scale_to_half_length(const TensorList& weights, const std::function<Tensor()>& run);

}  // namespace capsfw::detail
