// Routing of stored votes as one op.

#include <vector>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/observer.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>

#include "agreement.hpp"
#include "agreement_stored.hpp"
#include "overflow.hpp"

namespace capsfw::detail {
namespace {

/// What a node knows beside its inputs: the votes, then the prior and the mask if there are any.
struct Layout {
  AgreementRule rule;
  bool prior, mask;

  AgreementInputs inputs(const TensorList& all) const {
    return {.prior = prior ? all[1] : Tensor(), .mask = mask ? all[prior ? 2 : 1] : Tensor()};
  }
  std::size_t count() const { return 1U + (prior ? 1U : 0U) + (mask ? 1U : 0U); }

  /// Poses and couplings of the last iteration as functions of the inputs and, last, the sums of
  /// all iterations.
  TensorList last_step(const TensorList& all, bool want_couplings) const {
    const Tensor& sums = all.back();
    TensorList out{rule.poses(select(sums, 1, rule.sums - 1))};
    const AgreementInputs in = inputs(all);
    if (want_couplings) out.push_back(rule.couplings(all[0], sums, in.prior, in.mask));
    return out;
  }

  TensorList vjp(const Saved& s, const TensorList& gy) const {
    TensorList all;
    std::vector<bool> needs;
    for (int i = 0; i < static_cast<int>(count()); ++i) {
      all.push_back(s.input(i).detach());
      needs.push_back(s.needs(i));
    }
    const AgreementInputs in = inputs(all);
    all.push_back(s.output(2));
    needs.push_back(true);
    const bool couplings_too = any(gy[1]);  // a loss rarely looks at them
    const TensorList last = replay(
        [this, couplings_too](const TensorList& list) { return last_step(list, couplings_too); },
        all, couplings_too ? TensorList{gy[0], gy[1]} : TensorList{gy[0]}, needs);
    const Tensor gsums = last.back().defined() ? gy[2] + last.back() : gy[2];
    const RoutingGradients g =
        fused_routing_vjp(all[0], in.prior, bias_of(rule, in.mask, all[0].dtype()),
                          {s.output(2), s.output(1)}, gsums, rule, needs[0], prior && needs[1]);
    TensorList out(count());
    out[0] = g.votes;
    if (prior) out[1] = g.prior;
    for (std::size_t i = 0; i < out.size(); ++i)
      if (last[i].defined()) out[i] = out[i].defined() ? out[i] + last[i] : last[i];
    check_gradient_overflow(rule.name(), {s.output(2)}, out, {all[0]}, gy);
    return out;
  }
};

}  // namespace

Tensor poses_of(const AgreementRule& rule, const Tensor& sums) {
  const ObserverGuard quiet(nullptr);
  const NoGradGuard no_grad;
  return rule.poses(select(sums, 1, rule.sums - 1));
}

Tensor sums_gradient(const AgreementRule& rule,
                     const Tensor& sums,
                     const Tensor& gposes,
                     const Tensor& gsums) {
  const auto last = [&rule](const TensorList& in) {
    return TensorList{rule.poses(select(in[0], 1, rule.sums - 1))};
  };
  return gsums + replay(last, {sums}, {gposes}, {true})[0];
}

bool fits_kernels(const AgreementRule& rule, const Tensor& x, const AgreementInputs& in) {
  return rule.sums > 1 && (rule.accumulates() || rule.sums <= AgreementRule::kMostScales) &&
         is_floating(x.dtype()) && x.numel() > 0 &&
         (!in.prior.defined() || in.prior.dtype() == x.dtype());
}

/// Saves the 3 n passes over the votes of the plain ops, their logits and couplings, and all
/// temporaries of the size of the votes but the gradient. One op and not several: where a gradient
/// is recorded, all of it runs through one replay in plain ops.
Routed route_votes(const AgreementRule& rule, const Tensor& votes, const AgreementInputs& in) {
  const RoutingValues values =
      fused_routing(votes.detach(), in.prior.defined() ? in.prior.detach() : Tensor(),
                    bias_of(rule, in.mask, votes.dtype()), rule);
  if (rule.detach) {
    // The couplings are constants: what is left is one weighted sum, whose value is known.
    const Tensor s = record("weighted_sum", {values.couplings, votes},
                            contiguous_data(select(values.sums, 1, rule.sums - 1)), Save::input0,
                            [](const Saved& saved, const Tensor& gs) {
                              return TensorList{Tensor(), outer_votes(saved.input(0), gs)};
                            });
    return {rule.poses(s), values.couplings};
  }
  const Layout layout{rule, in.prior.defined(), in.mask.defined()};
  TensorList all{votes};
  if (layout.prior) all.push_back(in.prior);
  if (layout.mask) all.push_back(in.mask.detach());
  const TensorList out = record_fused(
      rule.name(), all, {poses_of(rule, values.sums), values.couplings, values.sums}, Save::output,
      [layout](const Saved& s, const TensorList& gy) { return layout.vjp(s, gy); },
      [layout](const TensorList& inputs) {
        return route_in_plain_ops(layout.rule, inputs[0], layout.inputs(inputs));
      });
  return {out[0], out[1]};
}

}  // namespace capsfw::detail
