#pragma once
// Private: dynamic routing as fused kernels. The votes of a sample stay in the cache while all
// iterations pass over them, one pass each. Nothing of the size of the votes is kept or made except
// their gradient, and no logits: b of iteration t is ⟨û_ij, V_j⟩ with V = Σ of the earlier outputs.

#include <capsfw/layers/dynamic_routing.hpp>

#include "routing_plan.hpp"

namespace capsfw::detail {

/// ValueError and ShapeError, as dynamic_routing has them.
void check_dynamic_routing(const char* who,
                           std::int64_t b,
                           std::int64_t i,
                           std::int64_t j,
                           const DynamicRoutingOptions& o,
                           const RoutingInputs& in);

/// s of every iteration and c of the last.
struct RoutingTrace {
  TensorList sums;
  Tensor couplings;
};
/// The routing in plain ops.
RoutingTrace route_in_plain_ops(const Tensor& votes,
                                const DynamicRoutingOptions& o,
                                const RoutingInputs& in,
                                const RoutingObserver& observe = {});

/// The mask as something to add to logits: 0 for kept capsules, −∞ for the others. ValueError where
/// none is kept.
Tensor bias_of(const Tensor& mask, DType dtype);

/// The values of a routing.
struct RoutingValues {
  Tensor sums;       ///< s of every iteration [B, r, J, D]
  Tensor couplings;  ///< c of the last [B, I, J]
};

/// True for what the kernels take: two iterations or more, f32 or f64 throughout, no activation.
bool fits_fused_routing(const Tensor& votes,
                        const DynamicRoutingOptions& o,
                        const RoutingInputs& in);

/// True for what dynamic_routing_windows does not copy, given the votes or the capsules below.
bool fits_window_routing(const Tensor& x, const DynamicRoutingOptions& o, const RoutingInputs& in);

/// Runs the iterations; outside any graph. `bias` [B, J], 0 or −∞, may be undefined like the prior.
/// With windows of the votes, B counts these.
RoutingValues fused_routing(const Tensor& votes,
                            const Tensor& prior,
                            const Tensor& bias,
                            const DynamicRoutingOptions& o,
                            const RoutingWindows& windows = {});

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
                                   const DynamicRoutingOptions& o,
                                   bool want_votes,
                                   bool want_prior,
                                   const RoutingWindows& windows = {});

}  // namespace capsfw::detail
