#include "agreement_rule.hpp"

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "overflow.hpp"

namespace capsfw::detail {
namespace {

/// V after iteration t, given V before it (undefined at first) and the sums S.
Tensor next(const AgreementRule& rule, int t, const Tensor& v, const Tensor& s) {
  if (!rule.accumulates()) return safe_normalize(s) * rule.scale(t);
  const Tensor out = squash(s, rule.squash_c);
  return v.defined() ? v + out : out;
}

}  // namespace

const char* AgreementRule::name() const {
  switch (kind) {
    case Kind::dynamic:
      return "dynamic_routing";
    case Kind::kmeans:
      return "kmeans_routing";
    case Kind::entropy:
      break;
  }
  return "entropy_routing";
}

Tensor AgreementRule::poses(const Tensor& s) const {
  if (kind != Kind::entropy) return squash(s, squash_c);
  return s / (unsqueeze(max(safe_norm(s), {-1}, true), -1) + 1.0);
}

Tensor AgreementRule::centres(const Tensor& all) const {
  if (accumulates()) return sum(squash(narrow(all, 1, 0, sums - 1), squash_c), {1});
  return next(*this, sums - 2, {}, select(all, 1, sums - 2));
}

Tensor AgreementRule::couplings(const Tensor& votes,
                                const Tensor& all,
                                const Tensor& prior,
                                const Tensor& mask) const {
  Tensor b = agreement(votes, centres(all));
  if (prior.defined()) b = b + prior;
  return capsfw::couplings(b, mask, leaky);
}

TensorList route_in_plain_ops(const AgreementRule& rule,
                              const Tensor& given,
                              const AgreementInputs& in) {
  const OverflowWatch watch(rule.name(), given);
  const Tensor votes = watch.input(given);
  // Detached: whatever feeds the couplings of the last iteration is a constant.
  const auto route = [&](const Tensor& x) { return rule.detach && x.defined() ? x.detach() : x; };
  const Tensor seen = route(votes), prior = route(in.prior);
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  Tensor b = prior.defined() ? broadcast_to(prior, shape) : zeros(shape, votes.dtype());
  Tensor c, v;
  TensorList sums;
  for (int t = 0; t < rule.sums; ++t) {
    c = t == 0 && rule.kind == AgreementRule::Kind::kmeans ? uniform_couplings(votes, in.mask)
                                                           : couplings(b, in.mask, rule.leaky);
    const bool last = t + 1 == rule.sums;
    sums.push_back(weighted_sum(c, last ? votes : seen));
    if (last) break;
    v = next(rule, t, v, sums.back());
    b = agreement(seen, v);
    if (prior.defined()) b = b + prior;
  }
  return {watch.output(rule.poses(sums.back())), watch.output(c), watch.output(stack(sums, 1))};
}

Tensor bias_of(const AgreementRule& rule, const Tensor& mask, DType dtype) {
  if (!mask.defined()) return {};
  const Tensor kept = kept_of(mask, rule.name());
  return where(kept, zeros(kept.shape(), dtype), -INFINITY);
}

}  // namespace capsfw::detail
