#pragma once
// Routing by agreement.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// How well a vote agrees with a parent.
enum class Agreement {
  dot,    ///< ⟨û_{j|i}, v_j⟩
  cosine  ///< ⟨û_{j|i}, v_j⟩ / (‖û_{j|i}‖ ‖v_j‖), 0 for a zero vector
};

/// Options of dynamic_routing and DynamicRouting.
struct DynamicRoutingOptions {
  static constexpr const char* kRouting = "dynamic";
  int iterations = 3;     ///< r, weighted sums
  double squash_c = 1.0;  ///< constant of the squash
  bool detach = false;  ///< couplings are constants: the gradient passes only the last weighted sum
  bool leaky =
      false;  ///< an extra logit 0 takes its share of each child and is dropped: Σ_j c_ij < 1
  Agreement agreement = Agreement::dot;  ///< what is added to the logits
  bool prior = false;       ///< DynamicRouting: learned log priors [I, J] as initial logits
  bool activation = false;  ///< DynamicRouting: activations of the children, if given, or else the
                            ///< lengths of their poses, multiply the couplings (Zhao et al. 2018)
};

/// Optional tensors of dynamic_routing; undefined ones are absent.
struct RoutingInputs {
  Tensor prior = {};  ///< initial logits b [I, J], for example learned log priors
  Tensor mask = {};  ///< kept upper capsules [B, J], not 0: partial sampling. None kept: ValueError
  Tensor activation = {};  ///< of the lower capsules [B, I], multiplied into the couplings
};

/// Routing by agreement, Sabour, Frosst, Hinton 2017, Procedure 1. Repeat r times:
///   c_ij = softmax_j(b_ij);  s_j = Σ_i c_ij û_{j|i};  v_j = squash_c(s_j);  b_ij += ⟨û_{j|i}, v_j⟩
/// (the last update of b would be dead work and is left out). Without `detach` the gradient passes
/// through all iterations. With r = 1 and no prior the couplings are uniform, 1/J. ShapeError on
/// sizes that do not fit, ValueError for r < 1, squash_c <= 0 or a mask that keeps nothing. Fused,
/// except with `activation` or cosine agreement: besides the gradient of the votes it takes no
/// memory of their size.
Routed dynamic_routing(const Tensor& votes,
                       const DynamicRoutingOptions& options = {},
                       const RoutingInputs& inputs = {});

/// dynamic_routing of the votes W_ij u_i, which are not stored: u [B, I, E], weight [I, J, D, E]
/// or, shared by all children, [J, D, E], which makes an iteration as cheap as one of votes of size
/// E that all parents have in common. Memory besides the results: a few tensors of the size of u
/// and of the poses of all iterations. Small batches (below 8, of weights that are not shared),
/// `activation` and cosine agreement make the votes. Second derivatives, and first ones of the
/// couplings, run in plain ops, votes and all. Sabour, Frosst, Hinton 2017, eq (2) and Procedure 1;
/// ShapeError and ValueError as above.
Routed dynamic_routing_from(const Tensor& u,
                            const Tensor& weight,
                            const DynamicRoutingOptions& options = {},
                            const RoutingInputs& inputs = {});

/// dynamic_routing of every window of the votes W_j u_i, of u [B, R, E] and one weight [J, D, E]:
/// window n has `rows` of the R children, from n·step on, and is routed alone. Results [B·N, ...],
/// N = ⌊(R − rows) / step⌋ + 1; `inputs` are those of the windows. Neither votes nor windows are
/// stored. With `activation` or cosine agreement and for a single iteration both are. Second
/// derivatives, and first ones of the couplings, run in plain ops on copies. ShapeError and
/// ValueError as above, and for windows that do not fit.
Routed dynamic_routing_windows(const Tensor& u,
                               const Tensor& weight,
                               std::int64_t rows,
                               std::int64_t step,
                               const DynamicRoutingOptions& options = {},
                               const RoutingInputs& inputs = {});

/// dynamic_routing in plain ops: the reference of the fused kernel. An observed step has as
/// objective −Ψ = −Σ_j (n_j − √c atan(n_j/√c)), n_j = ‖s_j‖, which never rises (dot agreement
/// without `leaky` and `activation`; see dynamic_routing_potential).
Routed dynamic_routing_reference(const Tensor& votes,
                                 const DynamicRoutingOptions& options = {},
                                 const RoutingInputs& inputs = {},
                                 const RoutingObserver& observe = {});

/// Ψ of sums s [B, J, D] -> [B].   See dynamic_routing_potential.
Tensor routing_potential(const Tensor& sums, double squash_c = 1.0);

/// dynamic_routing as a module. Parameter: prior [I, J], if asked for; it starts at 0.
class DynamicRouting : public Routing {
 public:
  using Options = DynamicRoutingOptions;
  /// ValueError for options that the function refuses, and for a prior with any number of children
  /// or with couplings that are constants.
  DynamicRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.iterations; }
  void set_iterations(int n) override;
  int uniform_iterations() const override { return options_.prior ? -1 : 1; }
  bool fixes_children() const override { return options_.prior; }
  Tensor prior;  ///< [I, J], if asked for

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;
  std::optional<Routed> forward_product(const VoteProduct& product, const Votes& rest) override;
  std::optional<Routed> forward_windows(const VoteWindows& windows, const Votes& rest) override;

 private:
  RoutingInputs inputs(const Votes& votes, DType dtype) const;
  Options options_;
};

void describe(OptionText& text, DynamicRoutingOptions& options);

}  // namespace capsfw
