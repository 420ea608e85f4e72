#include <capsfw/layers/heinsen_routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/balance.hpp"
#include "detail/em_loop.hpp"
#include "detail/overflow.hpp"

namespace capsfw {
namespace {

constexpr const char* kWho = "heinsen_routing";

void check_options(const HeinsenRoutingOptions& o) {
  if (o.iterations < 1)
    throw ValueError(fmt::format("{}: at least 1 iteration; got {}", kWho, o.iterations));
  if (!(o.eps_var >= 0 && std::isfinite(o.eps_var)))
    throw ValueError(
        fmt::format("{}: eps_var must be at least 0 and finite; got {}", kWho, o.eps_var));
}

}  // namespace

Routed heinsen_routing(const Tensor& given_votes,
                       const Tensor& given_a_in,
                       const Tensor& beta_use,
                       const Tensor& beta_ign,
                       const HeinsenRoutingOptions& o,
                       const Tensor& kept,
                       const RoutingObserver& observe) {
  detail::check_votes(kWho, given_votes, {}, kept);
  check_options(o);
  const detail::OverflowWatch watch(kWho, given_votes);
  const Tensor votes = watch.input(given_votes), a_in = watch.input(given_a_in);
  const std::int64_t b = votes.size(0), i = votes.size(1), j = votes.size(2);
  const bool fits = a_in.shape() == Shape{b, i} && beta_use.shape() == beta_ign.shape() &&
                    (beta_use.shape() == Shape{j} || beta_use.shape() == Shape{i, j});
  if (!fits)
    throw ShapeError(
        fmt::format("{}: a_in must be [{}, {}], the betas both [{}] or both [{}, {}] for votes {}; "
                    "got {}, {} and {}",
                    kWho, b, i, j, i, j, votes.shape().str(), a_in.shape().str(),
                    beta_use.shape().str(), beta_ign.shape().str()));
  const detail::EmCompetition competition = detail::compete_over_parents(j, votes.dtype());
  const Tensor data = unsqueeze(a_in, -1);
  Tensor log_r = log(detail::uniform_couplings(votes, kept));
  for (int t = 1;; ++t) {
    const Tensor c = exp(log_r), used = c * data;
    const Tensor score = sum(beta_use * used - beta_ign * (data - used), {1});
    const Tensor share = log_normalize_weights(log_r, a_in);
    const Tensor mean = weighted_sum(share, votes);
    const auto activations = [&] { return sigmoid(score); };
    if (observe)
      observe({.iteration = t, .couplings = c, .poses = mean, .activations = activations()});
    if (t == o.iterations)
      return {watch.output(mean), watch.output(c), watch.output(activations())};
    const Tensor variance = weighted_sum(share, square(votes - unsqueeze(mean, 1))) + o.eps_var;
    Tensor joint = vote_log_density(votes, mean, variance) + unsqueeze(logsigmoid(score), 1);
    if (kept.defined()) joint = where(unsqueeze(kept, 1), joint, -INFINITY);
    log_r = competition.normalize(joint);
  }
}

HeinsenRouting::HeinsenRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing(kWho), options_(o) {
  check_options(o);
  if (o.each && size.children < 1)
    throw ValueError(fmt::format(
        "{}: betas of each child need a fixed number of children; got any number", kWho));
  const Shape shape = o.each ? Shape{size.children, size.parents} : Shape{size.parents};
  beta_use = param("beta_use", zeros(shape));
  beta_ign = param("beta_ign", zeros(shape));
}

void HeinsenRouting::set_iterations(int n) {
  Options o = options_;
  o.iterations = n;
  check_options(o);
  options_ = o;
}

Routed HeinsenRouting::forward(const Votes& v, const RoutingObserver& observe) {
  return heinsen_routing(v.votes, detail::activations_below(v), beta_use, beta_ign, options_,
                         v.kept, observe);
}

void HeinsenRouting::balance(const std::function<Votes()>& make, const Tensor& weight) {
  const NoGradGuard no_grad;
  const Votes start = make();
  detail::scale_to_unit_variance(start.votes, weight);
  const double data = mean(sum(detail::activations_below(start), {1})).item(),
               others = static_cast<double>(start.votes.size(2) - 1);
  if (!(data > 0)) return;
  beta_ign.fill_(3 / data);
  beta_use.fill_(3 / data * others);
}

void describe(OptionText& text, HeinsenRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("each", o.each);
  text.field("eps_var", o.eps_var);
}

}  // namespace capsfw
