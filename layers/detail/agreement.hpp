#pragma once
// Private: routing by agreement as one op, for votes that are stored (agreement_stored.hpp), made
// in passing (agreement_product.hpp) or, by shared weights, not made at all (agreement_shared.hpp).
// For second derivatives and for gradients of the couplings each has route_in_plain_ops.

#include <capsfw/core/node.hpp>

#include "agreement_rule.hpp"

namespace capsfw::detail {

/// True for what the kernels take: two iterations or more, f32 or f64 throughout. `x`: votes, or
/// the capsules below.
bool fits_kernels(const AgreementRule& rule, const Tensor& x, const AgreementInputs& in);
/// True if, besides, `weight` fits u and, unless it is shared, vectors of samples would be filled.
bool fits_product(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in);
/// True for windows that need not be copied: those of shared weights.
bool fits_windows(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in);

/// Routing of votes [B, I, J, D] that fit the kernels.
Routed route_votes(const AgreementRule& rule, const Tensor& votes, const AgreementInputs& in);

/// Routing of products that fit; the votes are not stored.
Routed route_product(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in);

/// Routing of all windows of products that fit; neither votes nor windows are stored.
Routed route_windows(const AgreementRule& rule, const VoteWindows& w, const AgreementInputs& in);
/// The children of every window, copied: [B, R, E] -> [B · count, rows, E].
Tensor copy_windows(const VoteWindows& w);

/// True for a node of route_product or route_windows: inputs u, weight, ...; results poses,
/// couplings, ...
bool routes_product(const Node& node);
/// The children of such a node [B, I, E]; those of its windows, one behind the other.
Tensor children_of(const Node& node);
/// The gradient of the votes that such a node did not make, in the order of its children, given
/// those of its poses and couplings (undefined: 0). Recorded if recording is on.
Tensor votes_gradient(const Node& node, const Tensor& gposes, const Tensor& gcouplings);

/// The gradient of the sums [B, n, J, D]: what arrives at them, and through the poses.
Tensor sums_gradient(const AgreementRule& rule,
                     const Tensor& sums,
                     const Tensor& gposes,
                     const Tensor& gsums);
/// The poses of the sums of all iterations, outside any graph and observer.
Tensor poses_of(const AgreementRule& rule, const Tensor& sums);

}  // namespace capsfw::detail
