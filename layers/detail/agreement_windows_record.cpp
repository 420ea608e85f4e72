// Routing of overlapping windows of votes, as one op whose reference copies the windows.

#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

#include "agreement.hpp"
#include "agreement_stored.hpp"
#include "overflow.hpp"

namespace capsfw::detail {
namespace {

/// What a node knows beside its inputs, the votes and, if there is one, the mask.
struct Layout {
  AgreementRule rule;
  std::int64_t rows, step;
  bool mask;

  RoutingWindows geometry(const Tensor& votes) const {
    return {.count = (votes.size(1) - rows) / step + 1, .step = step, .rows = rows};
  }
  TensorList reference(const TensorList& in) const {
    return route_in_plain_ops(rule, copy_windows(in[0], rows, step),
                              {.prior = {}, .mask = mask ? in[1] : Tensor()});
  }
  TensorList vjp(const Saved& s, const TensorList& gy) const {
    TensorList all{s.input(0).detach()}, out(mask ? 2 : 1);
    if (mask) all.push_back(s.input(1).detach());
    if (any(gy[1]))  // a loss rarely looks at couplings
      return replay([this](const TensorList& in) { return reference(in); }, all, gy, {true, false});
    const Tensor sums = s.output(2).detach();
    out[0] = fused_routing_vjp(all[0], {}, mask ? bias_of(rule, all[1], sums.dtype()) : Tensor(),
                               {sums, s.output(1)}, sums_gradient(rule, sums, gy[0], gy[2]), rule,
                               true, false, geometry(all[0]))
                 .votes;
    check_gradient_overflow(rule.name(), {sums}, out, {all[0]}, gy);
    return out;
  }
};

}  // namespace

bool fits_windows(const AgreementRule& rule, const Tensor& x, const AgreementInputs& in) {
  return fits_kernels(rule, x, in) && !rule.detach && !in.prior.defined();
}

Tensor copy_windows(const Tensor& votes, std::int64_t rows, std::int64_t step) {
  const std::int64_t count = (votes.size(1) - rows) / step + 1;
  std::vector<std::int64_t> child;
  for (std::int64_t n = 0; n < count; ++n)
    for (std::int64_t i = 0; i < rows; ++i) child.push_back(n * step + i);
  return reshape(index_select(votes, 1, from_vector(child)),
                 {votes.size(0) * count, rows, votes.size(2), votes.size(3)});
}

Routed route_windows(const AgreementRule& rule,
                     const Tensor& votes,
                     std::int64_t rows,
                     std::int64_t step,
                     const AgreementInputs& in) {
  const Layout layout{rule, rows, step, in.mask.defined()};
  TensorList all{votes};
  if (layout.mask) all.push_back(in.mask.detach());
  const RoutingValues values = fused_routing(
      votes.detach(), {}, bias_of(rule, in.mask, votes.dtype()), rule, layout.geometry(votes));
  const TensorList out = record_fused(
      fmt::format("{}_windows", rule.name()), all,
      {poses_of(rule, values.sums), values.couplings, values.sums}, Save::output,
      [layout](const Saved& s, const TensorList& gy) { return layout.vjp(s, gy); },
      [layout](const TensorList& inputs) { return layout.reference(inputs); });
  return {out[0], out[1]};
}

}  // namespace capsfw::detail
