#include <capsfw/core/replay.hpp>

#include <unordered_set>

#include <fmt/format.h>

namespace capsfw {
namespace {

/// The same tensor under a new node, so that a walk can stop there.
Tensor alias(const Tensor& x) {
  return record("alias", {x}, x.detach(), Save::none,
                [](const Saved&, const Tensor& gy) { return gy; });
}

void check_defined(std::string_view name, const TensorList& inputs) {
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (!inputs[i].defined())
      throw ValueError(fmt::format("{}: input {} is undefined. Hint: leave it out", name, i));
}

/// GradError if `results` depend on a tensor that requires a gradient by another way than `inputs`.
void refuse_captured(const TensorList& results, const TensorList& inputs) {
  std::unordered_set<const Node*> seen;
  const auto node_of = [](const Tensor& x) { return x.is_leaf() ? Node::of_leaf(x) : x.grad_fn(); };
  for (const Tensor& x : inputs)
    if (x.defined() && x.requires_grad()) seen.insert(node_of(x).get());
  std::vector<const Node*> stack;
  for (const Tensor& y : results)
    if (y.requires_grad() && seen.insert(node_of(y).get()).second)
      stack.push_back(node_of(y).get());
  while (!stack.empty()) {
    const Node* node = stack.back();
    stack.pop_back();
    if (node->is_leaf())
      throw GradError(fmt::format(
          "checkpoint: the function uses a tensor {} that requires a gradient and is not among its "
          "inputs: it would get none. Hint: pass parameters as inputs, too",
          node->outputs()[0].shape.str()));
    for (const Edge& e : node->edges())
      if (e.node && seen.insert(e.node.get()).second) stack.push_back(e.node.get());
  }
}

}  // namespace

TensorList replay(const Function& fn,
                  const TensorList& inputs,
                  const TensorList& cotangents,
                  const std::vector<bool>& needs) {
  const bool create_graph = is_grad_enabled();
  TensorList aliases = inputs, wanted, outputs, gys;
  {
    const GradModeGuard recording(true);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].defined() || (!needs.empty() && !needs[i])) {
        // Its gradient is not asked for here, but the others may depend on it.
        if (inputs[i].defined() && !create_graph) aliases[i] = inputs[i].detach();
        continue;
      }
      aliases[i] = create_graph && inputs[i].requires_grad() ? alias(inputs[i])
                                                             : inputs[i].detach().requires_grad_();
      wanted.push_back(aliases[i]);
    }
    const TensorList results = fn(aliases);
    if (results.size() != cotangents.size())
      throw GradError(fmt::format("replay: the function returned {} tensors for {} cotangents",
                                  results.size(), cotangents.size()));
    for (std::size_t k = 0; k < results.size(); ++k)
      if (cotangents[k].defined() && results[k].requires_grad()) {
        outputs.push_back(results[k]);
        gys.push_back(cotangents[k]);
      }
  }
  TensorList found;
  if (!outputs.empty())
    found = grad(outputs, wanted, gys, {.create_graph = create_graph, .allow_unused = true});
  TensorList result(inputs.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (inputs[i].defined() && (needs.empty() || needs[i])) {
      if (!found.empty()) result[i] = found[next];
      ++next;
    }
  return result;
}

TensorList checkpoint(const Function& fn, const TensorList& inputs) {
  check_defined("checkpoint", inputs);
  TensorList outputs;
  {
    const NoGradGuard no_grad;
    outputs = fn(inputs);
  }
  for (Tensor& y : outputs) y = y.detach();
  if (detail::must_record(inputs)) {
    const int n = static_cast<int>(inputs.size());
    Node::attach("checkpoint", inputs, outputs, Save::inputs,
                 [fn, n](const Saved& s, const TensorList& gy) {
                   TensorList in;
                   std::vector<bool> needs;
                   for (int i = 0; i < n; ++i) {
                     in.push_back(s.input(i));
                     needs.push_back(s.needs(i));
                   }
                   return replay(
                       [&fn](const TensorList& aliases) {
                         TensorList results = fn(aliases);
                         refuse_captured(results, aliases);
                         return results;
                       },
                       in, gy, needs);
                 });
  }
  return outputs;
}

TensorList custom_vjp(std::string_view name,
                      const TensorList& inputs,
                      const Function& forward,
                      CustomVjp vjp) {
  check_defined(name, inputs);
  TensorList outputs;
  {
    const NoGradGuard no_grad;
    outputs = forward(inputs);
  }
  for (Tensor& y : outputs) y = y.detach();
  if (OpObserver* observer = detail::op_observer()) observer->op_done(name, inputs, outputs);
  if (detail::anomaly_enabled()) detail::check_forward(name, inputs, outputs);
  if (detail::must_record(inputs)) {
    const int n = static_cast<int>(inputs.size()), m = static_cast<int>(outputs.size());
    Node::attach(name, inputs, outputs, Save::all,
                 [vjp = std::move(vjp), n, m](const Saved& s, const TensorList& gy) {
                   TensorList in, out;
                   for (int i = 0; i < n; ++i) in.push_back(s.input(i));
                   for (int k = 0; k < m; ++k) out.push_back(s.output(k));
                   return vjp(in, out, gy);
                 });
  }
  return outputs;
}

}  // namespace capsfw
