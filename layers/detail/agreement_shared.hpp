#pragma once
// Private: routing of votes û_ij = W_j u_i, one weight for all children, among the children:
//   ⟨û_ij, V_j⟩ = ⟨u_i, k_j⟩,  k_j = W_jᵀ V_j,    S_j = W_j σ_j,  σ_j = Σ_i c_ij u_i
// so that an iteration takes 2 I J E products and no vote is ever made. Children lie in the lanes
// of vectors.

#include "agreement_product.hpp"

namespace capsfw::detail {

/// Samples that are windows of others: sample x·count + n has the `rows` children from n·step on of
/// sample x of u.
struct RoutingWindows {
  std::int64_t count = 1, step = 0, rows = 0;  ///< rows 0: all
};

/// Runs the iterations; outside any graph. in.weight [J, D, E]; in.prior [I, J] and in.bias
/// [B · count, J] may be undefined. The couplings are a view of a table with children in rows.
RoutingValues shared_routing(const ProductInputs& in,
                             const AgreementRule& rule,
                             const RoutingWindows& windows = {});

/// Gradients of u, weight and prior, as far as wanted, given the values and the gradient of their
/// sums.
ProductInputs shared_routing_vjp(const ProductInputs& in,
                                 const RoutingValues& values,
                                 const Tensor& gsums,
                                 const AgreementRule& rule,
                                 const ProductNeeds& needs,
                                 const RoutingWindows& windows = {});

}  // namespace capsfw::detail
