#include <capsfw/layers/baseline_routings.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>

#include "detail/overflow.hpp"

namespace capsfw {
namespace {

/// The squashed sum, reported to the observer as the only iteration.
Routed sum_once(const Votes& v, const Tensor& c, double squash_c, const RoutingObserver& observe) {
  const Routed out{squash(weighted_sum(c, v.votes), squash_c), c};
  if (observe) observe({.iteration = 1, .couplings = c, .poses = out.poses});
  return out;
}

}  // namespace

UniformRouting::UniformRouting(const RoutingSize&, const Options& o, Rng&)
    : Routing("uniform_routing"), options_(o) {}

Routed UniformRouting::forward(const Votes& v, const RoutingObserver& observe) {
  return sum_once(v, detail::uniform_couplings(v.votes, v.kept), options_.squash_c, observe);
}

RandomRouting::RandomRouting(const RoutingSize&, const Options& o, Rng&)
    : Routing("random_routing"), options_(o) {
  if (!(o.std >= 0 && std::isfinite(o.std)))
    throw ValueError(fmt::format("random_routing: std must be at least 0; got {}", o.std));
}

Routed RandomRouting::forward(const Votes& v, const RoutingObserver& observe) {
  Rng rng(options_.seed);
  const std::int64_t b = v.votes.size(0), i = v.votes.size(1), j = v.votes.size(2);
  const Tensor logits = rng.normal({i, j}, 0, options_.std, v.votes.dtype());
  return sum_once(v, couplings(broadcast_to(logits, {b, i, j}), v.kept), options_.squash_c,
                  observe);
}

LongestVoteRouting::LongestVoteRouting(const RoutingSize&, const Options& o, Rng&)
    : Routing("longest_vote_routing"), options_(o) {}

Routed LongestVoteRouting::forward(const Votes& v, const RoutingObserver& observe) {
  const Tensor longest = argmax(safe_norm(v.votes.detach(), {-1}), 1);  // [B, J]
  const Tensor c = transpose(one_hot(longest, v.votes.size(1), v.votes.dtype()));
  return sum_once(v, c, options_.squash_c, observe);
}

PoolRouting::PoolRouting(const RoutingSize&, const Options& o, Rng&)
    : Routing("pool_routing"), options_(o) {
  if (!(o.squash_c > 0))
    throw ValueError(fmt::format("pool_routing: squash_c must be positive; got {}", o.squash_c));
  PoolRouting::set_iterations(o.iterations);
}

void PoolRouting::set_iterations(int n) {
  if (n < 1) throw ValueError(fmt::format("pool_routing: at least 1 iteration; got {}", n));
  options_.iterations = n;
}

Routed PoolRouting::forward(const Votes& v, const RoutingObserver& observe) {
  const detail::OverflowWatch watch(kind(), v.votes);
  const Tensor votes = watch.input(v.votes);
  Tensor b = zeros({votes.size(0), votes.size(1), votes.size(2)}, votes.dtype()), c, sum;
  for (int t = 1; t <= options_.iterations; ++t) {
    c = softmax(v.exists.defined() ? where(unsqueeze(v.exists, -1), b, -INFINITY) : b, 1);
    // A sample none of whose children exist has no maximum to subtract.
    if (v.exists.defined()) c = where(unsqueeze(v.exists, -1), c, 0.0);
    sum = weighted_sum(c, votes);
    if (observe) observe({.iteration = t, .couplings = c, .poses = sum});
    if (t < options_.iterations) b = b + agreement(votes, squash(sum, options_.squash_c));
  }
  return {watch.output(sum), watch.output(c)};
}

void describe(OptionText& text, UniformRoutingOptions& o) { text.field("squash_c", o.squash_c); }

void describe(OptionText& text, RandomRoutingOptions& o) {
  text.field("std", o.std);
  text.field("seed", o.seed);
  text.field("squash_c", o.squash_c);
}

void describe(OptionText& text, LongestVoteRoutingOptions& o) {
  text.field("squash_c", o.squash_c);
}

void describe(OptionText& text, PoolRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("squash_c", o.squash_c);
}

}  // namespace capsfw
