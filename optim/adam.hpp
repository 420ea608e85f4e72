#pragma once
// Adam and AdamW.

#include <capsfw/optim/optimizer.hpp>

namespace capsfw {

/// Options of Adam.
struct AdamOptions {
  double lr = 1e-3;         ///< learning rate
  double beta1 = 0.9;       ///< β₁, decay of the mean of the gradients
  double beta2 = 0.999;     ///< β₂, decay of the mean of their squares
  double eps = 1e-8;        ///< ε > 0, outside the root; see Optimizer::require_eps
  double weight_decay = 0;  ///< λ, strength of an L2 penalty
  bool amsgrad = false;     ///< divides by the largest v so far
};

/// Options of AdamW.
struct AdamWOptions {
  double lr = 1e-3;            ///< learning rate
  double beta1 = 0.9;          ///< β₁, decay of the mean of the gradients
  double beta2 = 0.999;        ///< β₂, decay of the mean of their squares
  double eps = 1e-8;           ///< ε > 0, outside the root; see Optimizer::require_eps
  double weight_decay = 0.01;  ///< λ, share of the weights (times lr) that every step takes away
  bool amsgrad = false;        ///< divides by the largest v so far
};

/// Adam, with PyTorch's rule. For step t = 1, 2, ...
///
///   g ← g + λ p
///   m ← β₁ m + (1 - β₁) g
///   v ← β₂ v + (1 - β₂) g²
///   p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + ε)
///
/// amsgrad: w ← max(w, v) takes the place of v in the last line.
///
/// Buffers: exp_avg (m), exp_avg_sq (v) and, for amsgrad, max_exp_avg_sq (w). ValueError if lr or λ
/// is negative or not finite, if β₁ or β₂ lies outside [0, 1), and unless ε > 0.
/// Source: Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1; Reddi,
/// Kale and Kumar 2018, "On the convergence of Adam and beyond", algorithm 2 (amsgrad).
class Adam : public Optimizer {
 public:
  explicit Adam(const ParamList& params, const AdamOptions& options = {})
      : Adam(std::vector<ParamGroup>{{.params = params}}, options) {}
  explicit Adam(const std::vector<ParamGroup>& groups, const AdamOptions& options = {})
      : Adam("Adam", groups, options, false) {}

 protected:
  Adam(const std::string& name,
       const std::vector<ParamGroup>& groups,
       const AdamOptions& options,
       bool decoupled);

 private:
  void update(const Update& u) override;
  AdamOptions options_;
  bool decoupled_;  // weight decay acts on p and not through g
};

/// Adam with decoupled weight decay: p ← (1 - lr λ) p comes first and g stays without λ p; then as
/// Adam.
///
/// Buffers and errors: as Adam.
/// Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization", algorithm 2, with λ
/// scaled by lr as in PyTorch.
class AdamW : public Adam {
 public:
  explicit AdamW(const ParamList& params, const AdamWOptions& options = {})
      : AdamW(std::vector<ParamGroup>{{.params = params}}, options) {}
  explicit AdamW(const std::vector<ParamGroup>& groups, const AdamWOptions& options = {});
};

}  // namespace capsfw
