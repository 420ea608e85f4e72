#include <capsfw/layers/self_routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {

Routed self_routing(const Tensor& votes,
                    const Tensor& poses,
                    const Tensor& activations,
                    const Tensor& weight,
                    const Tensor& bias,
                    const Tensor& kept) {
  detail::check_votes("self_routing", votes, {}, kept);
  const std::int64_t b = votes.size(0), i = votes.size(1), j = votes.size(2);
  const bool fits = poses.dim() == 3 && weight.dim() == 3 && activations.shape() == Shape{b, i} &&
                    poses.shape() == Shape{b, i, weight.size(2)} && weight.size(0) == i &&
                    weight.size(1) == j && bias.shape() == Shape{i, j};
  if (!fits)
    throw ShapeError(fmt::format(
        "self_routing: votes [B, I, J, D] take poses [B, I, E], activations [B, I], weight [I, J, "
        "E] and bias [I, J]; got {}, {}, {}, {} and {}",
        votes.shape().str(), poses.shape().str(), activations.shape().str(), weight.shape().str(),
        bias.shape().str()));
  Tensor logits = einsum("bie,ije->bij", poses, weight) + bias;
  if (kept.defined()) logits = where(unsqueeze(kept, 1), logits, -INFINITY);
  const Tensor log_c = log_softmax(logits, -1);
  // a / Σ a is a mean over the children with all weights 1.
  const Tensor share = log_normalize_weights(zeros({b, i, 1}, votes.dtype()), activations);
  const Tensor c = exp(log_c);
  return {weighted_sum(log_normalize_weights(log_c, activations), votes), c, sum(c * share, {1})};
}

SelfRouting::SelfRouting(const RoutingSize& size, const Options&, Rng& rng)
    : Routing("self_routing") {
  if (size.children < 1 || size.child_dim < 1)
    throw ValueError(
        fmt::format("self_routing: each child has weights for its pose: needs a fixed number of "
                    "children of a known size; got {} of {}",
                    size.children, size.child_dim));
  weight = param("weight", init::normal({size.children, size.parents, size.child_dim},
                                        1 / std::sqrt(static_cast<double>(size.child_dim)), rng));
  bias = param("bias", zeros({size.children, size.parents}));
}

Routed SelfRouting::forward(const Votes& v, const RoutingObserver& observe) {
  if (!v.poses.defined())
    throw ValueError("self_routing: routes by the poses of the children; got none");
  const Tensor u = v.exists.defined() ? where(unsqueeze(v.exists, -1), v.poses, 0.0) : v.poses;
  const Routed out = self_routing(v.votes, u, detail::activations_below(v), weight, bias, v.kept);
  if (observe)
    observe({.iteration = 1,
             .couplings = out.couplings,
             .poses = out.poses,
             .activations = out.activations});
  return out;
}

void describe(OptionText&, SelfRoutingOptions&) {}

}  // namespace capsfw
