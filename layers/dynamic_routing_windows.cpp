// Dynamic routing of overlapping windows of votes, as one op.

#include <vector>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>
#include <capsfw/core/observer.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "detail/routing_fused.hpp"

namespace capsfw {
namespace {

/// What a node knows beside its inputs, the votes and, if there is one, the mask.
struct Layout {
  DynamicRoutingOptions o;
  std::int64_t rows, step;
  bool mask;

  detail::RoutingWindows geometry(const Tensor& votes) const {
    return {.count = (votes.size(1) - rows) / step + 1, .step = step, .rows = rows};
  }
  /// The votes of every window, copied [B·N, rows, J, D].
  Tensor cut(const Tensor& votes) const {
    const std::int64_t count = geometry(votes).count;
    std::vector<std::int64_t> child;
    for (std::int64_t n = 0; n < count; ++n)
      for (std::int64_t i = 0; i < rows; ++i) child.push_back(n * step + i);
    return reshape(index_select(votes, 1, from_vector(child)),
                   {votes.size(0) * count, rows, votes.size(2), votes.size(3)});
  }
  TensorList reference(const TensorList& in) const {
    const detail::RoutingTrace t = detail::route_in_plain_ops(
        cut(in[0]), o, {.prior = {}, .mask = mask ? in[1] : Tensor(), .activation = {}});
    return {squash(t.sums.back(), o.squash_c), t.couplings, stack(t.sums, 1)};
  }
  TensorList vjp(const Saved& s, const TensorList& gy) const {
    TensorList all{s.input(0).detach()}, out(mask ? 2 : 1);
    if (mask) all.push_back(s.input(1).detach());
    if (any(gy[1]))  // a loss rarely looks at couplings
      return replay([this](const TensorList& in) { return reference(in); }, all, gy, {true, false});
    const Tensor sums = s.output(2).detach();
    const auto last = [this](const TensorList& in) {
      return TensorList{squash(select(in[0], 1, o.iterations - 1), o.squash_c)};
    };
    const Tensor gsums = gy[2] + replay(last, {sums}, {gy[0]}, {true})[0];
    const Tensor bias = mask ? detail::bias_of(all[1], sums.dtype()) : Tensor();
    out[0] = detail::fused_routing_vjp(all[0], {}, bias, {sums, s.output(1)}, gsums, o, true, false,
                                       geometry(all[0]))
                 .votes;
    return out;
  }
};

}  // namespace

bool detail::fits_window_routing(const Tensor& x,
                                 const DynamicRoutingOptions& o,
                                 const RoutingInputs& in) {
  return fits_fused_routing(x, o, in) && !o.detach && !in.prior.defined();
}

/// One op, whose reference copies the windows and routes them in plain ops.
Routed dynamic_routing_windows(const Tensor& votes,
                               std::int64_t rows,
                               std::int64_t step,
                               const DynamicRoutingOptions& o,
                               const RoutingInputs& in) {
  detail::check_votes("dynamic_routing_windows", votes);
  if (rows < 1 || step < 1 || rows > votes.size(1))
    throw ShapeError(fmt::format(
        "dynamic_routing_windows: windows of {} children, {} apart, do not fit votes {}", rows,
        step, votes.shape().str()));
  const Layout layout{o, rows, step, in.mask.defined()};
  const detail::RoutingWindows windows = layout.geometry(votes);
  detail::check_dynamic_routing("dynamic_routing_windows", votes.size(0) * windows.count, rows,
                                votes.size(2), o, in);
  if (!detail::fits_window_routing(votes, o, in)) return dynamic_routing(layout.cut(votes), o, in);
  TensorList all{votes};
  if (layout.mask) all.push_back(in.mask.detach());
  const detail::RoutingValues values = detail::fused_routing(
      votes.detach(), {}, detail::bias_of(in.mask, votes.dtype()), o, windows);
  TensorList out{Tensor(), values.couplings, values.sums};
  {
    const ObserverGuard quiet(nullptr);
    out[0] = squash(select(values.sums, 1, o.iterations - 1), o.squash_c);
  }
  out = record_fused(
      "dynamic_routing_windows", all, out, Save::output,
      [layout](const Saved& s, const TensorList& gy) { return layout.vjp(s, gy); },
      [layout](const TensorList& inputs) { return layout.reference(inputs); });
  return {out[0], out[1]};
}

}  // namespace capsfw
