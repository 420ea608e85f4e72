#include <cmath>

#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "em_fused.hpp"
#include "em_loop.hpp"
#include "overflow.hpp"
#include "patches.hpp"

namespace capsfw::detail {
namespace {

/// Inputs with votes [B N, I, J, D] in place of poses and weight, in plain ops.
EmInputs with_votes(const EmInputs& in) {
  if (in.votes.defined()) return in;
  const std::int64_t b = in.poses.size(0), n = in.child.size(0), i = in.child.size(1),
                     j = in.weight.size(1), d = in.poses.size(2),
                     p = std::llround(std::sqrt(static_cast<double>(d)));
  const Tensor there = ge(in.child, 0.0), child = reshape(where(there, in.child, 0), {n * i});
  const auto taken = [&](const Tensor& x, const Shape& shape, const Shape& mask) {
    return where(reshape(there, mask), reshape(index_select(x, 1, child), shape), 0.0);
  };
  const Tensor u = taken(in.poses, {b, n, i, d}, {1, n, i, 1});
  const Tensor w = in.row.defined() ? index_select(in.weight, 0, in.row) : in.weight;
  EmInputs out = in;
  out.votes = votes_matrix(reshape(u, {b * n, i, p, p}), reshape(w, {i, j, p, p}));
  if (in.offset.defined()) out.votes = out.votes + reshape(in.offset, {1, i, 1, d});
  if (in.a_in.defined()) out.a_in = reshape(taken(in.a_in, {b, n, i}, {1, n, i}), {b * n, i});
  if (!in.mask.defined()) out.mask = repeat_for_batch(there, b);
  return out;
}

TensorList reference(const TensorList& all, const EmSettings& o) {
  const EmInputs in = with_votes(EmInputs::from(all));
  EmOptions options{.variant = o.variant, .eps_var = o.eps_var, .detach = o.detach};
  options.mask = in.mask;
  const EmRouted r = run_em(in.votes, in.a_in, in.beta_a, in.beta_u, in.lambdas.to_vector<double>(),
                            options, compete_over_parents(in.votes.size(2), in.votes.dtype()));
  // Nobody sees the state: it has no gradient.
  TensorList out{r.poses, r.activations, r.variance, scalar(0)};
  if (o.assignments) out.push_back(r.assignments);
  return out;
}

/// The activation of a child whose votes may be large without a sign of it in the results.
constexpr double kHidden = 1e-12;

/// What the poses of the parents are made of.
TensorList sources(const EmInputs& in) {
  return in.votes.defined() ? TensorList{in.votes} : TensorList{in.poses, in.weight};
}

TensorList vjp(const Saved& s, const TensorList& gy, const EmSettings& o) {
  TensorList all;
  for (int k = 0; k < EmInputs::kCount; ++k) all.push_back(s.input(k).detach());
  const EmNeeds needs{s.needs(0), s.needs(1), s.needs(2), s.needs(6), s.needs(7), s.needs(8)};
  EmCotangents g{gy[0], gy[1], gy[2], {}};
  if (o.assignments && any(gy[4])) g.assignments = gy[4];  // a loss rarely looks at them
  const EmInputs in = EmInputs::from(all);
  const EmInputs gradients =
      fused_em_vjp(in, s.output(3).detach(), s.output(1).detach(), g, o, needs);
  // Large votes show in poses or variances, unless their child does not count.
  TensorList signs{s.output(0), s.output(2)};
  if (in.a_in.defined() && any(lt(in.a_in, kHidden)))
    for (const Tensor& x : sources(in)) signs.push_back(x);
  check_gradient_overflow("em_routing", signs,
                          {gradients.votes, gradients.poses, gradients.weight, gradients.a_in,
                           gradients.beta_a, gradients.beta_u},
                          sources(in), {g.poses, g.activations, g.variance, g.assignments});
  const TensorList found = gradients.list();
  TensorList out(found.size());
  for (std::size_t k = 0; k < found.size(); ++k)
    if (s.needs(static_cast<int>(k))) out[k] = found[k];
  return out;
}

}  // namespace

EmRouted record_em(const EmInputs& given, const EmSettings& settings) {
  EmInputs in = given;
  EmSettings o = settings;
  if (o.variant == EmVariant::v1) in.beta_a = in.beta_u = Tensor();
  if (o.variant == EmVariant::v1 || o.variant == EmVariant::v2 || o.variant == EmVariant::eq12)
    in.a_in = Tensor();
  if (!fits_fused_em(in)) {
    o.assignments = true;
    const TensorList r = reference(in.list(), o);
    return {r[0], r[1], r[4], r[2]};
  }
  const EmValues v = fused_em(EmInputs::from([&] {
                                TensorList plain;
                                for (const Tensor& x : in.list()) plain.push_back(x.detach());
                                return plain;
                              }()),
                              o);
  check_overflow("em_routing", {v.poses, v.activations, v.variance}, sources(in));
  // R of the first iteration is constant, and R is if it is to be.
  const bool constant = o.detach || in.lambdas.numel() == 1;
  if (constant) o.assignments = false;
  TensorList outputs{v.poses, v.activations, v.variance, v.state};
  if (o.assignments) outputs.push_back(v.assignments);
  const TensorList out = record_fused(
      "em_routing", in.list(), outputs, Save::output,
      [o](const Saved& s, const TensorList& gy) { return vjp(s, gy, o); },
      [o](const TensorList& all) { return reference(all, o); });
  return {out[0], out[1], o.assignments ? out[4] : v.assignments, out[2]};
}

}  // namespace capsfw::detail
