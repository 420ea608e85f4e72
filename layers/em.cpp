#include <capsfw/layers/em.hpp>

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/reduce.hpp>

#include "detail/balance.hpp"

namespace capsfw {

void EmRoutingOptions::set_steps(int n) {
  if (n < 1) throw ValueError(fmt::format("em_routing: at least 1 iteration; got {}", n));
  if (!lambdas.empty()) set_aside = std::exchange(lambdas, {});
  if (static_cast<int>(set_aside.size()) == n) lambdas = set_aside;
  iterations = n;
}

std::vector<double> lambdas_for(const EmRoutingOptions& o,
                                std::int64_t parents,
                                std::int64_t children) {
  if (o.steps() < 1)
    throw ValueError(
        fmt::format("matrix capsules: at least 1 routing iteration; got {}", o.steps()));
  std::vector<double> out =
      o.lambdas.empty() ? lambda_schedule(o.iterations, o.lambda, o.lambda_base) : o.lambdas;
  const double data = o.data_per_parent > 0 ? o.data_per_parent * static_cast<double>(parents) /
                                                  static_cast<double>(children)
                                            : 1.0;
  for (double& lambda : out) lambda *= o.lambda_scale * data;
  return out;
}

EmOptions em_options(const EmRoutingOptions& o) {
  EmOptions em;
  em.variant = o.variant;
  em.eps_var = o.eps_var;
  em.detach = o.detach;
  return em;
}

EmRouting::EmRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("em_routing"), options_(o) {
  if (o.steps() < 1) options_.set_steps(o.steps());  // says why not
  if (o.variant == EmVariant::v1) return;
  beta_a = param("beta_a", zeros({size.parents}));
  beta_u = param("beta_u", zeros({size.parents}));
}

Routed EmRouting::forward(const Votes& v, const RoutingObserver& observe) {
  EmOptions em = em_options(options_);
  int t = 0;
  if (observe)
    em.observe = [&](const EmRouted& r) {
      observe({.iteration = ++t,
               .couplings = r.assignments,
               .poses = r.poses,
               .activations = r.activations});
    };
  const EmRouted r = route(v, em);
  return {r.poses, r.assignments, r.activations};
}

EmRouted EmRouting::route(const Votes& v, EmOptions em) const {
  em.mask = v.exists;
  em.kept = v.kept;
  return em_routing(v.votes, detail::activations_below(v), beta_a, beta_u,
                    lambdas_for(options_, v.votes.size(2), v.votes.size(1)), em);
}

void EmRouting::balance(const std::function<Votes()>& make, const Tensor& weight) {
  const NoGradGuard no_grad;
  const Votes start = make();
  detail::scale_to_unit_variance(start.votes, weight);
  const double children = static_cast<double>(start.votes.size(1)),
               parents = static_cast<double>(start.votes.size(2));
  detail::balance_em({.variance = [&] { return route(make(), em_options(options_)).variance; },
                      .variant = options_.variant,
                      .dims = static_cast<double>(start.votes.size(3)),
                      .data = mean(detail::activations_below(start)).item() * children / parents,
                      .weight = weight,
                      .beta_a = beta_a,
                      .beta_u = beta_u});
}

void describe(OptionText& text, EmRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("lambda", o.lambda);
  text.field("lambda_base", o.lambda_base);
  text.field("lambda_scale", o.lambda_scale);
  text.field("lambdas", o.lambdas);
  text.field("data_per_parent", o.data_per_parent);
  text.field("variant", o.variant, {"v1", "v2", "v3", "v4", "hinton", "eq12"});
  text.field("eps_var", o.eps_var);
  text.field("detach", o.detach);
}

}  // namespace capsfw
