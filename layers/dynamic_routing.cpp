#include <capsfw/layers/dynamic_routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/agreement.hpp"
#include "detail/overflow.hpp"
#include "detail/require_shape.hpp"

namespace capsfw {
namespace {

using detail::AgreementInputs;
using detail::AgreementRule;

void check(const char* who, const DynamicRoutingOptions& o) {
  if (o.iterations < 1)
    throw ValueError(fmt::format("{}: at least 1 iteration; got {}", who, o.iterations));
  if (!(o.squash_c > 0))
    throw ValueError(fmt::format("{}: squash_c must be positive; got {}", who, o.squash_c));
}

void check(const char* who,
           const Shape& votes,
           const DynamicRoutingOptions& o,
           const RoutingInputs& in) {
  check(who, o);
  const std::int64_t b = votes[0], i = votes[1], j = votes[2];
  detail::require_shape(who, in.prior, {i, j}, "the prior", votes);
  detail::require_shape(who, in.mask, {b, j}, "the mask", votes);
  if (in.mask.defined()) detail::kept_of(in.mask, who);
  detail::require_shape(who, in.activation, {b, i}, "the activation", votes);
}

AgreementRule rule_of(const DynamicRoutingOptions& o) {
  return {.kind = AgreementRule::Kind::dynamic,
          .sums = o.iterations,
          .squash_c = o.squash_c,
          .leaky = o.leaky,
          .detach = o.detach};
}

AgreementInputs agreement_inputs(const RoutingInputs& in) {
  return {.prior = in.prior, .mask = in.mask};
}

/// True for options that have no kernel.
bool plain_only(const DynamicRoutingOptions& o, const RoutingInputs& in) {
  return in.activation.defined() || o.agreement != Agreement::dot;
}

}  // namespace

Routed dynamic_routing_reference(const Tensor& given,
                                 const DynamicRoutingOptions& o,
                                 const RoutingInputs& in,
                                 const RoutingObserver& observe) {
  detail::check_votes("dynamic_routing", given);
  check("dynamic_routing", given.shape(), o, in);
  const detail::OverflowWatch watch("dynamic_routing", given);
  const Tensor votes = watch.input(given);
  // Detached: whatever feeds the couplings of the last iteration is a constant.
  const auto route = [&](const Tensor& t) { return o.detach && t.defined() ? t.detach() : t; };
  const Tensor seen = route(votes), activation = route(in.activation);
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  Tensor b =
      in.prior.defined() ? broadcast_to(route(in.prior), shape) : zeros(shape, votes.dtype());
  for (int t = 1;; ++t) {
    const bool last = t == o.iterations;
    Tensor c = couplings(b, in.mask, o.leaky);
    if (in.activation.defined()) c = c * unsqueeze(last ? in.activation : activation, -1);
    const Tensor s = weighted_sum(c, last ? votes : seen);
    if (observe)
      observe({.iteration = t,
               .couplings = c,
               .poses = squash(s, o.squash_c),
               .objective = -routing_potential(s, o.squash_c)});
    if (last) return {watch.output(squash(s, o.squash_c)), watch.output(c)};
    b = b + (o.agreement == Agreement::cosine ? agreement(safe_normalize(seen), safe_normalize(s))
                                              : agreement(seen, squash(s, o.squash_c)));
  }
}

Routed dynamic_routing(const Tensor& votes,
                       const DynamicRoutingOptions& o,
                       const RoutingInputs& in) {
  detail::check_votes("dynamic_routing", votes);
  check("dynamic_routing", votes.shape(), o, in);
  const AgreementRule rule = rule_of(o);
  if (plain_only(o, in) || !detail::fits_kernels(rule, votes, agreement_inputs(in)))
    return dynamic_routing_reference(votes, o, in);
  return detail::route_votes(rule, votes, agreement_inputs(in));
}

Routed dynamic_routing_from(const Tensor& u,
                            const Tensor& weight,
                            const DynamicRoutingOptions& o,
                            const RoutingInputs& in) {
  const VoteProduct product{u, weight};
  detail::check_product("dynamic_routing_from", product);
  check("dynamic_routing_from", {u.size(0), u.size(1), weight.size(-3), weight.size(-2)}, o, in);
  const AgreementRule rule = rule_of(o);
  if (plain_only(o, in) || !detail::fits_product(rule, product, agreement_inputs(in)))
    return dynamic_routing(product.votes(), o, in);
  return detail::route_product(rule, product, agreement_inputs(in));
}

Routed dynamic_routing_windows(const Tensor& u,
                               const Tensor& weight,
                               std::int64_t rows,
                               std::int64_t step,
                               const DynamicRoutingOptions& o,
                               const RoutingInputs& in) {
  const VoteWindows windows{{u, weight}, rows, step};
  detail::check_windows("dynamic_routing_windows", windows);
  check("dynamic_routing_windows",
        {u.size(0) * windows.count(), rows, weight.size(0), weight.size(1)}, o, in);
  const AgreementRule rule = rule_of(o);
  if (plain_only(o, in) || !detail::fits_windows(rule, windows.product, agreement_inputs(in)))
    return dynamic_routing(VoteProduct{detail::copy_windows(windows), weight}.votes(), o, in);
  return detail::route_windows(rule, windows, agreement_inputs(in));
}

Tensor routing_potential(const Tensor& sums, double squash_c) {
  const double root = std::sqrt(squash_c);
  const Tensor n = safe_norm(sums);
  return sum(n - root * atan(n / root), {-1});
}

DynamicRouting::DynamicRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("dynamic_routing"), options_(o) {
  check("dynamic_routing", o);
  if (o.prior) prior = learned_prior(size, o.detach);
}

void DynamicRouting::set_iterations(int n) {
  if (n < 1) throw ValueError(fmt::format("dynamic_routing: at least 1 iteration; got {}", n));
  options_.iterations = n;
}

RoutingInputs DynamicRouting::inputs(const Votes& v, DType dtype) const {
  RoutingInputs in{.prior = prior};
  if (v.kept.defined()) in.mask = capsfw::to(v.kept, dtype);
  if (options_.activation)
    in.activation = v.activations.defined() ? v.activations
                    : v.poses.defined()     ? safe_norm(v.poses, {-1})
                                            : Tensor();
  return in;
}

Routed DynamicRouting::forward(const Votes& v, const RoutingObserver& observe) {
  const RoutingInputs in = inputs(v, v.votes.dtype());
  return observe ? dynamic_routing_reference(v.votes, options_, in, observe)
                 : dynamic_routing(v.votes, options_, in);
}

std::optional<Routed> DynamicRouting::forward_product(const VoteProduct& p, const Votes& v) {
  const RoutingInputs in = inputs(v, p.u.dtype());
  const AgreementRule rule = rule_of(options_);
  if (plain_only(options_, in) || !detail::fits_product(rule, p, agreement_inputs(in)))
    return std::nullopt;
  return detail::route_product(rule, p, agreement_inputs(in));
}

std::optional<Routed> DynamicRouting::forward_windows(const VoteWindows& w, const Votes& v) {
  const RoutingInputs in = inputs(v, w.product.u.dtype());
  const AgreementRule rule = rule_of(options_);
  if (options_.activation || plain_only(options_, in) ||
      !detail::fits_windows(rule, w.product, agreement_inputs(in)))
    return std::nullopt;
  return detail::route_windows(rule, w, agreement_inputs(in));
}

void describe(OptionText& text, DynamicRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("squash_c", o.squash_c);
  text.field("detach", o.detach);
  text.field("leaky", o.leaky);
  text.field("agreement", o.agreement, {"dot", "cosine"});
  text.field("prior", o.prior);
  text.field("activation", o.activation);
}

}  // namespace capsfw
