#pragma once
// Heinsen's routing, for sequences of any length.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Options of heinsen_routing and HeinsenRouting.
struct HeinsenRoutingOptions {
  static constexpr const char* kRouting = "heinsen";
  /// E and M steps.
  int iterations = 3;
  bool each = false;      ///< HeinsenRouting: betas [I, J] for a fixed number of children, not [J]
  double eps_var = 1e-6;  ///< added to every variance, in squared units of the votes
};

/// Heinsen 2019, An Algorithm for Routing Capsules in All Domains, Algorithm 1 (the author's An
/// Algorithm for Routing Vectors in Sequences, 2022, keeps its D step and the two betas). Parents
/// are Gaussians that gain by the data they use and pay for the data they ignore. Repeat r times
/// (the first time with R_ij = 1/J):
///   E   R_ij = softmax_j(ln f(s_j) + ln N(V_ij; μ_j, diag σ_j²)), f the logistic function
///   D   U_ij = a_i R_ij (used);  a_i − U_ij (ignored)
///   M   s_j = Σ_i β_use,ij U_ij − Σ_i β_ign,ij (a_i − U_ij)
///       μ_j = Σ_i U_ij V_ij / Σ_i U_ij;  σ_j² = Σ_i U_ij (V_ij − μ_j)² / Σ_i U_ij + eps_var
/// Poses are μ_j, activations f(s_j). Betas of shape [J] serve any number of children; those of
/// shape [I, J] a fixed one. a_i [B, I] are in (0, 1): the paper's f(a_i); a child with a_i = 0 is
/// as if it were not there.   ShapeError on sizes that do not fit; ValueError for r < 1, a
/// negative eps_var, or a sample of which `kept` keeps no parent; DTypeError unless `kept` is b8.
Routed heinsen_routing(const Tensor& votes,
                       const Tensor& a_in,
                       const Tensor& beta_use,
                       const Tensor& beta_ign,
                       const HeinsenRoutingOptions& options = {},
                       const Tensor& kept = {},
                       const RoutingObserver& observe = {});

/// heinsen_routing as a module. The activations of the children are those given, else the lengths
/// of their poses, else 1; children that do not exist have 0, which is the mask of sequences of
/// different lengths. Parameters: beta_use and beta_ign, [J] or [I, J], zero: all parents start at
/// activation ½, whatever they use (in a network: those of balance()). The name "heinsen" stands
/// for eps_var = 1, which suits votes of variance 1.
class HeinsenRouting : public Routing {
 public:
  using Options = HeinsenRoutingOptions;
  /// ValueError as heinsen_routing, and for `each` with any number of children.
  HeinsenRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.iterations; }
  void set_iterations(int n) override;
  int uniform_iterations() const override { return 1; }
  bool fixes_children() const override { return options_.each; }
  bool balances() const override { return true; }
  /// Votes of variance 1, and betas for which a parent with its share of the data, Σ_i a_i / J, has
  /// activation ½ and one with twice as much f(3).
  void balance(const std::function<Votes()>& make, const Tensor& weight) override;
  Tensor beta_use, beta_ign;  ///< parameters [I, J]

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

void describe(OptionText& text, HeinsenRoutingOptions& options);

}  // namespace capsfw
