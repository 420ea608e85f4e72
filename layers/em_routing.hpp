#pragma once
// EM routing: the upper capsules are Gaussians with diagonal covariance, fitted to the votes by a
// few steps of expectation and maximisation. B batch, I lower and J upper capsules, D pose size.
//
// Everything runs in log space, so that far or starved capsules stay finite; 0/0 = 0 and there is
// no epsilon in a denominator. Gradients of any order.

#include <functional>
#include <string_view>
#include <vector>

#include <capsfw/layers/routing.hpp>

namespace capsfw {

/// What an iteration does with the assignments R. α_i weighs the children in the M step, r_ij =
/// α_i R_ij / Σ_i α_i R_ij, and a_j = sigmoid(λ_t (β_a,j − cost_j)) with ln σ = ½ ln variance.
///
///   name     α_i   weight of j in the E step    cost_j
///   v1       1     π_j = mean_i R_ij            none: the activation is π_j (a Gaussian mixture)
///   v2       1     a_j                          (β_u + Σ_h ln σ_j^h) Σ_i r_ij
///   v3       a_i   a_j                          (β_u + Σ_h ln σ_j^h) Σ_i r_ij
///   v4       a_i   a_j                          (β_u + Σ_h ln σ_j^h) Σ_i a_i R_ij
///   hinton   a_i   a_j                          Σ_h (β_u + ln σ_j^h) Σ_i a_i R_ij
///   eq12     1     a_j                          β_u Σ_i R_ij − Σ_i r_ij ln N(V_ij; M_j, var_j)
///
/// hinton: Hinton, Sabour, Frosst 2018, Procedure 1. The others: Su 2018, New dynamic routing 1 to
/// 4 and eqs (12), (13). β_u stands once per capsule there, once per dimension in `hinton`.
enum class EmVariant { v1, v2, v3, v4, hinton, eq12 };

/// A variant by its name. ValueError listing the names.
EmVariant em_variant(std::string_view name);

/// What em_routing returns.
struct EmRouted {
  Tensor poses;        ///< M [B, J, D]
  Tensor activations;  ///< a, or π for v1 [B, J]
  Tensor assignments;  ///< R of the last M step [B, I, J], before any product with a_in
  Tensor variance;     ///< [B, J, D], with eps_var
};

/// Gaussians to start from, all three or none.
struct EmInit {
  Tensor mean;      ///< [B, J, D]
  Tensor variance;  ///< [B, J, D]
  Tensor weight;    ///< [B, J], positive
};

/// Options of em_routing.
struct EmOptions {
  EmVariant variant = EmVariant::hinton;  ///< form of the cost
  double eps_var = 1e-6;  ///< added to every variance, in squared units of the votes
  bool detach = false;    ///< R of the last M step is a constant: no gradient through earlier steps
  EmInit init = {};       ///< given: an E step comes first
  Tensor mask = {};  ///< b8 [B, I]: children that take no part have R = 0. None kept: ValueError
  Tensor kept = {};  ///< b8 [B, J]: the other parents get no child; their pose is 0
  /// Called after every M step, with what the routing would return if it ended there.
  std::function<void(const EmRouted&)> observe = {};
};

/// R_ij = 1/J; then for every λ_t of `lambdas` (the first time without E):
///   E   R_ij = softmax_j(ln weight_j + ln N(V_ij; M_j, diag var_j))
///   M   M_j = Σ_i r_ij V_ij;  var_j = Σ_i r_ij (V_ij − M_j)² + eps_var;  cost_j, a_j by variant
/// No E step follows the last M step. votes V [B, I, J, D]; a_in [B, I], undefined for variants
/// that do not use it; beta_a, beta_u [J], undefined for v1. Votes that are equal over j need
/// `init`: from uniform R their upper capsules stay equal for ever. A total Σ_i α_i R_ij too small
/// to be divided by (below 1e-31 in f32) counts as 0, and r with it. ShapeError on sizes that do
/// not fit; DTypeError unless masks are b8; ValueError without λ, for a negative eps_var, if a
/// tensor that the variant needs is missing, or where `kept` keeps no parent.   Fused, except with
/// `init`, `kept` or `observe`; reference: em_routing_reference.
EmRouted em_routing(const Tensor& votes,
                    const Tensor& a_in,
                    const Tensor& beta_a,
                    const Tensor& beta_u,
                    const std::vector<double>& lambdas,
                    const EmOptions& options = {});
/// The same in plain ops.
EmRouted em_routing_reference(const Tensor& votes,
                              const Tensor& a_in,
                              const Tensor& beta_a,
                              const Tensor& beta_u,
                              const std::vector<double>& lambdas,
                              const EmOptions& options = {});

/// ln N(V_ij; M_j, diag var_j) = −½ Σ_h ((V − M)² / var + ln var + ln 2π): votes [B, I, J, D], mean
/// and variance [B, J, D] -> [B, I, J].   Su 2018, eq (10).
Tensor vote_log_density(const Tensor& votes, const Tensor& mean, const Tensor& variance);

/// S_j = −Σ_i r_ij ln p_ij: how badly j fits its votes. r and log_density [B, I, J] -> [B, J]. Su
/// 2018, eq (13).
Tensor cluster_entropy(const Tensor& r, const Tensor& log_density);
/// The same in closed form, D/2 + (Σ_h ln σ_j^h + D/2 ln 2π) Σ_i r_ij, where `variance` [B, J, D]
/// is that of votes weighted by r.   Su 2018, eq (14).
Tensor cluster_entropy_closed(const Tensor& r, const Tensor& variance);

/// λ_t = final · (1 − base^t), t = 1, ..., n: the inverse temperature. Hinton, Sabour, Frosst 2018
/// (values from the authors' answers in its open review).
std::vector<double> lambda_schedule(int n, double final_lambda = 0.01, double base = 0.95);

/// A factor for λ that grows from `low` to `high`, linear in step / total and then constant: the
/// schedule over training steps, to be multiplied with lambda_schedule over iterations.
double lambda_growth(double step, double total, double low = 0.1, double high = 1.0);

}  // namespace capsfw
