#pragma once
// EM routing as a module, for vector and matrix capsules alike.

#include <vector>

#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// How a layer of capsules routes by EM. The name "em" stands for λ = 0.03 and eps_var = 1, which
/// suit votes of variance 1 (EmRouting::balance); the values here are those of the paper.
struct EmRoutingOptions {
  static constexpr const char* kRouting = "em";
  /// M steps.
  int iterations = 3;
  double lambda = 0.01;              ///< λ_t = lambda_scale · lambda · (1 − lambda_base^t)
  double lambda_base = 0.95;         ///< 0: the same λ in every iteration
  double lambda_scale = 1;           ///< for schedules over training steps, see lambda_growth
  std::vector<double> lambdas = {};  ///< not empty: λ_t before lambda_scale, one for each iteration
  /// λ = 0.01 presumes that the children of a parent add up to about this many; λ is multiplied by
  /// data_per_parent · parents / children. 0: it is not, as in the paper.
  double data_per_parent = 100;
  EmVariant variant = EmVariant::hinton;  ///< form of the cost
  double eps_var = 1e-6;                  ///< added to every variance
  bool detach = false;                    ///< no gradient through earlier steps
  std::vector<double> set_aside = {};     ///< `lambdas` that set_steps found to be too many or few

  /// M steps: one for each of `lambdas`, or `iterations`.
  int steps() const { return lambdas.empty() ? iterations : static_cast<int>(lambdas.size()); }
  /// `lambdas` hold for their own number of steps only: they come back with it. ValueError for less
  /// than 1.
  void set_steps(int n);
};

/// λ of every iteration for a layer in which `parents` compete for `children`. ValueError for less
/// than one iteration.
std::vector<double> lambdas_for(const EmRoutingOptions& options,
                                std::int64_t parents,
                                std::int64_t children);

/// The options that em_routing takes, without the λ.
EmOptions em_options(const EmRoutingOptions& options);

/// em_routing as a module. The activations of the children are those given, else the lengths of
/// their poses, else 1; those of the parents are a_j. An observed step has no objective (only v1 is
/// monotone, in its likelihood). Parameters, but for v1: beta_a and beta_u [J], zero (in a network:
/// those of balance()).
class EmRouting : public Routing {
 public:
  using Options = EmRoutingOptions;
  /// ValueError for less than 1 iteration.
  EmRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.steps(); }
  void set_iterations(int n) override { options_.set_steps(n); }
  int uniform_iterations() const override { return 1; }
  bool balances() const override { return true; }
  /// Votes of variance 1, then as ConvMatrixCapsules::balance: parents start with activations
  /// around ½, which grow with the votes that agree.
  void balance(const std::function<Votes()>& make, const Tensor& weight) override;
  /// May be changed between calls, for schedules over training steps.
  Options& options() { return options_; }
  Tensor beta_a, beta_u;  ///< parameters [J]

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  EmRouted route(const Votes& votes, EmOptions options) const;
  Options options_;
};

void describe(OptionText& text, EmRoutingOptions& options);

}  // namespace capsfw
