#pragma once
// Private: routing of votes û_ij = W_ij u_i that are never stored. A group of samples, one
// in each lane of a vector, goes through the children a few at a time: every pass makes their votes
// again in the first cache, which costs less than reading them from memory. Children are cut into
// chunks, each with a sum of its own; a chunk's weights stay in the second cache for all groups.

#include <cstdint>
#include <vector>

#include <capsfw/core/node.hpp>

#include "../../ops/kernels/votes.hpp"
#include "agreement_stored.hpp"
#include "routing_plan.hpp"

namespace capsfw::detail {

/// Tensors of a routing of products: u [B, I, E], weight [I, J, D, E] or, shared by all children,
/// [J, D, E]; the prior [I, J] and the bias [B, J] (0 or −∞) may be undefined.
struct ProductInputs {
  Tensor u, weight, prior, bias;
};

/// How the work is cut, from shapes (and the width of vectors) alone.
struct ProductPlan {
  kernels::VoteSizes size;
  std::int64_t b, i, r;
  std::int64_t lanes, groups;  ///< samples of a group; number of groups, the last filled up by 0
  std::int64_t sets;           ///< of at most kSet groups
  std::int64_t rows, chunks;   ///< children of a chunk
  std::int64_t strip;          ///< children whose weights stay in the second cache

  static constexpr std::int64_t kSet = 8;
  static constexpr int kChildren = 4;  ///< taken at once

  ProductPlan(const ProductInputs& in, int iterations);
  /// Numbers of a table of parents and of one of upper capsules, for a group.
  std::int64_t table() const { return size.j * lanes; }
  std::int64_t caps() const { return size.d * table(); }
  std::int64_t group_u() const { return i * size.e * lanes; }
  std::int64_t first_group(std::int64_t set) const { return set * groups / sets; }
};

/// [B, n...] -> [groups, n, lanes], filled up by 0; and back.
Tensor to_groups(const Tensor& x, const ProductPlan& n);
Tensor from_groups(const Tensor& x, const ProductPlan& n, const Shape& shape);

/// One pass over all children. Saves reading the votes from memory.
template <class T>
struct ProductPass {
  const T *u, *weight, *prior, *bias;  ///< in groups: u, bias
  const T* v;                          ///< [groups, J, D, lanes]; null: couplings of 1
  const T* gs;           ///< null: sums c û; else sums gb û, given the gradient of the sums
  std::int64_t v_group;  ///< distance of v and of gs from group to group
  bool leaky;
  T* couplings;  ///< receives c [B, I, J] unless null
};
/// The sums of a pass, [groups, J, D, lanes].
template <class T>
Tensor run_pass(const ProductPlan& n, const ProductPass<T>& p);

/// Runs the iterations, for weights [I, J, D, E]; outside any graph.
RoutingValues product_routing(const ProductInputs& in, const AgreementRule& rule);

/// Gradients of u, weight and prior, as far as wanted, given `sums` and their gradient.
struct ProductNeeds {
  bool u, weight, prior;
};
ProductInputs product_routing_vjp(const ProductInputs& in,
                                  const Tensor& sums,
                                  const Tensor& gsums,
                                  const AgreementRule& rule,
                                  const ProductNeeds& needs);

/// Runs f.operator()<L, E>() with vectors of this CPU; E is that of kernels::VoteSizes.
template <class T, class F>
void with_child_size(std::int64_t e, const F& f) {
  if constexpr (std::is_same_v<T, float>) {
    if (e == 8)
      return kernels::with_lanes(
          [=]<int kBytes>() { f.template operator()<kernels::Lanes<T, kBytes>, 8>(); });
    if (e == 16)
      return kernels::with_lanes(
          [=]<int kBytes>() { f.template operator()<kernels::Lanes<T, kBytes>, 16>(); });
  }
  kernels::with_lanes([=]<int kBytes>() { f.template operator()<kernels::Lanes<T, kBytes>, 0>(); });
}

}  // namespace capsfw::detail
