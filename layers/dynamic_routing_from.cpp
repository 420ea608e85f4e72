// Dynamic routing of votes that are not stored, as one op.

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/observer.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "detail/routing_from.hpp"

namespace capsfw {
namespace {

constexpr const char* kName = "dynamic_routing_from";

/// What a node knows: the options, and which inputs there are: u, weight, the options as numbers
/// (for who meets the node in a graph), then the prior and the mask if there are any.
struct Layout {
  DynamicRoutingOptions o;
  bool prior, mask;

  std::size_t count() const { return 3U + (prior ? 1U : 0U) + (mask ? 1U : 0U); }
  Tensor numbers() const {
    const auto flag = [](bool x) { return x ? 1.0 : 0.0; };
    return from_vector<double>({static_cast<double>(o.iterations), o.squash_c, flag(o.leaky),
                                flag(o.detach), flag(prior), flag(mask)});
  }
  static Layout from(const Tensor& numbers) {
    const auto x = numbers.to_vector<double>();
    return {{.iterations = static_cast<int>(x[0]),
             .squash_c = x[1],
             .detach = x[3] != 0,
             .leaky = x[2] != 0},
            x[4] != 0,
            x[5] != 0};
  }
  RoutingInputs inputs(const TensorList& all) const {
    return {.prior = prior ? all[3] : Tensor(),
            .mask = mask ? all[prior ? 4 : 3] : Tensor(),
            .activation = {}};
  }
  detail::ProductInputs plain(const TensorList& all) const {
    const RoutingInputs in = inputs(all);
    const auto data = [](const Tensor& x) {
      return x.defined() ? contiguous_data(x.detach()) : Tensor();
    };
    return {data(all[0]), data(all[1]), data(in.prior),
            data(detail::bias_of(in.mask.defined() ? in.mask.detach() : Tensor(), all[0].dtype()))};
  }
  TensorList reference(const TensorList& all) const {
    const detail::RoutingTrace t =
        detail::route_in_plain_ops(VoteProduct{all[0], all[1]}.votes(), o, inputs(all));
    return {squash(t.sums.back(), o.squash_c), t.couplings, stack(t.sums, 1)};
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
    const detail::ProductInputs g = detail::routing_from_vjp(
        plain(all), contiguous_data(s.output(2).detach()), contiguous_data(gy[0].detach()),
        contiguous_data(gy[2].detach()), o, {needs[0], needs[1], prior && needs[3]});
    TensorList out(all.size());
    out[0] = g.u, out[1] = g.weight;
    if (prior) out[3] = g.prior;
    return out;
  }
};

}  // namespace

namespace detail {

bool routes_product(const Node& node) { return node.name() == kName; }

Tensor votes_gradient(const Node& node, const Tensor& gposes, const Tensor& gcouplings) {
  const Layout layout = Layout::from(node.input(2).detach());
  TensorList all;
  for (int k = 0; k < static_cast<int>(layout.count()); ++k) all.push_back(node.input(k));
  const bool create_graph = is_grad_enabled();
  const GradModeGuard recording(true);
  Tensor votes = VoteProduct{all[0], all[1]}.votes();
  if (!create_graph) votes = votes.detach().requires_grad_();
  const Routed out = dynamic_routing(votes, layout.o, layout.inputs(all));
  TensorList results, cotangents;
  const auto add = [&](const Tensor& y, const Tensor& g) {
    if (g.defined() && y.requires_grad()) results.push_back(y), cotangents.push_back(g);
  };
  add(out.poses, gposes);
  add(out.couplings, gcouplings);
  return grad(results, {votes}, cotangents, {.create_graph = create_graph})[0];
}

}  // namespace detail

/// One op, whose reference makes the votes and routes them in plain ops. Saves the votes, their
/// gradient and all passes over them in memory.
Routed dynamic_routing_from(const Tensor& u,
                            const Tensor& weight,
                            const DynamicRoutingOptions& o,
                            const RoutingInputs& in) {
  const int w = weight.dim();
  if (u.dim() != 3 || w < 3 || w > 4 || u.size(2) != weight.size(-1) ||
      (w == 4 && u.size(1) != weight.size(0)))
    throw ShapeError(
        fmt::format("dynamic_routing_from: takes u [B, I, E] and weight [I, J, D, E] or [J, D, E]; "
                    "got {} and {}",
                    u.shape().str(), weight.shape().str()));
  detail::check_dynamic_routing("dynamic_routing_from", u.size(0), u.size(1), weight.size(-3), o,
                                in);
  if (!detail::fits_routing_from(u, weight, o, in))
    return dynamic_routing(VoteProduct{u, weight}.votes(), o, in);
  const Layout layout{o, in.prior.defined(), in.mask.defined()};
  TensorList all{u, weight, layout.numbers()};
  if (layout.prior) all.push_back(o.detach ? in.prior.detach() : in.prior);
  if (layout.mask) all.push_back(in.mask.detach());
  const detail::RoutingValues values = detail::routing_from(layout.plain(all), o);
  TensorList out{Tensor(), values.couplings, values.sums};
  {
    const ObserverGuard quiet(nullptr);
    out[0] = squash(select(values.sums, 1, o.iterations - 1), o.squash_c);
  }
  out = record_fused(
      kName, all, out, Save::output,
      [layout](const Saved& s, const TensorList& gy) { return layout.vjp(s, gy); },
      [layout](const TensorList& inputs) { return layout.reference(inputs); });
  return {out[0], o.detach ? out[1].detach() : out[1]};
}

}  // namespace capsfw
