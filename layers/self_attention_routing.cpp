#include <capsfw/layers/self_attention_routing.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

namespace capsfw {

Routed self_attention_routing(const Tensor& votes,
                              const SelfAttentionRoutingOptions& o,
                              const Tensor& prior,
                              const Tensor& kept) {
  detail::check_votes("self_attention_routing", votes, prior, kept);
  if (!(o.squash_c > 0))
    throw ValueError(
        fmt::format("self_attention_routing: squash_c must be positive; got {}", o.squash_c));
  const std::int64_t d = votes.size(3);
  const double scale = 1 / std::sqrt(static_cast<double>(std::max<std::int64_t>(d, 1)));
  Tensor c = couplings(agreement(votes, sum(votes, {1})) * scale, kept);
  if (prior.defined()) {
    c = c + prior;
    if (kept.defined()) c = where(unsqueeze(kept, 1), c, 0.0);
  }
  const Tensor s = weighted_sum(c, votes);
  return {o.squash == PoseSquash::exp ? squash_exp(s) : squash(s, o.squash_c), c};
}

SelfAttentionRouting::SelfAttentionRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("self_attention_routing"), options_(o) {
  if (o.prior) prior = learned_prior(size);
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
