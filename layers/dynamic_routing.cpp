#include <capsfw/layers/dynamic_routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>
#include <capsfw/core/observer.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/routing_from.hpp"

namespace capsfw {
namespace detail {

void check_dynamic_routing(const char* who,
                           std::int64_t b,
                           std::int64_t i,
                           std::int64_t j,
                           const DynamicRoutingOptions& o,
                           const RoutingInputs& in) {
  if (o.iterations < 1)
    throw ValueError(fmt::format("{}: at least 1 iteration; got {}", who, o.iterations));
  if (!(o.squash_c > 0))
    throw ValueError(fmt::format("{}: squash_c must be positive; got {}", who, o.squash_c));
  const auto expect = [&](const Tensor& t, const Shape& shape, const char* what) {
    if (t.defined() && t.shape() != shape)
      throw ShapeError(fmt::format("{}: {} must be {} for votes [{}, {}, {}, D]; got {}", who, what,
                                   shape.str(), b, i, j, t.shape().str()));
  };
  expect(in.prior, {i, j}, "the prior");
  expect(in.mask, {b, j}, "the mask");
  expect(in.activation, {b, i}, "the activation");
}

RoutingTrace route_in_plain_ops(const Tensor& votes,
                                const DynamicRoutingOptions& o,
                                const RoutingInputs& in,
                                const RoutingObserver& observe) {
  // Detached: whatever feeds the couplings of the last iteration is a constant.
  const auto route = [&](const Tensor& t) { return o.detach && t.defined() ? t.detach() : t; };
  const Tensor seen = route(votes), activation = route(in.activation);
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  Tensor b =
      in.prior.defined() ? broadcast_to(route(in.prior), shape) : zeros(shape, votes.dtype());
  RoutingTrace out;
  for (int t = 1; t <= o.iterations; ++t) {
    const bool last = t == o.iterations;
    out.couplings = couplings(b, in.mask, o.leaky);
    if (in.activation.defined())
      out.couplings = out.couplings * unsqueeze(last ? in.activation : activation, -1);
    out.sums.push_back(weighted_sum(out.couplings, last ? votes : seen));
    const Tensor& s = out.sums.back();
    if (observe)
      observe({.iteration = t,
               .couplings = out.couplings,
               .poses = squash(s, o.squash_c),
               .objective = -routing_potential(s, o.squash_c)});
    if (last) break;
    b = b + (o.agreement == Agreement::cosine ? agreement(safe_normalize(seen), safe_normalize(s))
                                              : agreement(seen, squash(s, o.squash_c)));
  }
  return out;
}

Tensor bias_of(const Tensor& mask, DType dtype) {
  if (!mask.defined()) return {};
  const Tensor kept = ne(mask, 0.0);
  if (any(eq(sum(to(kept, DType::f32), {-1}), 0.0)))
    throw ValueError("dynamic_routing: the mask keeps no upper capsule of some sample");
  return where(kept, zeros(kept.shape(), dtype), -INFINITY);
}

}  // namespace detail

namespace {

using detail::bias_of;
using detail::route_in_plain_ops;
using detail::RoutingTrace;

void check(const Tensor& votes, const DynamicRoutingOptions& o, const RoutingInputs& in) {
  detail::check_votes("dynamic_routing", votes);
  detail::check_dynamic_routing("dynamic_routing", votes.size(0), votes.size(1), votes.size(2), o,
                                in);
}

/// The inputs of a fused routing as its node stores them: votes, then the prior and the mask if
/// there are any.
struct Inputs {
  bool prior, mask;

  TensorList list(const Tensor& votes, const RoutingInputs& in) const {
    TensorList all{votes};
    if (prior) all.push_back(in.prior);
    if (mask) all.push_back(in.mask.detach());
    return all;
  }
  RoutingInputs from(const TensorList& all) const {
    return {.prior = prior ? all[1] : Tensor(),
            .mask = mask ? all[prior ? 2 : 1] : Tensor(),
            .activation = {}};
  }
  std::size_t count() const { return 1U + (prior ? 1U : 0U) + (mask ? 1U : 0U); }
};

/// Poses and couplings of the last iteration as functions of the votes, the prior, the mask and,
/// last, the sums of all iterations.
struct LastStep {
  DynamicRoutingOptions o;
  Inputs layout;
  bool want_couplings;

  TensorList operator()(const TensorList& all) const {
    const Tensor& sums = all.back();
    TensorList out{squash(select(sums, 1, o.iterations - 1), o.squash_c)};
    if (!want_couplings) return out;
    const RoutingInputs given = layout.from(all);
    Tensor b =
        agreement(all[0], sum(squash(narrow(sums, 1, 0, o.iterations - 1), o.squash_c), {1}));
    if (given.prior.defined()) b = b + given.prior;
    out.push_back(couplings(b, given.mask, o.leaky));
    return out;
  }
};

/// Poses [B, J, D], couplings of the last iteration, and the sums of all [B, r, J, D] (for the
/// kernel of the gradient) as one op. Saves the 3 r passes over the votes of the plain ops, their
/// logits and couplings, and all temporaries of the size of the votes but the gradient. One op and
/// not several: where a gradient is recorded, all of it runs through one replay in plain ops.
TensorList record_routing(const Tensor& votes,
                          const DynamicRoutingOptions& o,
                          const RoutingInputs& in,
                          const detail::RoutingValues& values) {
  const Inputs layout{in.prior.defined(), in.mask.defined()};
  const auto kernel = [o, layout](const Saved& s, const TensorList& gy) {
    TensorList all;
    std::vector<bool> needs;
    for (int i = 0; i < static_cast<int>(layout.count()); ++i) {
      all.push_back(s.input(i).detach());
      needs.push_back(s.needs(i));
    }
    const RoutingInputs given = layout.from(all);
    all.push_back(s.output(2));
    needs.push_back(true);
    const bool couplings_too = any(gy[1]);  // a loss rarely looks at them
    const TensorList last =
        replay(LastStep{o, layout, couplings_too}, all,
               couplings_too ? TensorList{gy[0], gy[1]} : TensorList{gy[0]}, needs);
    const detail::RoutingGradients g = detail::fused_routing_vjp(
        all[0], given.prior, bias_of(given.mask, all[0].dtype()), {s.output(2), s.output(1)},
        last.back(), o, s.needs(0), layout.prior && s.needs(1));
    TensorList out(layout.count());
    out[0] = g.votes;
    if (layout.prior) out[1] = g.prior;
    for (std::size_t i = 0; i < out.size(); ++i)
      if (last[i].defined()) out[i] = out[i] + last[i];
    return out;
  };
  const auto reference = [o, layout](const TensorList& all) -> TensorList {
    const RoutingTrace t = route_in_plain_ops(all[0], o, layout.from(all));
    return {squash(t.sums.back(), o.squash_c), t.couplings, stack(t.sums, 1)};
  };
  TensorList out = {Tensor(), values.couplings, values.sums};
  {
    const ObserverGuard quiet(nullptr);
    out[0] = squash(select(values.sums, 1, o.iterations - 1), o.squash_c);
  }
  return record_fused("dynamic_routing", layout.list(votes, in), out, Save::output, kernel,
                      reference);
}

Routed route_fused(const Tensor& votes, const DynamicRoutingOptions& o, const RoutingInputs& in) {
  const detail::RoutingValues values =
      detail::fused_routing(votes.detach(), in.prior.defined() ? in.prior.detach() : Tensor(),
                            bias_of(in.mask, votes.dtype()), o);
  if (o.detach) {
    // The couplings are constants: what is left is one weighted sum, whose value is known.
    const Tensor s = record("weighted_sum", {values.couplings, votes},
                            contiguous_data(select(values.sums, 1, o.iterations - 1)), Save::input0,
                            [](const Saved& saved, const Tensor& gs) {
                              return TensorList{Tensor(), outer_votes(saved.input(0), gs)};
                            });
    return {squash(s, o.squash_c), values.couplings};
  }
  const TensorList out = record_routing(votes, o, in, values);
  return {out[0], out[1]};
}

}  // namespace

Routed dynamic_routing_reference(const Tensor& votes,
                                 const DynamicRoutingOptions& o,
                                 const RoutingInputs& in,
                                 const RoutingObserver& observe) {
  check(votes, o, in);
  const RoutingTrace t = route_in_plain_ops(votes, o, in, observe);
  return {squash(t.sums.back(), o.squash_c), t.couplings};
}

Routed dynamic_routing(const Tensor& votes,
                       const DynamicRoutingOptions& o,
                       const RoutingInputs& in) {
  check(votes, o, in);
  if (!detail::fits_fused_routing(votes, o, in)) return dynamic_routing_reference(votes, o, in);
  return route_fused(votes, o, in);
}

Tensor routing_potential(const Tensor& sums, double squash_c) {
  const double root = std::sqrt(squash_c);
  const Tensor n = safe_norm(sums);
  return sum(n - root * atan(n / root), {-1});
}

DynamicRouting::DynamicRouting(const RoutingSize& size, const Options& o, Rng&)
    : Routing("dynamic_routing"), options_(o) {
  if (o.prior && size.children < 1)
    throw ValueError(
        "dynamic_routing: a learned prior needs a fixed number of children; got any number");
  if (o.prior) prior = param("prior", zeros({size.children, size.parents}));
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
  // Votes by shared weights are one product, which is cheaper than to make them in every pass as
  // long as they stay in a cache.
  constexpr std::int64_t kCached = 1 << 22;
  if (p.weight.dim() == 3 &&
      p.u.size(0) * p.u.size(1) * p.weight.size(0) * p.weight.size(1) <= kCached)
    return std::nullopt;
  const RoutingInputs in = inputs(v, p.u.dtype());
  if (!detail::fits_routing_from(p.u, p.weight, options_, in)) return std::nullopt;
  return dynamic_routing_from(p.u, p.weight, options_, in);
}

std::optional<Routed> DynamicRouting::forward_windows(const VoteWindows& w, const Votes& v) {
  const RoutingInputs in = inputs(v, w.product.u.dtype());
  if (options_.activation || !detail::fits_window_routing(w.product.u, options_, in))
    return std::nullopt;
  return dynamic_routing_windows(w.product.votes(), w.rows, w.step, options_, in);
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
