#include <capsfw/layers/self_attention_routing.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/reduce.hpp>

namespace capsfw {

Routed self_attention_routing(const Tensor& votes,
                              const SelfAttentionRoutingOptions& o,
                              const Tensor& prior,
                              const Tensor& kept) {
  detail::check_votes("self_attention_routing", votes);
  if (!(o.squash_c > 0))
    throw ValueError(
        fmt::format("self_attention_routing: squash_c must be positive; got {}", o.squash_c));
  const std::int64_t i = votes.size(1), j = votes.size(2), d = votes.size(3);
  if (prior.defined() && prior.shape() != Shape{i, j})
    throw ShapeError(
        fmt::format("self_attention_routing: the prior must be [{}, {}] for votes {}; got {}", i, j,
                    votes.shape().str(), prior.shape().str()));
  const double scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(d, 1)));
  Tensor c = couplings(agreement(votes, sum(votes, {1})) * scale, kept);
  if (prior.defined()) c = c + prior;
  const Tensor s = weighted_sum(c, votes);
  return {o.squash == PoseSquash::exp ? squash_exp(s) : squash(s, o.squash_c), c};
}

SelfAttentionRouting::SelfAttentionRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("self_attention_routing"), options_(o) {
  if (o.prior && size.children < 1)
    throw ValueError(
        "self_attention_routing: a learned prior needs a fixed number of children; got any number. "
        "Hint: prior=false");
  if (o.prior) prior = param("prior", zeros({size.children, size.parents}));
}

Routed SelfAttentionRouting::forward(const Votes& v, const RoutingObserver& observe) {
  const Routed out = self_attention_routing(v.votes, options_, prior, v.kept);
  if (observe) observe({.iteration = 1, .couplings = out.couplings, .poses = out.poses});
  return out;
}

void describe(OptionText& text, SelfAttentionRoutingOptions& o) {
  text.field("squash", o.squash, {"exp", "standard"});
  text.field("squash_c", o.squash_c);
  text.field("prior", o.prior);
}

}  // namespace capsfw
