#pragma once
// Gradient descent with momentum.

#include <capsfw/optim/optimizer.hpp>

namespace capsfw {

/// Options of SGD.
struct SGDOptions {
  double lr = 1e-3;         ///< learning rate
  double momentum = 0;      ///< μ, share of the previous direction that is kept
  double dampening = 0;     ///< τ, share of the gradient that does not enter the direction
  double weight_decay = 0;  ///< λ, strength of an L2 penalty
  bool nesterov = false;    ///< looks one step of momentum ahead
};

/// Stochastic gradient descent, with PyTorch's rule. For step t = 1, 2, ...
///
///   g ← g + λ p
///   b ← g              at t = 1, else   μ b + (1 - τ) g
///   p ← p - lr d,      d = g (μ = 0),   b (μ > 0)   or   g + μ b (nesterov)
///
/// Buffer: momentum_buffer (b), if μ > 0. ValueError if an option is negative or not finite, if
/// τ > 1, and for nesterov with μ = 0 or τ > 0.
/// Source: Sutskever, Martens, Dahl and Hinton 2013, "On the importance of initialization and
/// momentum in deep learning", eq. 1-4, with lr outside of b.
class SGD : public Optimizer {
 public:
  explicit SGD(const ParamList& params, const SGDOptions& options = {})
      : SGD(std::vector<ParamGroup>{{.params = params}}, options) {}
  explicit SGD(const std::vector<ParamGroup>& groups, const SGDOptions& options = {});

 private:
  void update(const Update& u) override;
  SGDOptions options_;
};

}  // namespace capsfw
