#pragma once
// Private: routing of stored votes as fused kernels. The votes of a sample stay in the cache while
// all iterations pass over them, one pass each. Nothing of the size of the votes is kept or made
// except their gradient, and no logits: those of iteration t are ⟨û_ij, V_j⟩ + prior_ij.

#include "agreement_rule.hpp"
#include "routing_plan.hpp"

namespace capsfw::detail {

/// The values of a routing.
struct RoutingValues {
  Tensor sums;       ///< s of every iteration [B, r, J, D]
  Tensor couplings;  ///< c of the last [B, I, J]
};

/// Runs the iterations; outside any graph. `bias` [B, J], 0 or −∞, may be undefined like the prior.
RoutingValues fused_routing(const Tensor& votes,
                            const Tensor& prior,
                            const Tensor& bias,
                            const AgreementRule& rule);

/// The gradients of the votes and of the prior (undefined unless wanted), given the values of the
/// forward pass and the gradient of `sums`.
struct RoutingGradients {
  Tensor votes, prior;
};
RoutingGradients fused_routing_vjp(const Tensor& votes,
                                   const Tensor& prior,
                                   const Tensor& bias,
                                   const RoutingValues& values,
                                   const Tensor& gsums,
                                   const AgreementRule& rule,
                                   bool want_votes,
                                   bool want_prior);

}  // namespace capsfw::detail
