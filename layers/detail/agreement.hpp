#pragma once
// Private: routing by agreement as one op, for votes that are stored, made in passing, or shared by
// overlapping windows. Each has a kernel (agreement_stored.hpp, agreement_product.hpp) and, for
// second derivatives and for gradients of the couplings, route_in_plain_ops.

#include <optional>

#include <capsfw/core/node.hpp>

#include "agreement_rule.hpp"

namespace capsfw::detail {

/// True for what the kernels take: two iterations or more, f32 or f64 throughout. `x`: votes, or
/// the capsules below.
bool fits_kernels(const AgreementRule& rule, const Tensor& x, const AgreementInputs& in);
/// True if, besides, vectors of samples would be filled and `weight` fits u.
bool fits_product(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in);
/// True for windows that need not be copied.
bool fits_windows(const AgreementRule& rule, const Tensor& x, const AgreementInputs& in);

/// Routing of votes [B, I, J, D] that fit the kernels.
Routed route_votes(const AgreementRule& rule, const Tensor& votes, const AgreementInputs& in);

/// Routing of products that fit; the votes are not stored.
Routed route_product(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in);
/// The same where it fits and is faster than to make the votes.
std::optional<Routed> route_product_if_faster(const AgreementRule& rule,
                                              const VoteProduct& p,
                                              const AgreementInputs& in);

/// Routing of all windows of `rows` children, `step` apart, of votes [B, R, J, D] that fit.
Routed route_windows(const AgreementRule& rule,
                     const Tensor& votes,
                     std::int64_t rows,
                     std::int64_t step,
                     const AgreementInputs& in);
/// The same for any windows: copied.
Tensor copy_windows(const Tensor& votes, std::int64_t rows, std::int64_t step);

/// True for a node of route_product: inputs u, weight, ...; results poses, couplings, ...
bool routes_product(const Node& node);
/// The gradient of the votes that such a node did not make, given those of its poses and couplings
/// (undefined: 0). Recorded if recording is on.
Tensor votes_gradient(const Node& node, const Tensor& gposes, const Tensor& gcouplings);

/// The gradient of the sums [B, n, J, D]: what arrives at them, and through the poses.
Tensor sums_gradient(const AgreementRule& rule,
                     const Tensor& sums,
                     const Tensor& gposes,
                     const Tensor& gsums);
/// The poses of the sums of all iterations, outside any graph and observer.
Tensor poses_of(const AgreementRule& rule, const Tensor& sums);

}  // namespace capsfw::detail
