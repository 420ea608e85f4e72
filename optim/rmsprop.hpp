#pragma once
// RMSprop.

#include <capsfw/optim/optimizer.hpp>

namespace capsfw {

/// Options of RMSprop.
struct RMSpropOptions {
  double lr = 1e-2;         ///< learning rate
  double alpha = 0.99;      ///< α, decay of the mean of the squared gradients
  double eps = 1e-8;        ///< ε > 0, outside the root; see Optimizer::require_eps
  double weight_decay = 0;  ///< λ, strength of an L2 penalty
  double momentum = 0;      ///< μ, share of the previous direction that is kept
  bool centered = false;    ///< divides by the deviation instead of the root of the mean square
};

/// RMSprop, with PyTorch's rule.
///
///   g ← g + λ p
///   s ← α s + (1 - α) g²
///   d = g / (√s + ε)
///   p ← p - lr d
///
/// centered: a ← α a + (1 - α) g, and √max(s - a², 0) takes the place of √s (rounding can make the
/// difference negative). momentum: b ← μ b + d takes the place of d in the last line.
///
/// Buffers: square_avg (s), grad_avg (a) if centered, momentum_buffer (b) if μ > 0. ValueError if
/// lr, λ or μ is negative or not finite, if α lies outside [0, 1), and unless ε > 0.
/// Source: Tieleman and Hinton 2012, "Neural networks for machine learning", lecture 6.5; Graves
/// 2013, "Generating sequences with recurrent neural networks" (centered).
class RMSprop : public Optimizer {
 public:
  explicit RMSprop(const ParamList& params, const RMSpropOptions& options = {})
      : RMSprop(std::vector<ParamGroup>{{.params = params}}, options) {}
  explicit RMSprop(const std::vector<ParamGroup>& groups, const RMSpropOptions& options = {});

 private:
  void update(const Update& u) override;
  RMSpropOptions options_;
};

}  // namespace capsfw
