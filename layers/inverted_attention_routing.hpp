#pragma once
// Inverted dot-product attention routing.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Options of inverted_attention_routing and InvertedAttentionRouting.
struct InvertedAttentionRoutingOptions {
  static constexpr const char* kRouting = "inverted-attention";
  int iterations = 2;  ///< weighted sums
  double eps = 1e-5;   ///< of the layer normalisation
};

/// Routing by inverted dot-product attention, Tsai, Srivastava, Goh, Salakhutdinov 2020, Capsules
/// with Inverted Dot-Product Attention Routing, Procedure 1 and eqs (1) to (3), in sequence: layer
/// by layer, all iterations of one before the next. From p_j = 0, repeat r times:
///   c_ij = softmax_j(⟨p_j, û_{j|i}⟩);  p_j = LayerNorm(Σ_i c_ij û_{j|i})
/// The attention is inverted: parents compete for a child. In the first iteration the couplings are
/// uniform. `gamma` and `beta` [D] of the layer normalisation are shared by the parents; undefined:
/// 1 and 0. The paper's other order, all layers concurrently, needs the whole network and is not
/// offered. Activations are undefined, see InvertedAttentionRouting.   ShapeError on sizes that do
/// not fit; ValueError for r < 1, or a sample of which `kept` keeps no parent; DTypeError unless
/// `kept` is b8.
Routed inverted_attention_routing(const Tensor& votes,
                                  const InvertedAttentionRoutingOptions& options = {},
                                  const Tensor& gamma = {},
                                  const Tensor& beta = {},
                                  const Tensor& kept = {},
                                  const RoutingObserver& observe = {});

/// inverted_attention_routing as a module. A normalised pose has about the same length, √D,
/// whatever it found. Therefore parents have activations of their own, a_j = sigmoid(⟨w, p_j⟩ + b),
/// with one linear classifier for all parents as in section 3 of the paper (its logits, here in (0,
/// 1) as in all other routings). Parameters: gamma [D], ones; beta [D], zero; score_weight [D] ~
/// N(0, 1/D); score_bias [1], zero.
class InvertedAttentionRouting : public Routing {
 public:
  using Options = InvertedAttentionRoutingOptions;
  /// ValueError for less than 1 iteration.
  InvertedAttentionRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.iterations; }
  void set_iterations(int n) override;
  int uniform_iterations() const override { return 1; }
  Tensor gamma, beta;               ///< [D]
  Tensor score_weight, score_bias;  ///< [D], [1]

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Tensor activations(const Tensor& poses) const;
  Options options_;
};

void describe(OptionText& text, InvertedAttentionRoutingOptions& options);

}  // namespace capsfw
