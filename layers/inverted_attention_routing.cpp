#include <capsfw/layers/inverted_attention_routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/overflow.hpp"

namespace capsfw {
namespace {

void check_iterations(int n) {
  if (n < 1)
    throw ValueError(fmt::format("inverted_attention_routing: at least 1 iteration; got {}", n));
}

}  // namespace

Routed inverted_attention_routing(const Tensor& given,
                                  const InvertedAttentionRoutingOptions& o,
                                  const Tensor& gamma,
                                  const Tensor& beta,
                                  const Tensor& kept,
                                  const RoutingObserver& observe) {
  detail::check_votes("inverted_attention_routing", given, {}, kept);
  check_iterations(o.iterations);
  const detail::OverflowWatch watch("inverted_attention_routing", given);
  const Tensor votes = watch.input(given);
  Tensor c = detail::uniform_couplings(votes, kept), p;
  for (int t = 1; t <= o.iterations; ++t) {
    if (t > 1) c = couplings(agreement(votes, p), kept);
    p = layer_norm(weighted_sum(c, votes), 1, gamma, beta, o.eps);
    if (observe) observe({.iteration = t, .couplings = c, .poses = p});
  }
  return {watch.output(p), watch.output(c)};
}

InvertedAttentionRouting::InvertedAttentionRouting(const RoutingSize& size,
                                                   const Options& o,
                                                   Rng& rng)
    : Routing("inverted_attention_routing"), options_(o) {
  check_iterations(o.iterations);
  const std::int64_t d = size.dim;
  gamma = param("gamma", ones({d}));
  beta = param("beta", zeros({d}));
  score_weight =
      param("score_weight", init::normal({d}, 1 / std::sqrt(static_cast<double>(d)), rng));
  score_bias = param("score_bias", zeros({1}));
}

void InvertedAttentionRouting::set_iterations(int n) {
  check_iterations(n);
  options_.iterations = n;
}

Tensor InvertedAttentionRouting::activations(const Tensor& poses) const {
  return sigmoid(sum(poses * score_weight, {-1}) + score_bias);
}

Routed InvertedAttentionRouting::forward(const Votes& v, const RoutingObserver& observe) {
  RoutingObserver scored;
  if (observe)
    scored = [&](const RoutingStep& raw) {
      RoutingStep step = raw;
      step.activations = activations(step.poses);
      observe(step);
    };
  Routed out = inverted_attention_routing(v.votes, options_, gamma, beta, v.kept, scored);
  out.activations = activations(out.poses);
  return out;
}

void describe(OptionText& text, InvertedAttentionRoutingOptions& o) {
  text.field("iterations", o.iterations);
  text.field("eps", o.eps);
}

}  // namespace capsfw
