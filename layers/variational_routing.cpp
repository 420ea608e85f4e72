#include <capsfw/layers/variational_routing.hpp>

#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/gamma.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/balance.hpp"
#include "detail/em_loop.hpp"
#include "detail/overflow.hpp"

namespace capsfw {
namespace {

constexpr const char* kWho = "variational_routing";
const double kLog2Pi = std::log(2 * std::numbers::pi);

/// std::lgamma is not for several threads.
double log_gamma(double x) { return lgamma(scalar(x, DType::f64)).item(); }

void check_options(const VariationalRoutingOptions& o) {
  if (o.iterations < 1)
    throw ValueError(fmt::format("{}: at least 1 iteration; got {}", kWho, o.iterations));
  if (!(o.alpha0 > 0 && o.kappa0 > 0 && o.psi0 > 0 && o.nu0 >= 0))
    throw ValueError(
        fmt::format("{}: alpha0, kappa0 and psi0 must be positive, nu0 positive or 0 (D + 1); got "
                    "{}, {}, {} and {}",
                    kWho, o.alpha0, o.kappa0, o.psi0, o.nu0));
}

/// The posterior of the M step, and what follows from it.
struct Posterior {
  Tensor alpha, kappa, nu;  ///< [B, J]
  Tensor mean, inverse;     ///< m and 1/Ψ [B, J, D]
  Tensor squares;           ///< (V − m)² [B, I, J, D]
  Tensor total;             ///< Σ_j α_j of the kept parents [B, 1]
  Tensor log_pi;            ///< E ln π [B, J]
  Tensor log_det;           ///< Σ_d E ln λ [B, J]

  Posterior(const Tensor& votes,
            const Tensor& r,
            const Tensor& kept,
            const VariationalRoutingOptions& o,
            double nu0) {
    const auto d = static_cast<double>(votes.size(3));
    const Tensor n = sum(r, {1});
    alpha = n + o.alpha0;
    kappa = n + o.kappa0;
    nu = n + nu0;
    mean = weighted_sum(r, votes) / unsqueeze(kappa, -1);
    squares = square(votes - unsqueeze(mean, 1));
    // Around m instead of the mean of the votes: the same sum, without a division by n.
    inverse = weighted_sum(r, squares) + o.kappa0 * square(mean) + 1 / o.psi0;
    total = sum(kept.defined() ? where(kept, alpha, 0.0) : alpha, {-1}, true);
    log_pi = digamma(alpha) - digamma(total);
    log_det = d * (digamma(nu * 0.5) + std::numbers::ln2) - sum(log(inverse), {-1});
  }

  /// ln ρ [B, I, J].
  Tensor log_rho() const {
    const auto d = static_cast<double>(mean.size(2));
    const Tensor constant = log_pi + 0.5 * log_det - 0.5 * d * kLog2Pi - 0.5 * d / kappa;
    return agreement(squares, -0.5 * unsqueeze(nu, -1) / inverse) + unsqueeze(constant, 1);
  }

  Tensor activations(const Tensor& beta_a, const Tensor& beta_u) const {
    const auto d = static_cast<double>(mean.size(2));
    const Tensor entropy = 0.5 * (d * (1 + kLog2Pi) - log_det);
    return sigmoid(beta_a - beta_u - exp(log_pi) * entropy);
  }
};

/// KL of the posterior of the mixing weights from their prior [B].
Tensor dirichlet_divergence(const Posterior& p, double alpha0, const Tensor& there) {
  const Tensor parents = sum(there, {-1});
  const Tensor each = log_gamma(alpha0) - lgamma(p.alpha) + (p.alpha - alpha0) * p.log_pi;
  return lgamma(select(p.total, -1, 0)) - lgamma(parents * alpha0) + sum(each * there, {-1});
}

/// KL of the posterior of means and precisions from their prior [B, J].
Tensor gaussian_divergence(const Posterior& p, const VariationalRoutingOptions& o, double nu0) {
  const auto d = static_cast<double>(p.mean.size(2));
  const double a0 = nu0 / 2;
  const Tensor a = p.nu * 0.5, expected = unsqueeze(p.nu, -1) / p.inverse;  // E λ
  const Tensor ratio = o.kappa0 / p.kappa;
  const Tensor means =
      0.5 * (d * (ratio - log(ratio) - 1.0) + o.kappa0 * sum(expected * square(p.mean), {-1}));
  const Tensor precisions = d * ((a - a0) * digamma(a) - lgamma(a) + log_gamma(a0) - a) +
                            sum(a0 * log(p.inverse * o.psi0) + expected * (0.5 / o.psi0), {-1});
  return means + precisions;
}

/// −ELBO [B] of the posterior and the assignments that it was made of.
Tensor negative_bound(const Posterior& p,
                      const Tensor& log_r,
                      const Tensor& r,
                      const Tensor& kept,
                      const VariationalRoutingOptions& o,
                      double nu0) {
  const Tensor there =
      kept.defined() ? to(kept, r.dtype()) : ones({r.size(0), r.size(2)}, r.dtype());
  const Tensor fit = p.log_rho() - where(gt(r, 0.0), log_r, 0.0);
  return dirichlet_divergence(p, o.alpha0, there) +
         sum(gaussian_divergence(p, o, nu0) * there, {-1}) - sum(r * fit, {1, 2});
}

}  // namespace

Routed variational_routing(const Tensor& given_votes,
                           const Tensor& given_a_in,
                           const Tensor& beta_a,
                           const Tensor& beta_u,
                           const VariationalRoutingOptions& o,
                           const Tensor& kept,
                           const RoutingObserver& observe) {
  detail::check_votes(kWho, given_votes, {}, kept);
  check_options(o);
  const detail::OverflowWatch watch(kWho, given_votes);
  const Tensor votes = watch.input(given_votes), a_in = watch.input(given_a_in);
  const std::int64_t b = votes.size(0), i = votes.size(1), j = votes.size(2), d = votes.size(3);
  if (a_in.shape() != Shape{b, i} || beta_a.shape() != Shape{j} || beta_u.shape() != Shape{j})
    throw ShapeError(fmt::format(
        "{}: a_in must be [{}, {}], beta_a and beta_u [{}] for votes {}; got {}, {} and {}", kWho,
        b, i, j, votes.shape().str(), a_in.shape().str(), beta_a.shape().str(),
        beta_u.shape().str()));
  const double nu0 = o.nu0 > 0 ? o.nu0 : static_cast<double>(d) + 1;
  const detail::EmCompetition competition = detail::compete_over_parents(j, votes.dtype());
  Tensor log_r = log(detail::uniform_couplings(votes, kept));
  for (int t = 1;; ++t) {
    const Tensor c = exp(log_r), r = c * unsqueeze(a_in, -1);
    const Posterior p(votes, r, kept, o, nu0);
    const auto activations = [&] { return p.activations(beta_a, beta_u); };
    if (observe)
      observe({.iteration = t,
               .couplings = c,
               .poses = p.mean,
               .activations = activations(),
               .objective = negative_bound(p, log_r, r, kept, o, nu0)});
    if (t == o.iterations)
      return {watch.output(p.mean), watch.output(c), watch.output(activations())};
    Tensor joint = p.log_rho();
    if (kept.defined()) joint = where(unsqueeze(kept, 1), joint, -INFINITY);
    log_r = competition.normalize(joint);
  }
}

VariationalRouting::VariationalRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing(kWho), options_(o) {
  check_options(o);
  beta_a = param("beta_a", zeros({size.parents}));
  beta_u = param("beta_u", zeros({size.parents}));
}

void VariationalRouting::set_iterations(int n) {
  Options o = options_;
  o.iterations = n;
  check_options(o);
  options_ = o;
}

Routed VariationalRouting::forward(const Votes& v, const RoutingObserver& observe) {
  return variational_routing(v.votes, detail::activations_below(v), beta_a, beta_u, options_,
                             v.kept, observe);
}

void VariationalRouting::balance(const std::function<Votes()>& make, const Tensor& weight) {
  const NoGradGuard no_grad;
  detail::scale_to_unit_variance(make().votes, weight);
  beta_a.fill_(0);
  beta_u.fill_(0);
  const Tensor a = clamp(forward(make(), {}).activations, 1e-6, 1 - 1e-6);
  const double middle = mean(log1p(-a) - log(a)).item();
  if (std::isfinite(middle)) beta_a.fill_(middle);
}

void describe(OptionText& text, VariationalRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("alpha0", o.alpha0);
  text.field("kappa0", o.kappa0);
  text.field("psi0", o.psi0);
  text.field("nu0", o.nu0);
}

}  // namespace capsfw
