#include <capsfw/layers/per_sample.hpp>

#include <algorithm>
#include <functional>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>

#include "detail/agreement.hpp"
#include "detail/batch_statistics.hpp"
#include "detail/param_use.hpp"

namespace capsfw {
namespace {

using detail::Param;
using detail::PerSample;
using detail::Use;
using detail::View;

/// Ops whose result has the samples in front, as `values` have.
std::unordered_set<const Node*> ops_of_samples(const Tensor& values) {
  std::vector<const Node*> open{values.grad_fn().get()};
  std::unordered_set<const Node*> seen{open[0]};
  while (!open.empty()) {
    const Node& node = *open.back();
    open.pop_back();
    for (std::size_t i = 0; i < node.edges().size(); ++i) {
      const Node* from = node.edges()[i].node.get();
      if (from != nullptr && !detail::is_weight(node, i) && seen.insert(from).second)
        open.push_back(from);
    }
  }
  return seen;
}

/// Every op below `values` that reads a parameter.
std::vector<Use> uses_of(const Tensor& values, const std::vector<Param>& params) {
  std::vector<const Node*> order{values.grad_fn().get()};
  std::unordered_set<const Node*> seen{order[0]};
  for (std::size_t next = 0; next < order.size(); ++next)
    for (const Edge& e : order[next]->edges())
      if (e.node && seen.insert(e.node.get()).second) order.push_back(e.node.get());
  std::sort(order.begin(), order.end(),
            [](const Node* a, const Node* b) { return a->id() < b->id(); });
  std::unordered_map<const Node*, View> views;
  for (std::size_t i = 0; i < params.size(); ++i)
    if (params[i].value.requires_grad()) views[Node::of_leaf(params[i].value).get()] = {i, false};
  const std::unordered_set<const Node*> of_samples = ops_of_samples(values);
  std::vector<Use> uses;
  for (const Node* node : order)
    for (std::size_t i = 0; i < node->edges().size(); ++i) {
      const auto found = views.find(node->edges()[i].node.get());
      if (found == views.end()) continue;
      View view = found->second;
      if (node->name() == "reshape" && !view.transposed) {
        views[node] = view;
      } else if (node->name() == "permute" && !view.transposed &&
                 node->inputs()[0].shape.rank() == 2) {
        view.transposed = true;
        views[node] = view;
      } else {
        uses.push_back({node, static_cast<int>(i), view, of_samples.contains(node)});
      }
    }
  return uses;
}

std::vector<Param> params_of(Module& model) {
  std::unordered_map<const void*, const Conv2d*> convs;
  const std::function<void(Module&)> walk = [&](Module& m) {
    if (const auto* conv = dynamic_cast<const Conv2d*>(&m)) {
      convs[conv->weight.impl()] = conv;
      if (conv->bias.defined()) convs[conv->bias.impl()] = conv;
    }
    for (const auto& entry : m.children()) walk(*entry.second);
  };
  walk(model);
  std::vector<Param> params;
  for (const auto& [name, value] : model.named_parameters()) {
    const auto conv = convs.find(value.impl());
    params.push_back({name, value, conv == convs.end() ? nullptr : conv->second});
  }
  return params;
}

/// Calls each(parameter, its uses with their gradients) for every parameter that is used.
template <class F>
void for_each_param(const Tensor& values,
                    const std::vector<Param>& params,
                    PerSampleOptions o,
                    const F& each) {
  detail::check_per_sample(values, {}, "per_sample");
  if (!values.requires_grad() || values.is_leaf()) return;
  detail::refuse_batch_statistics(values, {}, "per_sample");
  const std::vector<Use> uses = uses_of(values, params);
  TensorList targets;
  for (const Use& use : uses) targets.push_back(use.node->result());
  for (const Use& use : uses)
    if (detail::routes_product(*use.node)) targets.push_back(use.node->result(1));
  const GradModeGuard mode(o.create_graph);
  TensorList deltas;
  {
    const GradModeGuard recording(true);  // of the sum, without which there is no graph to walk
    if (!uses.empty())
      deltas = grad({sum(values)}, targets, {},
                    {.create_graph = o.create_graph, .retain_graph = true, .allow_unused = true});
  }
  for (std::size_t k = 0, next = uses.size(); k < uses.size(); ++k)
    if (detail::routes_product(*uses[k].node)) {
      const Tensor& couplings = deltas[next++];
      if (deltas[k].defined() || couplings.defined())
        deltas[k] = detail::votes_gradient(*uses[k].node, deltas[k], couplings);
    }
  for (std::size_t p = 0; p < params.size(); ++p) {
    std::vector<PerSample> found;
    for (std::size_t k = 0; k < uses.size(); ++k)
      if (uses[k].view.param == p && deltas[k].defined())
        found.emplace_back(values.size(0), params[p], uses[k], deltas[k]);
    if (!found.empty()) each(p, found);
  }
}

Tensor total(const std::vector<PerSample>& uses) {
  Tensor g = uses[0].gradient();
  for (std::size_t k = 1; k < uses.size(); ++k) g = g + uses[k].gradient();
  return g;
}

}  // namespace

TensorList per_sample_gradients(const Tensor& values, Module& model, PerSampleOptions o) {
  const std::vector<Param> params = params_of(model);
  TensorList out(params.size());
  for_each_param(values, params, o,
                 [&](std::size_t p, const std::vector<PerSample>& uses) { out[p] = total(uses); });
  return out;
}

Tensor per_sample_square_norms(const Tensor& values, Module& model, PerSampleOptions o) {
  const std::vector<Param> params = params_of(model);
  Tensor sums;
  for_each_param(values, params, o, [&](std::size_t, const std::vector<PerSample>& uses) {
    // Several uses of one parameter add up before they are squared.
    const auto quick = uses.size() == 1 ? uses[0].square_norms() : std::nullopt;
    const Tensor s = quick ? *quick : detail::squares(total(uses), values.size(0));
    sums = sums.defined() ? sums + s : s;
  });
  return sums.defined() ? sums : zeros(values.shape(), values.dtype());
}

}  // namespace capsfw
