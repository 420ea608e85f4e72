// Routing of votes that are not stored, as one op.

#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

#include "agreement.hpp"
#include "agreement_product.hpp"
#include "agreement_shared.hpp"
#include "overflow.hpp"
#include "require_shape.hpp"

namespace capsfw::detail {
namespace {

/// What a node knows: the rule, which children are routed together, and which inputs there are: u,
/// weight, all this as numbers (for who meets the node in a graph), then the prior and the mask if
/// there are any.
struct Layout {
  AgreementRule rule;
  bool prior, mask;
  std::int64_t rows = 0, step = 0;  ///< of windows; 0: all children of a sample

  std::size_t count() const { return 3U + (prior ? 1U : 0U) + (mask ? 1U : 0U); }
  Tensor numbers() const {
    const auto flag = [](bool x) { return x ? 1.0 : 0.0; };
    std::vector<double> x{static_cast<double>(rule.kind),
                          static_cast<double>(rule.sums),
                          rule.squash_c,
                          flag(rule.leaky),
                          flag(rule.detach),
                          flag(prior),
                          flag(mask),
                          static_cast<double>(rows),
                          static_cast<double>(step)};
    x.insert(x.end(), rule.scales.begin(), rule.scales.end());
    return from_vector(x);
  }
  static Layout from(const Tensor& numbers) {
    const auto x = numbers.to_vector<double>();
    Layout out{.rule = {.kind = static_cast<AgreementRule::Kind>(x[0]),
                        .sums = static_cast<int>(x[1]),
                        .squash_c = x[2],
                        .leaky = x[3] != 0,
                        .detach = x[4] != 0},
               .prior = x[5] != 0,
               .mask = x[6] != 0,
               .rows = static_cast<std::int64_t>(x[7]),
               .step = static_cast<std::int64_t>(x[8])};
    std::copy(x.begin() + 9, x.end(), out.rule.scales.begin());
    return out;
  }
  std::string name() const {
    return fmt::format("{}{}", rule.name(), rows > 0 ? "_windows" : "_from");
  }
  AgreementInputs inputs(const TensorList& all) const {
    return {.prior = prior ? all[3] : Tensor(), .mask = mask ? all[prior ? 4 : 3] : Tensor()};
  }
  VoteWindows windows(const TensorList& all) const { return {{all[0], all[1]}, rows, step}; }
  /// With windows as samples.
  VoteProduct product(const TensorList& all) const {
    return {rows > 0 ? copy_windows(windows(all)) : all[0], all[1]};
  }
  RoutingWindows geometry(const TensorList& all) const {
    return rows > 0 ? RoutingWindows{windows(all).count(), step, rows} : RoutingWindows{};
  }
  ProductInputs plain(const TensorList& all) const {
    const AgreementInputs in = inputs(all);
    const auto data = [](const Tensor& x) {
      return x.defined() ? contiguous_data(x.detach()) : Tensor();
    };
    const Tensor mask_data = in.mask.defined() ? in.mask.detach() : Tensor();
    return {data(all[0]), data(all[1]), data(in.prior),
            data(bias_of(rule, mask_data, all[0].dtype()))};
  }
  RoutingValues values(const TensorList& all) const {
    return all[1].dim() == 3 ? shared_routing(plain(all), rule, geometry(all))
                             : product_routing(plain(all), rule);
  }
  TensorList reference(const TensorList& all) const {
    return route_in_plain_ops(rule, product(all).votes(), inputs(all));
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
    const Tensor gsums = contiguous_data(sums_gradient(rule, sums, gy[0].detach(), gy[2].detach()));
    const ProductNeeds wanted{needs[0], needs[1], prior && needs[3]};
    const ProductInputs g =
        all[1].dim() == 3
            ? shared_routing_vjp(plain(all), {sums, s.output(1).detach()}, gsums, rule, wanted,
                                 geometry(all))
            : product_routing_vjp(plain(all), contiguous_data(sums), gsums, rule, wanted);
    check_gradient_overflow(rule.name(), {sums}, {g.u, g.weight, g.prior}, {all[0], all[1]}, gy);
    TensorList out(all.size());
    out[0] = g.u, out[1] = g.weight;
    if (prior) out[3] = g.prior;
    return out;
  }
};

/// Saves the votes, their gradient and all passes over them in memory.
Routed route(Layout layout, const VoteProduct& p, const AgreementInputs& in) {
  const std::int64_t windows =
      layout.rows > 0 ? VoteWindows{p, layout.rows, layout.step}.count() : 1;
  const Shape votes{p.u.size(0) * windows, layout.rows > 0 ? layout.rows : p.u.size(1),
                    p.weight.size(-3), p.weight.size(-2)};
  require_shape(layout.rule.name(), in.prior, {votes[1], votes[2]}, "the prior", votes);
  require_shape(layout.rule.name(), in.mask, {votes[0], votes[2]}, "the mask", votes);
  layout.prior = in.prior.defined(), layout.mask = in.mask.defined();
  TensorList all{p.u, p.weight, layout.numbers()};
  if (layout.prior) all.push_back(layout.rule.detach ? in.prior.detach() : in.prior);
  if (layout.mask) all.push_back(in.mask.detach());
  const RoutingValues values = layout.values(all);
  const TensorList out = record_fused(
      layout.name(), all, {poses_of(layout.rule, values.sums), values.couplings, values.sums},
      Save::output, [layout](const Saved& s, const TensorList& gy) { return layout.vjp(s, gy); },
      [layout](const TensorList& inputs) { return layout.reference(inputs); });
  return {out[0], layout.rule.detach ? out[1].detach() : out[1]};
}

TensorList inputs_of(const Node& node, const Layout& layout) {
  TensorList all;
  for (int k = 0; k < static_cast<int>(layout.count()); ++k) all.push_back(node.input(k));
  return all;
}

/// [B · N, rows, ...] -> [B, N · rows, ...]
Tensor join_windows(const Tensor& x, std::int64_t samples) {
  Shape shape = x.shape();
  shape[1] *= shape[0] / samples;
  shape[0] = samples;
  return reshape(x, shape);
}

}  // namespace

bool routes_product(const Node& node) {
  const std::string_view name = node.name();
  for (const std::string_view rule : {"dynamic_routing", "kmeans_routing", "entropy_routing"})
    if (name.starts_with(rule) &&
        (name.substr(rule.size()) == "_from" || name.substr(rule.size()) == "_windows"))
      return true;
  return false;
}

Tensor children_of(const Node& node) {
  const Layout layout = Layout::from(node.input(2).detach());
  const TensorList all = inputs_of(node, layout);
  return join_windows(layout.product(all).u, all[0].size(0));
}

Tensor votes_gradient(const Node& node, const Tensor& gposes, const Tensor& gcouplings) {
  const Layout layout = Layout::from(node.input(2).detach());
  const TensorList all = inputs_of(node, layout);
  const bool create_graph = is_grad_enabled();
  const GradModeGuard recording(true);
  Tensor votes = layout.product(all).votes();
  if (!create_graph) votes = votes.detach().requires_grad_();
  const Routed out = route_votes(layout.rule, votes, layout.inputs(all));
  TensorList results, cotangents;
  const auto add = [&](const Tensor& y, const Tensor& g) {
    if (g.defined() && y.requires_grad()) results.push_back(y), cotangents.push_back(g);
  };
  add(out.poses, gposes);
  add(out.couplings, gcouplings);
  return join_windows(grad(results, {votes}, cotangents, {.create_graph = create_graph})[0],
                      all[0].size(0));
}

bool fits_product(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in) {
  constexpr std::int64_t kLeastSamples = 8;  // below, a vector is mostly empty
  return fits_kernels(rule, p.u, in) && p.u.dtype() == p.weight.dtype() && p.weight.numel() > 0 &&
         (p.weight.dim() == 3 || p.u.size(0) >= kLeastSamples);
}

bool fits_windows(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in) {
  return p.weight.dim() == 3 && fits_product(rule, p, in);
}

Routed route_product(const AgreementRule& rule, const VoteProduct& p, const AgreementInputs& in) {
  return route({.rule = rule, .prior = false, .mask = false}, p, in);
}

Routed route_windows(const AgreementRule& rule, const VoteWindows& w, const AgreementInputs& in) {
  return route({.rule = rule, .prior = false, .mask = false, .rows = w.rows, .step = w.step},
               w.product, in);
}

Tensor copy_windows(const VoteWindows& w) {
  const Tensor& u = w.product.u;
  std::vector<std::int64_t> child;
  for (std::int64_t n = 0; n < w.count(); ++n)
    for (std::int64_t i = 0; i < w.rows; ++i) child.push_back(n * w.step + i);
  return reshape(index_select(u, 1, from_vector(child)),
                 {u.size(0) * w.count(), w.rows, u.size(2)});
}

}  // namespace capsfw::detail
