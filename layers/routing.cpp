#include <capsfw/layers/routing.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/overflow.hpp"
#include "detail/require_shape.hpp"

namespace capsfw {
namespace {

using detail::require_shape;

void check(const std::string& who, const Votes& v, const Shape& votes) {
  const std::int64_t b = votes[0], i = votes[1], j = votes[2];
  require_shape(who, v.activations, {b, i}, "the activations", votes);
  require_shape(who, v.exists, {b, i}, "'exists'", votes);
  require_shape(who, v.kept, {b, j}, "'kept'", votes);
  if (v.poses.defined() && (v.poses.dim() != 3 || v.poses.size(0) != b || v.poses.size(1) != i))
    throw ShapeError(fmt::format("{}: the poses must be [{}, {}, E] for votes {}; got {}", who, b,
                                 i, votes.str(), v.poses.shape().str()));
  for (const Tensor& t : {v.exists, v.kept})
    if (t.defined() && t.dtype() != DType::b8)
      throw DTypeError(
          fmt::format("{}: 'exists' and 'kept' must be b8; got {}", who, name_of(t.dtype())));
}

/// 0 for what takes no part, whatever it was.
Tensor only(const Tensor& x, const Tensor& mask) { return where(mask, x, 0.0); }

void clear(const Votes& v, Tensor& poses, Tensor& couplings, Tensor& activations) {
  if (v.exists.defined()) couplings = only(couplings, unsqueeze(v.exists, -1));
  if (!v.kept.defined()) return;
  couplings = only(couplings, unsqueeze(v.kept, 1));
  poses = only(poses, unsqueeze(v.kept, -1));
  if (activations.defined()) activations = only(activations, v.kept);
}

}  // namespace

namespace detail {

Tensor kept_of(const Tensor& mask, std::string_view who) {
  const Tensor kept = mask.dtype() == DType::b8 ? mask : ne(mask, 0.0);
  if (any(eq(sum(to(kept, DType::f32), {-1}), 0.0)))
    throw ValueError(fmt::format("{}: the mask keeps no upper capsule of some sample", who));
  return kept;
}

void check_votes(const char* who, const Tensor& votes, const Tensor& prior, const Tensor& kept) {
  if (!votes.defined() || votes.dim() != 4)
    throw ShapeError(fmt::format("{}: votes must be [B, I, J, D]; got {}", who,
                                 votes.defined() ? votes.shape().str() : "none"));
  const Shape& shape = votes.shape();
  require_shape(who, prior, {shape[1], shape[2]}, "the prior", shape);
  check(who, {.votes = votes, .kept = kept}, shape);
  if (kept.defined()) kept_of(kept, who);
}

void check_product(const std::string& who, const VoteProduct& p) {
  const int w = p.weight.dim();
  if (p.u.dim() != 3 || w < 3 || w > 4 || p.u.size(2) != p.weight.size(-1) ||
      (w == 4 && p.u.size(1) != p.weight.size(0)))
    throw ShapeError(
        fmt::format("{}: takes u [B, I, E] and weight [I, J, D, E] or [J, D, E]; got {} and {}",
                    who, p.u.shape().str(), p.weight.shape().str()));
}

void check_windows(const std::string& who, const VoteWindows& w) {
  const Tensor &u = w.product.u, &weight = w.product.weight;
  if (u.dim() != 3 || weight.dim() != 3 || u.size(2) != weight.size(2))
    throw ShapeError(fmt::format("{}: takes u [B, R, E] and weight [J, D, E]; got {} and {}", who,
                                 u.shape().str(), weight.shape().str()));
  if (w.rows < 1 || w.step < 1 || w.rows > u.size(1))
    throw ShapeError(fmt::format("{}: windows of {} children, {} apart, do not fit u {}", who,
                                 w.rows, w.step, u.shape().str()));
}

Tensor uniform_couplings(const Tensor& votes, const Tensor& kept) {
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  if (!kept.defined())
    return full(shape, 1.0 / static_cast<double>(std::max<std::int64_t>(shape[2], 1)),
                votes.dtype());
  const Tensor share = to(kept_of(kept, "couplings"), votes.dtype());
  return broadcast_to(unsqueeze(share / sum(share, {-1}, true), 1), shape);
}

Tensor activations_below(const Votes& v) {
  const Tensor a = v.activations.defined() ? v.activations
                   : v.poses.defined()     ? safe_norm(v.poses, {-1})
                                       : ones({v.votes.size(0), v.votes.size(1)}, v.votes.dtype());
  return v.exists.defined() ? only(a, v.exists) : a;
}

}  // namespace detail

Tensor Routing::learned_prior(const RoutingSize& size, bool constant) {
  if (size.children < 1)
    throw ValueError(fmt::format(
        "{}: a learned prior needs a fixed number of children; got any number. Hint: prior=false",
        kind_));
  if (constant)
    throw ValueError(fmt::format(
        "{}: no gradient reaches a learned prior through couplings that are constants. Hint: "
        "prior=false, or neither detach nor hard couplings",
        kind_));
  return param("prior", zeros({size.children, size.parents}));
}

void Routing::set_iterations(int n) {
  if (n == iterations()) return;
  throw ValueError(
      fmt::format("{}: its number of iterations is {}; got {}", kind_, iterations(), n));
}

Routed Routing::operator()(const Votes& given, const RoutingObserver& observe) {
  detail::check_votes(kind_.c_str(), given.votes);
  check(kind_, given, given.votes.shape());
  const Scope scope(name().empty() ? kind_ : name());
  Votes v = given;
  if (v.kept.defined()) detail::kept_of(v.kept, kind_);
  if (v.exists.defined()) v.votes = only(v.votes, unsqueeze(unsqueeze(v.exists, -1), -1));
  RoutingObserver watch;
  std::optional<Scope> iteration;  // names it in graphs and messages
  if (observe) {
    iteration.emplace("iteration 1");
    watch = [&](const RoutingStep& raw) {
      RoutingStep step = raw;
      clear(v, step.poses, step.couplings, step.activations);
      step.entropy = coupling_entropy(step.couplings, v.exists);
      observe(step);
      iteration.reset();
      if (raw.iteration < iterations())
        iteration.emplace(fmt::format("iteration {}", raw.iteration + 1));
    };
  }
  Routed out = forward(v, watch);
  detail::check_overflow(kind_, {out.poses, out.activations}, {v.votes, v.poses});
  clear(v, out.poses, out.couplings, out.activations);
  return out;
}

std::optional<Routed> Routing::route_product(const VoteProduct& given, const Votes& rest) {
  detail::check_product(kind_, given);
  const Shape& w = given.weight.shape();
  check(kind_, rest, {given.u.size(0), given.u.size(1), w[w.rank() - 3], w[w.rank() - 2]});
  const Scope scope(name().empty() ? kind_ : name());
  if (rest.kept.defined()) detail::kept_of(rest.kept, kind_);
  VoteProduct p = given;
  if (rest.exists.defined()) p.u = only(p.u, unsqueeze(rest.exists, -1));
  std::optional<Routed> out = forward_product(p, rest);
  if (out) detail::check_overflow(kind_, {out->poses, out->activations}, {p.u, p.weight});
  if (out) clear(rest, out->poses, out->couplings, out->activations);
  return out;
}

std::optional<Routed> Routing::route_windows(const VoteWindows& w, const Votes& rest) {
  detail::check_windows(kind_, w);
  const Tensor& weight = w.product.weight;
  const std::int64_t b = w.product.u.size(0) * w.count();
  check(kind_, rest, {b, w.rows, weight.size(-3), weight.size(-2)});
  const Scope scope(name().empty() ? kind_ : name());
  if (rest.kept.defined()) detail::kept_of(rest.kept, kind_);
  if (rest.exists.defined()) return std::nullopt;  // a child exists or not, in all of its windows
  std::optional<Routed> out = forward_windows(w, rest);
  if (out) detail::check_overflow(kind_, {out->poses, out->activations}, {w.product.u, weight});
  if (out) clear(rest, out->poses, out->couplings, out->activations);
  return out;
}

Tensor VoteProduct::votes() const {
  return weight.dim() == 3 ? votes_shared(u, weight) : votes_full(u, weight);
}

Tensor activations_of(const Routed& routed) {
  return routed.activations.defined() ? routed.activations : safe_norm(routed.poses, {-1});
}

Tensor couplings(const Tensor& logits, const Tensor& kept, bool leaky) {
  Tensor b = logits;
  if (kept.defined()) b = where(unsqueeze(detail::kept_of(kept, "couplings"), 1), b, -INFINITY);
  if (!leaky) return softmax(b, -1);
  Shape one = b.shape();
  one[one.rank() - 1] = 1;
  return slice(softmax(cat({zeros(one, b.dtype()), b}, -1), -1), -1, 1, b.size(-1) + 1);
}

Tensor coupling_entropy(const Tensor& c, const Tensor& exists) {
  const Tensor each = sum(c * log(where(gt(c, 0.0), c, 1.0)), {-1});  // [B, I]
  if (!exists.defined()) return -mean(each, {-1});
  const Tensor there = to(exists, c.dtype());
  return -sum(each * there, {-1}) / maximum(sum(there, {-1}), ones({c.size(0)}, c.dtype()));
}

}  // namespace capsfw
