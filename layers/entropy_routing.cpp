#include <capsfw/layers/entropy_routing.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "detail/agreement.hpp"
#include "detail/overflow.hpp"

namespace capsfw {
namespace {

using detail::AgreementInputs;
using detail::AgreementRule;

/// Where the temperatures that set_iterations adds stop: far beyond the last change, and far from
/// what has no reciprocal in f32.
constexpr double kColdest = 1e-30, kHottest = 1e30;

/// `dtype`: of the votes, as soon as they are known.
void check(const EntropyRoutingOptions& o, DType dtype = DType::f64) {
  if (o.alphas.empty())
    throw ValueError("entropy_routing: at least one temperature (one iteration)");
  for (double alpha : o.alphas)
    if (!(alpha > 0) || !std::isfinite(alpha) || 1 / alpha > largest_number(dtype))
      throw ValueError(fmt::format(
          "entropy_routing: temperatures must be positive and finite, and their reciprocals finite "
          "in {}; got {}",
          name_of(dtype), alpha));
}

AgreementRule rule_of(const EntropyRoutingOptions& o) {
  AgreementRule rule{.kind = AgreementRule::Kind::entropy,
                     .sums = static_cast<int>(o.alphas.size()),
                     .leaky = o.leaky,
                     .detach = o.detach};
  for (std::size_t t = 0; t < std::min(o.alphas.size(), rule.scales.size()); ++t)
    rule.scales[t] = 1.0 / o.alphas[t];
  return rule;
}

AgreementInputs inputs(const Tensor& prior, const Tensor& kept, DType dtype) {
  return {.prior = prior, .mask = kept.defined() ? to(kept, dtype) : Tensor()};
}

}  // namespace

std::vector<double> alpha_schedule(int n, double alpha0, double gamma) {
  std::vector<double> out;
  for (int t = 0; t < n; ++t) out.push_back(alpha0 * std::pow(gamma, t));
  return out;
}

Routed entropy_routing(const Tensor& votes,
                       const EntropyRoutingOptions& o,
                       const Tensor& prior,
                       const Tensor& kept,
                       const RoutingObserver& observe) {
  detail::check_votes("entropy_routing", votes, prior, kept);
  check(o, votes.dtype());
  const AgreementRule rule = rule_of(o);
  const AgreementInputs in = inputs(prior, kept, votes.dtype());
  if (observe || !detail::fits_kernels(rule, votes, in))
    return entropy_routing_reference(votes, o, prior, kept, observe);
  return detail::route_votes(rule, votes, in);
}

Routed entropy_routing_reference(const Tensor& given,
                                 const EntropyRoutingOptions& o,
                                 const Tensor& prior,
                                 const Tensor& kept,
                                 const RoutingObserver& observe) {
  detail::check_votes("entropy_routing", given, prior, kept);
  check(o, given.dtype());
  const detail::OverflowWatch watch("entropy_routing", given);
  const Tensor votes = watch.input(given);
  const auto seen = [&](const Tensor& t) { return o.detach && t.defined() ? t.detach() : t; };
  const Tensor bias = seen(prior);
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  Tensor b = bias.defined() ? broadcast_to(bias, shape) : zeros(shape, votes.dtype());
  Tensor c, sum;
  for (std::size_t t = 0; t < o.alphas.size(); ++t) {
    const bool last = t + 1 == o.alphas.size();
    c = couplings(b, kept, o.leaky);
    sum = weighted_sum(c, last ? votes : seen(votes));
    const auto pose = [&] { return sum / (unsqueeze(max(safe_norm(sum), {-1}, true), -1) + 1.0); };
    if (observe)
      observe({.iteration = static_cast<int>(t) + 1,
               .couplings = c,
               .poses = pose(),
               .objective = entropy_objective(votes, c, safe_normalize(sum), o.alphas[t])});
    if (last) return {watch.output(pose()), watch.output(c)};
    b = agreement(seen(votes), safe_normalize(sum)) / o.alphas[t];
    if (bias.defined()) b = b + bias;
  }
  return {};
}

EntropyRouting::EntropyRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("entropy_routing"), options_(o), given_(o.alphas) {
  check(o);
  if (o.prior) prior = learned_prior(size, o.detach);
}

void EntropyRouting::set_iterations(int n) {
  if (n < 1) throw ValueError(fmt::format("entropy_routing: at least 1 iteration; got {}", n));
  std::vector<double> a = given_;
  const double ratio = a.size() < 2 ? 1.0 : a.back() / a[a.size() - 2];
  const double least = std::min(kColdest, a.back()), most = std::max(kHottest, a.back());
  while (static_cast<int>(a.size()) < n) a.push_back(std::clamp(a.back() * ratio, least, most));
  a.resize(static_cast<std::size_t>(n));
  options_.alphas = a;
}

Routed EntropyRouting::forward(const Votes& v, const RoutingObserver& observe) {
  return entropy_routing(v.votes, options_, prior, v.kept, observe);
}

std::optional<Routed> EntropyRouting::forward_product(const VoteProduct& p, const Votes& v) {
  check(options_, p.u.dtype());
  const AgreementRule rule = rule_of(options_);
  const AgreementInputs in = inputs(prior, v.kept, p.u.dtype());
  if (!detail::fits_product(rule, p, in)) return std::nullopt;
  return detail::route_product(rule, p, in);
}

std::optional<Routed> EntropyRouting::forward_windows(const VoteWindows& w, const Votes& v) {
  check(options_, w.product.u.dtype());
  const AgreementRule rule = rule_of(options_);
  const AgreementInputs in = inputs(prior, v.kept, w.product.u.dtype());
  if (!detail::fits_windows(rule, w.product, in)) return std::nullopt;
  return detail::route_windows(rule, w, in);
}

void describe(OptionText& text, EntropyRoutingOptions& o) {
  text.field("alphas", o.alphas);
  text.field("detach", o.detach);
  text.field("leaky", o.leaky);
  text.field("prior", o.prior);
}

}  // namespace capsfw
