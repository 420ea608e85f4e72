#include <capsfw/layers/routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>

namespace capsfw {
namespace {

void check(const Tensor& votes, const RoutingOptions& o, const RoutingInputs& in) {
  if (votes.dim() != 4)
    throw ShapeError(
        fmt::format("dynamic_routing: votes must be [B, I, J, D]; got {}", votes.shape().str()));
  if (o.iterations < 1)
    throw ValueError(fmt::format("dynamic_routing: at least 1 iteration; got {}", o.iterations));
  const std::int64_t b = votes.size(0), i = votes.size(1), j = votes.size(2);
  const auto expect = [&](const Tensor& t, const Shape& shape, const char* what) {
    if (t.defined() && t.shape() != shape)
      throw ShapeError(fmt::format("dynamic_routing: {} must be {} for votes {}; got {}", what,
                                   shape.str(), votes.shape().str(), t.shape().str()));
  };
  expect(in.prior, {i, j}, "the prior");
  expect(in.mask, {b, j}, "the mask");
  expect(in.activation, {b, i}, "the activation");
}

}  // namespace

Tensor couplings(const Tensor& logits, const Tensor& mask, bool leaky) {
  Tensor b = logits;
  if (mask.defined()) {
    const Tensor kept = ne(mask, 0.0);
    if (any(eq(sum(kept, {-1}), 0.0)))
      throw ValueError("couplings: the mask keeps no upper capsule of some sample");
    b = where(unsqueeze(kept, 1), b, -INFINITY);
  }
  if (!leaky) return softmax(b, -1);
  Shape one = b.shape();
  one[one.rank() - 1] = 1;
  return slice(softmax(cat({zeros(one, b.dtype()), b}, -1), -1), -1, 1, b.size(-1) + 1);
}

Routed dynamic_routing_reference(const Tensor& votes,
                                 const RoutingOptions& o,
                                 const RoutingInputs& in) {
  check(votes, o, in);
  // Detached: whatever feeds the couplings of the last iteration is a constant.
  const auto route = [&](const Tensor& t) { return o.detach && t.defined() ? t.detach() : t; };
  const Tensor seen = route(votes), activation = route(in.activation);
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  Tensor b =
      in.prior.defined() ? broadcast_to(route(in.prior), shape) : zeros(shape, votes.dtype());
  Routed out;
  for (int t = 1; t <= o.iterations; ++t) {
    const bool last = t == o.iterations;
    out.couplings = couplings(b, in.mask, o.leaky);
    if (in.activation.defined())
      out.couplings = out.couplings * unsqueeze(last ? in.activation : activation, -1);
    out.poses = squash(weighted_sum(out.couplings, last ? votes : seen), o.squash_c);
    if (!last) b = b + agreement(seen, out.poses);
  }
  return out;
}

Routed dynamic_routing(const Tensor& votes,
                       const RoutingOptions& options,
                       const RoutingInputs& inputs) {
  return dynamic_routing_reference(votes, options, inputs);
}

std::vector<double> lambda_schedule(int n, double final_lambda, double base) {
  std::vector<double> out;
  for (int t = 1; t <= n; ++t) out.push_back(final_lambda * (1 - std::pow(base, t)));
  return out;
}

std::vector<double> alpha_schedule(int n, double alpha0, double gamma) {
  std::vector<double> out;
  for (int t = 0; t < n; ++t) out.push_back(alpha0 * std::pow(gamma, t));
  return out;
}

}  // namespace capsfw
