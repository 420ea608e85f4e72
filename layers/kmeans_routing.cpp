#include <capsfw/layers/kmeans_routing.hpp>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/agreement.hpp"
#include "detail/overflow.hpp"

namespace capsfw {
namespace {

using detail::AgreementInputs;
using detail::AgreementRule;

/// `dtype`: of the votes, as soon as they are known.
void check(const KmeansRoutingOptions& o, DType dtype = DType::f64) {
  if (o.hard ? o.leaky : o.straight_through)
    throw ValueError(o.hard ? "kmeans_routing: 'leaky' has no meaning with 'hard'"
                            : "kmeans_routing: 'straight_through' needs 'hard'");
  if (o.iterations < 0 || !(o.sharpness > 0) || !(o.squash_c > 0))
    throw ValueError(fmt::format(
        "kmeans_routing: iterations ≥ 0, sharpness > 0 and squash_c > 0; got {}, {} and {}",
        o.iterations, o.sharpness, o.squash_c));
  if (const double most = largest_number(dtype); o.sharpness > most || 1 / o.sharpness > most)
    throw ValueError(
        fmt::format("kmeans_routing: the sharpness and its reciprocal must be finite in {}; got {}",
                    name_of(dtype), o.sharpness));
}

/// The soft ones.
AgreementRule rule_of(const KmeansRoutingOptions& o) {
  return {.kind = AgreementRule::Kind::kmeans,
          .sums = o.iterations + 1,
          .squash_c = o.squash_c,
          .leaky = o.leaky,
          .detach = o.detach,
          .scales = {o.sharpness}};
}

AgreementInputs inputs(const Tensor& prior, const Tensor& kept, DType dtype) {
  return {.prior = prior, .mask = kept.defined() ? to(kept, dtype) : Tensor()};
}

Tensor hard_couplings(const Tensor& score, const Tensor& soft, bool straight_through) {
  const Tensor hard = one_hot(argmax(score.detach(), -1), score.size(-1), score.dtype());
  return straight_through ? hard + (soft - soft.detach()) : hard;
}

}  // namespace

Routed kmeans_routing(const Tensor& votes,
                      const KmeansRoutingOptions& o,
                      const Tensor& prior,
                      const Tensor& kept,
                      const RoutingObserver& observe) {
  detail::check_votes("kmeans_routing", votes, prior, kept);
  check(o, votes.dtype());
  const AgreementRule rule = rule_of(o);
  const AgreementInputs in = inputs(prior, kept, votes.dtype());
  if (observe || o.hard || !detail::fits_kernels(rule, votes, in))
    return kmeans_routing_reference(votes, o, prior, kept, observe);
  return detail::route_votes(rule, votes, in);
}

Routed kmeans_routing_reference(const Tensor& given,
                                const KmeansRoutingOptions& o,
                                const Tensor& prior,
                                const Tensor& kept,
                                const RoutingObserver& observe) {
  detail::check_votes("kmeans_routing", given, prior, kept);
  check(o, given.dtype());
  const detail::OverflowWatch watch("kmeans_routing", given);
  const Tensor votes = watch.input(given);
  const Tensor seen = o.detach ? votes.detach() : votes;
  const Tensor bias = !prior.defined() ? Tensor() : o.detach ? prior.detach() : prior;
  Tensor c = detail::uniform_couplings(votes, kept);
  Tensor sum = weighted_sum(c, o.iterations == 0 ? votes : seen);
  for (int t = 1; t <= o.iterations; ++t) {
    Tensor score = agreement(seen, safe_normalize(sum)) * o.sharpness;
    if (bias.defined()) score = score + bias;
    if (kept.defined()) score = where(unsqueeze(kept, 1), score, -INFINITY);
    if (!o.hard || o.straight_through) c = couplings(score, {}, o.leaky && !o.hard);
    if (o.hard) c = hard_couplings(score, c, o.straight_through);
    sum = weighted_sum(c, t == o.iterations ? votes : seen);
    if (observe)
      observe({.iteration = t,
               .couplings = c,
               .poses = squash(sum, o.squash_c),
               .objective = capsfw::sum(logsumexp(score, {-1}), {-1}) * (-1 / o.sharpness)});
  }
  return {watch.output(squash(sum, o.squash_c)), watch.output(c)};
}

KmeansRouting::KmeansRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("kmeans_routing"), options_(o) {
  check(o);
  if (o.prior) prior = learned_prior(size, o.detach || (o.hard && !o.straight_through));
}

void KmeansRouting::set_iterations(int n) {
  if (n < 0) throw ValueError(fmt::format("kmeans_routing: at least 0 iterations; got {}", n));
  options_.iterations = n;
}

Routed KmeansRouting::forward(const Votes& v, const RoutingObserver& observe) {
  return kmeans_routing(v.votes, options_, prior, v.kept, observe);
}

std::optional<Routed> KmeansRouting::forward_product(const VoteProduct& p, const Votes& v) {
  check(options_, p.u.dtype());
  const AgreementRule rule = rule_of(options_);
  const AgreementInputs in = inputs(prior, v.kept, p.u.dtype());
  if (options_.hard || !detail::fits_product(rule, p, in)) return std::nullopt;
  return detail::route_product(rule, p, in);
}

std::optional<Routed> KmeansRouting::forward_windows(const VoteWindows& w, const Votes& v) {
  check(options_, w.product.u.dtype());
  const AgreementRule rule = rule_of(options_);
  const AgreementInputs in = inputs(prior, v.kept, w.product.u.dtype());
  if (options_.hard || !detail::fits_windows(rule, w.product, in)) return std::nullopt;
  return detail::route_windows(rule, w, in);
}

void describe(OptionText& text, KmeansRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("sharpness", o.sharpness);
  text.field("squash_c", o.squash_c);
  text.field("detach", o.detach);
  text.field("hard", o.hard);
  text.field("straight_through", o.straight_through);
  text.field("leaky", o.leaky);
  text.field("prior", o.prior);
}

}  // namespace capsfw
