#pragma once
// Variational Bayes routing: EM routing with a posterior over the Gaussians instead of a point.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Options of variational_routing and VariationalRouting: how often, and the conjugate priors.
struct VariationalRoutingOptions {
  static constexpr const char* kRouting = "variational-bayes";
  /// E and M steps.
  int iterations = 3;
  double alpha0 = 1;  ///< of the Dirichlet of the mixing weights, for each parent
  double kappa0 = 1;  ///< how many votes the prior mean 0 is worth
  double psi0 = 1;    ///< scale of the Wishart of each precision
  double nu0 = 0;     ///< its degrees of freedom; 0: D + 1
};

/// Routing by variational Bayes, Ribeiro, Leontidis, Kollias 2020, Capsule Routing via Variational
/// Bayes, Algorithm 1, with diagonal precisions: every parent is a Gaussian with unknown mixing
/// weight π_j ~ Dir(α0), mean μ_jd ~ N(0, 1/(κ0 λ_jd)) and precision λ_jd ~ W(Ψ0, ν0), a
/// one-dimensional Wishart (Gamma) for each dimension, which makes the mean-field updates exact.
/// From R_ij = 1/J; then r times (the first time without E), with r_ij = a_i R_ij, N_j = Σ_i r_ij:
///   E   ln ρ_ij = E ln π_j + ½ Σ_d E ln λ_jd − D/2 ln 2π − ½ Σ_d (1/κ_j + ν_j Ψ_jd (V_ijd −
///   m_jd)²)
///       R_ij = softmax_j(ln ρ_ij)
///   M   α_j = α0 + N_j;  κ_j = κ0 + N_j;  ν_j = ν0 + N_j;  m_j = Σ_i r_ij V_ij / κ_j
///       1/Ψ_jd = 1/Ψ0 + Σ_i r_ij (V_ijd − m_jd)² + κ0 m_jd²
///   where E ln π_j = ψ(α_j) − ψ(Σ_j α_j) and E ln λ_jd = ψ(ν_j/2) + ln 2 + ln Ψ_jd
/// The pose is m_j. The activation follows the paper in measuring agreement by the entropy of what
/// a parent expects, a_j = sigmoid(β_a,j − β_u,j − e^(E ln π_j) H_j), H_j = ½ Σ_d (1 + ln 2π − E ln
/// λ_jd), without the batch normalisation that the authors put before the sigmoid: a sample must
/// not depend on its batch. No total is divided by that a prior does not keep positive, so starved
/// parents and equal votes are safe: variances do not collapse. An observed step has as objective
/// the negative evidence lower bound (children weighted by a_i), which never rises.   ShapeError on
/// sizes that do not fit; ValueError for less than 1 iteration, a prior that is not positive, or a
/// sample of which `kept` keeps no parent; DTypeError unless `kept` is b8.
Routed variational_routing(const Tensor& votes,
                           const Tensor& a_in,
                           const Tensor& beta_a,
                           const Tensor& beta_u,
                           const VariationalRoutingOptions& options = {},
                           const Tensor& kept = {},
                           const RoutingObserver& observe = {});

/// variational_routing as a module. The activations of the children are those given, else the
/// lengths of their poses, else 1; children that do not exist have 0. Parameters: beta_a and beta_u
/// [J], zero (in a network: those of balance()).
class VariationalRouting : public Routing {
 public:
  using Options = VariationalRoutingOptions;
  /// ValueError as variational_routing.
  VariationalRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.iterations; }
  void set_iterations(int n) override;
  int uniform_iterations() const override { return 1; }
  bool balances() const override { return true; }
  /// Votes of variance 1, which psi0 = 1 expects, and a beta_a for which activations start around
  /// ½.
  void balance(const std::function<Votes()>& make, const Tensor& weight) override;
  Tensor beta_a, beta_u;  ///< parameters [J]

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

void describe(OptionText& text, VariationalRoutingOptions& options);

}  // namespace capsfw
