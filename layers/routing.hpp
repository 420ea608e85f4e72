#pragma once
// Routing: from votes [B, I, J, D] to upper capsules [B, J, D].

#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// What a routing returns.
struct Routed {
  Tensor poses;      ///< v [B, J, D]
  Tensor couplings;  ///< c of the last iteration [B, I, J]
};

/// Options of dynamic_routing.
struct RoutingOptions {
  int iterations = 3;
  double squash_c = 1.0;  ///< constant of the squash
  bool detach = false;  ///< couplings are constants: the gradient passes only the last weighted sum
  bool leaky =
      false;  ///< an extra logit 0 takes its share of each child and is dropped: Σ_j c_ij < 1
};

/// Optional tensors of dynamic_routing; undefined ones are absent.
struct RoutingInputs {
  Tensor prior = {};  ///< initial logits b [I, J], for example learned log priors
  Tensor mask = {};  ///< kept upper capsules [B, J], not 0: partial sampling. None kept: ValueError
  Tensor activation = {};  ///< of the lower capsules [B, I], multiplied into the couplings
};

/// Routing by agreement, Sabour, Frosst, Hinton 2017, Procedure 1. Repeat r times:
///   c_ij = softmax_j(b_ij);  s_j = Σ_i c_ij û_{j|i};  v_j = squash_c(s_j);  b_ij += ⟨û_{j|i}, v_j⟩
/// (the last update of b would be dead work and is left out). Without `detach` the gradient passes
/// through all iterations. With r = 1 and no prior the couplings are uniform, 1/J. ShapeError on
/// sizes that do not fit, ValueError for r < 1, squash_c <= 0 or a mask that keeps nothing. Fused,
/// except with `activation`: besides the gradient of the votes it takes no memory of their size.
Routed dynamic_routing(const Tensor& votes,
                       const RoutingOptions& options = {},
                       const RoutingInputs& inputs = {});

/// The same in plain ops: the reference of the fused kernel.
Routed dynamic_routing_reference(const Tensor& votes,
                                 const RoutingOptions& options = {},
                                 const RoutingInputs& inputs = {});

/// softmax over the upper capsules (last axis) of logits [B, I, J]. `mask` [B, J]: capsules that
/// are 0 take no part; `leaky`: see RoutingOptions.   He 2018, eq (41), for the mask.
Tensor couplings(const Tensor& logits, const Tensor& mask = {}, bool leaky = false);

/// λ_t = final · (1 − base^t), t = 1, ..., n: the inverse temperature of EM routing. Hinton,
/// Sabour, Frosst 2018 (values from the authors' answers in its open review).
std::vector<double> lambda_schedule(int n, double final_lambda = 0.01, double base = 0.95);

/// α_t = α_0 γ^t, t = 0, ..., n − 1: the annealed temperature of entropy-regularised routing.
std::vector<double> alpha_schedule(int n, double alpha0 = 1.0, double gamma = 0.5);

}  // namespace capsfw
