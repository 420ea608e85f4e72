#pragma once
// Self-attention routing, of Efficient-CapsNet.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Which function makes a pose of a weighted sum.
enum class PoseSquash {
  exp,      ///< (1 − e^(−‖s‖)) s/‖s‖: squash_exp
  standard  ///< ‖s‖ / (c + ‖s‖²) s: squash
};

/// Options of self_attention_routing and SelfAttentionRouting.
struct SelfAttentionRoutingOptions {
  static constexpr const char* kRouting = "self-attention";
  PoseSquash squash = PoseSquash::exp;  ///< of the weighted sums
  double squash_c = 1.0;                ///< constant of the standard squash
  bool prior = true;                    ///< SelfAttentionRouting: learned log priors [I, J]
};

/// Self-attention routing, without iterations. Mazzia, Salvetti, Chiaberge 2021, Efficient-CapsNet:
/// Capsule Network with Self-Attention Routing, section 3:
///   A_ij = (1/√D) Σ_k ⟨û_{j|i}, û_{j|k}⟩;  c_ij = softmax_j(A_ij) + b_ij;  s_j = Σ_i c_ij û_{j|i}
/// and squash. A child whose vote agrees with all others is heard most. Since the sum over k is
/// linear, A_ij = ⟨û_{j|i}, Σ_k û_{j|k}⟩ / √D, and no I x I table is made. The log priors b stand
/// outside of the softmax, as in the paper: with them Σ_j c_ij is 1 + Σ_j b_ij, and not 1.
/// ShapeError unless votes are [B, I, J, D], the prior [I, J] and `kept` b8 [B, J]; ValueError for
/// squash_c ≤ 0.
Routed self_attention_routing(const Tensor& votes,
                              const SelfAttentionRoutingOptions& options = {},
                              const Tensor& prior = {},
                              const Tensor& kept = {});

/// self_attention_routing as a module. Parameter: prior [I, J], unless declined; it starts at 0.
class SelfAttentionRouting : public Routing {
 public:
  using Options = SelfAttentionRoutingOptions;
  /// ValueError for a prior with any number of children.
  SelfAttentionRouting(const RoutingSize& size, const Options& options, Rng& rng);
  bool fixes_children() const override { return options_.prior; }
  Tensor prior;  ///< [I, J], unless declined

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

void describe(OptionText& text, SelfAttentionRoutingOptions& options);

}  // namespace capsfw
