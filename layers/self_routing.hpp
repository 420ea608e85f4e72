#pragma once
// Self-routing: a child decides by itself where it belongs.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Options of SelfRouting.
struct SelfRoutingOptions {
  static constexpr const char* kRouting = "self-routing";
};

/// What children with poses u [B, I, E] and activations a [B, I] make of votes [B, I, J, D], given
/// `weight` [I, J, E] and `bias` [I, J]. Hahn, Pyeon, Kim 2019, Self-Routing Capsule Networks,
/// section 3: no agreement and no iterations, every child has a small network of
/// its own,
///   c_ij = softmax_j(W_i u_i + b_i);  a_j = Σ_i c_ij a_i / Σ_i a_i;
///   v_j = Σ_i c_ij a_i û_{j|i} / Σ_i c_ij a_i
/// with 0/0 = 0. The a_j add up to 1, unless all a_i are 0. Poses are not squashed.
/// ShapeError on sizes that do not fit; ValueError for a sample of which `kept` keeps no parent;
/// DTypeError unless `kept` is b8.
Routed self_routing(const Tensor& votes,
                    const Tensor& poses,
                    const Tensor& activations,
                    const Tensor& weight,
                    const Tensor& bias,
                    const Tensor& kept = {});

/// self_routing as a module. The activations of the children are those given, else the lengths of
/// their poses; children that do not exist have 0. Parameters: weight [I, J, E] ~ N(0, 1/E), bias
/// [I, J], zero.
class SelfRouting : public Routing {
 public:
  using Options = SelfRoutingOptions;
  /// ValueError for any number of children, or children of unknown size.
  SelfRouting(const RoutingSize& size, const Options& options, Rng& rng);
  bool fixes_children() const override { return true; }
  Tensor weight, bias;  ///< parameters of the couplings

 protected:
  /// ValueError without poses.
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;
};

void describe(OptionText& text, SelfRoutingOptions& options);

}  // namespace capsfw
