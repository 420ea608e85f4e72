#pragma once

#include <vector>

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// α_t = α_0 γ^t, t = 0, ..., n − 1: an annealed temperature.
std::vector<double> alpha_schedule(int n, double alpha0 = 1.0, double gamma = 0.5);

/// Options of entropy_routing and EntropyRouting.
struct EntropyRoutingOptions {
  static constexpr const char* kRouting = "entropy";
  /// Temperature α_t of each iteration (alpha_schedule makes an annealed list); the last is never
  /// used. Each is positive and finite, and so is 1/α_t in the type of the votes.
  std::vector<double> alphas = {1.0, 0.5, 0.25};
  bool detach = false;  ///< couplings are constants: the gradient passes only the last weighted sum
  bool leaky = false;   ///< as in DynamicRoutingOptions
  bool prior = false;   ///< EntropyRouting: learned log priors [I, J], added to the logits
};

/// Entropy-regularised routing, Wang, Liu 2018, An Optimization View on Dynamic Routing Between
/// Capsules, Algorithm 1. From b_ij = 0, for each α_t:
///   c_ij = softmax_j(b_ij);  s_j = Σ_i c_ij û_{j|i};  b_ij = ⟨û_{j|i}, s_j / ‖s_j‖⟩ / α_t
/// and v_j = s_j / (1 + max_k ‖s_k‖), the maximum taken per sample and differentiated. The layer of
/// the paper votes with Frobenius-normalised weights (frobenius_normalize). An observed step has as
/// objective −Σ_ij c_ij ⟨û_{j|i}, s_j/‖s_j‖⟩ + α_t Σ_ij c_ij ln c_ij, which never rises while α is
/// constant. ShapeError unless votes are [B, I, J, D], the prior [I, J] and `kept` b8 [B, J];
/// ValueError without temperatures, with one that is not positive and finite or whose reciprocal is
/// not finite in the type of the votes (below 3e-39 in f32), or where nothing is kept. Fused like
/// dynamic_routing (and like it from products and in windows) up to 16 iterations, except when
/// observed.
Routed entropy_routing(const Tensor& votes,
                       const EntropyRoutingOptions& options = {},
                       const Tensor& prior = {},
                       const Tensor& kept = {},
                       const RoutingObserver& observe = {});

/// entropy_routing in plain ops: the reference of the fused kernel.
Routed entropy_routing_reference(const Tensor& votes,
                                 const EntropyRoutingOptions& options = {},
                                 const Tensor& prior = {},
                                 const Tensor& kept = {},
                                 const RoutingObserver& observe = {});

/// entropy_routing as a module. Parameter: prior [I, J], if asked for; it starts at 0.
class EntropyRouting : public Routing {
 public:
  using Options = EntropyRoutingOptions;
  /// ValueError for options that the function refuses, and for a prior with any number of children
  /// or with couplings that are constants.
  EntropyRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return static_cast<int>(options_.alphas.size()); }
  /// The first n of the temperatures it was made with; further ones go on with the ratio of the
  /// last two, down to 1e-30 or up to 1e30 and no further.   ValueError for n < 1.
  void set_iterations(int n) override;
  int uniform_iterations() const override { return options_.prior ? -1 : 1; }
  bool fixes_children() const override { return options_.prior; }
  Tensor prior;  ///< [I, J], if asked for

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;
  std::optional<Routed> forward_product(const VoteProduct& product, const Votes& rest) override;
  std::optional<Routed> forward_windows(const VoteWindows& windows, const Votes& rest) override;

 private:
  Options options_;
  std::vector<double> given_;  // the temperatures it was made with
};

void describe(OptionText& text, EntropyRoutingOptions& options);

}  // namespace capsfw
