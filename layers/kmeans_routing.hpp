#pragma once

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Options of kmeans_routing and KmeansRouting.
struct KmeansRoutingOptions {
  static constexpr const char* kRouting = "kmeans";
  int iterations = 3;     ///< r; makes r + 1 weighted sums, the uniform one counts
  double sharpness = 1;   ///< K of the softmax; the scale of the vote weights contains it
  double squash_c = 1.0;  ///< constant of the squash at the end
  bool detach = false;  ///< couplings are constants: the gradient passes only the last weighted sum
  bool hard = false;    ///< each child gives all to its best parent (the first one on ties)
  bool straight_through = false;  ///< `hard` couplings with the gradient of the soft ones
  bool leaky = false;             ///< as in DynamicRoutingOptions; not with `hard`
  bool prior = false;             ///< KmeansRouting: learned log priors [I, J], added to the logits
};

/// Routing by K-means on normalised means, Su 2018, From K-Means to Capsule, eqs (12), (13). From
/// v_j = (1/J) Σ_i û_{j|i}, repeat r times:
///   v_j ← v_j / ‖v_j‖;  c_ij = softmax_j(K ⟨û_{j|i}, v_j⟩);  v_j ← Σ_i c_ij û_{j|i}
/// and squash once at the end. Unlike dynamic_routing the logits are replaced, not accumulated.
/// Hard couplings are constants; a parent without votes gets 0. With r = 0 the couplings are
/// uniform. An observed step has as objective the smoothed loss of the means before it,
/// −(1/K) Σ_i ln Σ_j e^(K ⟨û_{j|i}, v_j/‖v_j‖⟩), which never rises (soft, all kept, no prior).
/// ShapeError unless votes are [B, I, J, D], the prior [I, J] and `kept` b8 [B, J]; ValueError for
/// r < 0, K ≤ 0 or c ≤ 0, K or 1/K not finite in the type of the votes, `leaky` with `hard`,
/// `straight_through` without it, or where nothing is kept. Fused like
/// dynamic_routing (and like it from products and in windows), except when observed or `hard`.
Routed kmeans_routing(const Tensor& votes,
                      const KmeansRoutingOptions& options = {},
                      const Tensor& prior = {},
                      const Tensor& kept = {},
                      const RoutingObserver& observe = {});

/// kmeans_routing in plain ops: the reference of the fused kernel.
Routed kmeans_routing_reference(const Tensor& votes,
                                const KmeansRoutingOptions& options = {},
                                const Tensor& prior = {},
                                const Tensor& kept = {},
                                const RoutingObserver& observe = {});

/// kmeans_routing as a module. Parameter: prior [I, J], if asked for; it starts at 0.
class KmeansRouting : public Routing {
 public:
  using Options = KmeansRoutingOptions;
  /// ValueError for options that the function refuses, and for a prior with any number of children
  /// or with couplings that are constants.
  KmeansRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.iterations; }
  void set_iterations(int n) override;
  int uniform_iterations() const override { return 0; }
  bool fixes_children() const override { return options_.prior; }
  Tensor prior;  ///< [I, J], if asked for

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;
  std::optional<Routed> forward_product(const VoteProduct& product, const Votes& rest) override;
  std::optional<Routed> forward_windows(const VoteWindows& windows, const Votes& rest) override;

 private:
  Options options_;
};

void describe(OptionText& text, KmeansRoutingOptions& options);

}  // namespace capsfw
