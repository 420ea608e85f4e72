// Routing of overlapping windows of children, as one op whose reference copies the windows.

#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

#include "agreement.hpp"
#include "agreement_shared.hpp"
#include "overflow.hpp"

namespace capsfw::detail {
namespace {

/// What a node knows beside its inputs: u, weight, then the prior and the mask if there are any.
struct Layout {
  AgreementRule rule;
  std::int64_t rows, step;
  bool prior, mask;

  std::size_t count() const { return 2U + (prior ? 1U : 0U) + (mask ? 1U : 0U); }
  AgreementInputs inputs(const TensorList& all) const {
    return {.prior = prior ? all[2] : Tensor(), .mask = mask ? all.back() : Tensor()};
  }
  VoteWindows windows(const TensorList& all) const { return {{all[0], all[1]}, rows, step}; }
  RoutingWindows geometry(const TensorList& all) const {
    return {.count = windows(all).count(), .step = step, .rows = rows};
  }
  ProductInputs plain(const TensorList& all) const {
    const AgreementInputs in = inputs(all);
    const auto data = [](const Tensor& x) { return x.defined() ? x.detach() : Tensor(); };
    return {data(all[0]), data(all[1]), data(in.prior),
            bias_of(rule, data(in.mask), all[0].dtype())};
  }
  TensorList reference(const TensorList& all) const {
    return route_in_plain_ops(rule, VoteProduct{copy_windows(windows(all)), all[1]}.votes(),
                              inputs(all));
  }
  TensorList vjp(const Saved& s, const TensorList& gy) const {
    TensorList all;
    std::vector<bool> needs;
    for (int k = 0; k < static_cast<int>(count()); ++k) {
      all.push_back(s.input(k).detach());
      needs.push_back(s.needs(k));
    }
    if (any(gy[1]))  // a loss rarely looks at couplings
      return replay([this](const TensorList& in) { return reference(in); }, all, gy, needs);
    const Tensor sums = s.output(2).detach();
    const ProductInputs g = shared_routing_vjp(
        plain(all), {sums, s.output(1).detach()}, sums_gradient(rule, sums, gy[0], gy[2]), rule,
        {needs[0], needs[1], prior && needs[2]}, geometry(all));
    check_gradient_overflow(rule.name(), {sums}, {g.u, g.weight, g.prior}, {all[0], all[1]}, gy);
    TensorList out(count());
    out[0] = g.u, out[1] = g.weight;
    if (prior) out[2] = g.prior;
    return out;
  }
};

}  // namespace

bool fits_windows(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in) {
  return p.weight.dim() == 3 && fits_product(rule, p, in);
}

Tensor copy_windows(const VoteWindows& w) {
  const Tensor& u = w.product.u;
  std::vector<std::int64_t> child;
  for (std::int64_t n = 0; n < w.count(); ++n)
    for (std::int64_t i = 0; i < w.rows; ++i) child.push_back(n * w.step + i);
  return reshape(index_select(u, 1, from_vector(child)),
                 {u.size(0) * w.count(), w.rows, u.size(2)});
}

Routed route_windows(const AgreementRule& rule, const VoteWindows& w, const AgreementInputs& in) {
  const Layout layout{rule, w.rows, w.step, in.prior.defined(), in.mask.defined()};
  TensorList all{w.product.u, w.product.weight};
  if (layout.prior) all.push_back(rule.detach ? in.prior.detach() : in.prior);
  if (layout.mask) all.push_back(in.mask.detach());
  const RoutingValues values = shared_routing(layout.plain(all), rule, layout.geometry(all));
  const TensorList out = record_fused(
      fmt::format("{}_windows", rule.name()), all,
      {poses_of(rule, values.sums), values.couplings, values.sums}, Save::output,
      [layout](const Saved& s, const TensorList& gy) { return layout.vjp(s, gy); },
      [layout](const TensorList& inputs) { return layout.reference(inputs); });
  return {out[0], rule.detach ? out[1].detach() : out[1]};
}

}  // namespace capsfw::detail
