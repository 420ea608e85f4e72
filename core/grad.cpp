#include <capsfw/core/grad.hpp>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/backward_listener.hpp>
#include <capsfw/core/debug.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/vspace.hpp>

#include "tensor_impl.hpp"

namespace capsfw {
namespace {

thread_local bool t_grad_enabled = true;
thread_local BackwardListener* t_listener = nullptr;

/// Where the cotangent of a tensor arrives in the graph.
Edge edge_of(const Tensor& x) {
  if (x.is_leaf()) return {Node::of_leaf(x), 0};
  return {x.grad_fn(), x.impl()->autograd->output};
}

/// One backward pass. The graph is walked from `roots`; nodes run in descending id, which is a
/// reverse topological order because an op is always younger than what it depends on. No step
/// recurses.
class Engine {
 public:
  Engine(const std::vector<Edge>& roots, bool create_graph, bool retain_graph)
      : create_graph_(create_graph), retain_graph_(retain_graph || create_graph) {
    collect(roots);
  }

  const std::vector<Node*>& nodes() const { return order_; }

  /// Only nodes from which a target can be reached are worth running.
  void restrict_to(const std::vector<Edge>& targets) {
    for (const Edge& t : targets)
      if (const auto it = work_.find(t.node.get()); it != work_.end()) it->second.captured = true;
    for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
      Work& w = work_.at(*it);
      for (const Edge& e : (*it)->edges())
        if (e.node) {
          w.needed = w.needed || reached(work_.at(e.node.get()));
        }
    }
  }

  void seed(const Edge& root, const Tensor& cotangent) {
    accumulate(work_.at(root.node.get()), root.output, cotangent);
  }

  void run(bool fill_retained) {
    const GradModeGuard mode(create_graph_);
    for (Node* node : order_) visit(*node, fill_retained);
  }

  /// The same, and calls `done` with every leaf among the targets behind the last op that uses it,
  /// and `next` behind every op. Leaves are older than ops, so in the order of run() they would all
  /// come at the end.
  template <class F, class G>
  void run_telling(const F& done, const G& next) {
    const GradModeGuard mode(create_graph_);
    std::unordered_map<const Node*, std::int64_t> uses;
    for (const Node* node : order_)
      for (const Edge& e : node->edges())
        if (e.node && e.node->is_leaf()) ++uses[e.node.get()];
    for (Node* node : order_) {
      if (node->is_leaf()) continue;
      visit(*node, true);
      for (const Edge& e : node->edges()) {
        if (!e.node || !e.node->is_leaf() || --uses[e.node.get()] > 0) continue;
        visit(*e.node, true);
        if (work_.at(e.node.get()).captured) done(e);
      }
      next();
    }
  }

  /// Whether the graph holds the node of this target.
  bool reaches(const Edge& target) const { return work_.contains(target.node.get()); }

  /// The complete cotangent of a target; undefined if nothing reached it.
  Tensor cotangent(const Edge& target) const {
    const auto it = work_.find(target.node.get());
    if (it == work_.end() || it->second.cotangents.empty()) return {};
    return it->second.cotangents[static_cast<std::size_t>(target.output)];
  }

 private:
  struct Work {
    TensorList cotangents;  // one per output
    bool captured = false;  // a target of the caller
    bool needed = false;    // a target lies below
  };

  static bool reached(const Work& w) { return w.needed || w.captured; }

  void visit(Node& node, bool fill_retained) {
    Work& w = work_.at(&node);
    if (!reached(w)) return;
    if (std::none_of(w.cotangents.begin(), w.cotangents.end(),
                     [](const Tensor& t) { return t.defined(); }))
      return;
    run_hooks(node, w, fill_retained);
    if (w.needed && !node.is_leaf()) {
      fill_missing(node, w);
      propagate(node, w);
      if (!retain_graph_) node.release();
    }
    if (!w.captured) w.cotangents.clear();
  }

  void collect(const std::vector<Edge>& roots) {
    std::vector<Node*> stack;
    const auto visit = [&](const std::shared_ptr<Node>& n) {
      if (n && work_.try_emplace(n.get()).second) {
        alive_.push_back(n);
        stack.push_back(n.get());
        order_.push_back(n.get());
      }
    };
    for (const Edge& r : roots) visit(r.node);
    while (!stack.empty()) {
      const Node* node = stack.back();
      stack.pop_back();
      for (const Edge& e : node->edges()) visit(e.node);
    }
    std::sort(order_.begin(), order_.end(),
              [](const Node* a, const Node* b) { return a->id() > b->id(); });
    for (Node* node : order_) work_.at(node).cotangents.resize(node->outputs().size());
  }

  void accumulate(Work& w, int output, const Tensor& g) {
    Tensor& sum = w.cotangents[static_cast<std::size_t>(output)];
    if (!sum.defined())
      sum = g;
    else if (create_graph_ || !try_add_in_place(sum, g))
      sum = add(sum, g);
  }

  static void run_hooks(Node& node, Work& w, bool fill_retained) {
    const std::vector<Node::Hook> hooks = node.hooks();  // one of them may add or remove some
    for (const Node::Hook& hook : hooks) {
      Tensor& g = w.cotangents[static_cast<std::size_t>(hook.output)];
      if (!g.defined() || (hook.retain && !fill_retained)) continue;
      const Tensor replaced = hook.call(g);
      if (!replaced.defined()) continue;
      if (replaced.shape() != g.shape() || replaced.dtype() != g.dtype())
        throw GradError(fmt::format(
            "hook on a result of {}: it must return a gradient like the one it gets; got gradient "
            "= {} {}, returned = {} {}",
            node.where(), g.shape().str(), name_of(g.dtype()), replaced.shape().str(),
            name_of(replaced.dtype())));
      g = replaced;
    }
  }

  static void fill_missing(const Node& node, Work& w) {
    for (std::size_t k = 0; k < w.cotangents.size(); ++k)
      if (!w.cotangents[k].defined() && is_floating(node.outputs()[k].dtype))
        w.cotangents[k] = detail::expanded_zero(node.outputs()[k]);
  }

  void propagate(const Node& node, const Work& w) {
    const bool check = detail::anomaly_enabled();
    if (check) detail::check_arrivals(node, w.cotangents);
    std::vector<bool> wanted;
    for (const Edge& e : node.edges()) wanted.push_back(e.node && reached(work_.at(e.node.get())));
    TensorList grads;
    {
      const AnomalyGuard quiet(false);  // the message names the op, not what its rule is made of
      OpObserver* observer = detail::op_observer();
      if (observer != nullptr) observer->rule_begins(node);
      grads = detail::naming([&] { return "backward of " + node.where(); },
                             [&] { return node.apply(w.cotangents, wanted); });
      if (observer != nullptr) observer->rule_done(node);
    }
    if (grads.size() != node.edges().size())
      throw GradError(fmt::format(
          "backward of {}: the rule must return one gradient per input; expected {}, got {}",
          node.where(), node.edges().size(), grads.size()));
    if (check) detail::check_backward(node, grads);
    for (std::size_t i = 0; i < grads.size(); ++i) {
      const Edge& e = node.edges()[i];
      if (!wanted[i] || !grads[i].defined()) continue;
      accumulate(work_.at(e.node.get()), e.output, fitted(node, i, grads[i]));
    }
  }

  /// Sums a gradient to the shape of an input that was broadcast: the one place where this happens.
  static Tensor fitted(const Node& node, std::size_t i, const Tensor& g) {
    const Node::Meta& want = node.inputs()[i];
    if (g.dtype() != want.dtype)
      throw GradError(
          fmt::format("backward of {}: the gradient for input {} must be {}, the rule returned {}",
                      node.where(), i, name_of(want.dtype), name_of(g.dtype())));
    if (g.shape() == want.shape) return g;
    if (!broadcastable_to(want.shape, g.shape()))
      throw GradError(fmt::format(
          "backward of {}: expected a gradient of shape {} for input {}, the rule returned {}",
          node.where(), want.shape.str(), i, g.shape().str()));
    return sum_to(g, want.shape);
  }

  bool create_graph_, retain_graph_;
  std::vector<std::shared_ptr<Node>> alive_;
  std::vector<Node*> order_;
  std::unordered_map<Node*, Work> work_;
};

/// `g`, or a copy where somebody else sees its memory: rules hand cotangents through, and whoever
/// writes into `.grad` must change that alone.
Tensor owned(const Tensor& g) {
  constexpr long kHandles = 2;  // this one and the engine's
  const bool sole = g.impl_ptr().use_count() <= kHandles && g.storage().use_count() == 1;
  return sole && g.is_contiguous() ? g : empty_like(g).copy_(g);
}

/// Checks one output with its cotangent; ones by default where the output has one element.
Tensor checked_cotangent(const Tensor& y, const Tensor& gy, std::string_view caller) {
  if (!y.defined() || !y.requires_grad())
    throw GradError(fmt::format(
        "{}: the output needs no gradient: nothing below it requires one, or it was computed "
        "with recording off",
        caller));
  if (!gy.defined()) {
    if (y.numel() != 1)
      throw GradError(fmt::format(
          "{}: an output of shape {} needs an explicit cotangent (grad_outputs). Hint: reduce "
          "it to one number first, for example with sum()",
          caller, y.shape().str()));
    return ones_like(y);
  }
  if (gy.shape() != y.shape() || gy.dtype() != y.dtype())
    throw ShapeError(fmt::format(
        "{}: the cotangent must match its output; got output = {} {}, cotangent = {} {}", caller,
        y.shape().str(), name_of(y.dtype()), gy.shape().str(), name_of(gy.dtype())));
  return gy;
}

}  // namespace

bool is_grad_enabled() { return t_grad_enabled; }

GradModeGuard::GradModeGuard(bool enabled) : previous_(std::exchange(t_grad_enabled, enabled)) {}
GradModeGuard::~GradModeGuard() { t_grad_enabled = previous_; }

BackwardListenerGuard::BackwardListenerGuard(BackwardListener* listener)
    : previous_(std::exchange(t_listener, listener)) {}
BackwardListenerGuard::~BackwardListenerGuard() { t_listener = previous_; }

TensorList grad(const TensorList& outputs,
                const TensorList& inputs,
                const TensorList& grad_outputs,
                GradOptions options) {
  if (!grad_outputs.empty() && grad_outputs.size() != outputs.size())
    throw GradError(fmt::format("grad: one cotangent per output; got {} outputs, {} cotangents",
                                outputs.size(), grad_outputs.size()));
  TensorList cotangents;
  std::vector<Edge> roots, targets;
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    cotangents.push_back(
        checked_cotangent(outputs[k], grad_outputs.empty() ? Tensor() : grad_outputs[k], "grad"));
    roots.push_back(edge_of(outputs[k]));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i].defined() || !inputs[i].requires_grad())
      throw GradError(fmt::format(
          "grad: input {} does not require a gradient. Hint: x.requires_grad_() before it is used",
          i));
    targets.push_back(edge_of(inputs[i]));
  }
  Engine engine(roots, options.create_graph, options.retain_graph);
  const auto unused = [&](std::size_t i) {
    throw GradError(fmt::format(
        "grad: the outputs do not depend on input {} of shape {}. Hint: {{.allow_unused = true}} "
        "returns an undefined tensor instead",
        i, inputs[i].shape().str()));
  };
  for (std::size_t i = 0; i < inputs.size(); ++i)  // before the run, which frees the graph
    if (!options.allow_unused && !engine.reaches(targets[i])) unused(i);
  engine.restrict_to(targets);
  for (std::size_t k = 0; k < outputs.size(); ++k) engine.seed(roots[k], cotangents[k]);
  engine.run(false);
  TensorList result;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    result.push_back(engine.cotangent(targets[i]));
    if (!result.back().defined() && !options.allow_unused) unused(i);  // a rule has left it out
  }
  return result;
}

Tensor grad(const Tensor& output,
            const Tensor& input,
            const Tensor& grad_output,
            GradOptions options) {
  return grad(TensorList{output}, TensorList{input},
              grad_output.defined() ? TensorList{grad_output} : TensorList{}, options)[0];
}

void backward(const Tensor& loss, const Tensor& grad_output, bool retain_graph) {
  const Tensor cotangent = checked_cotangent(loss, grad_output, "backward");
  const Edge root = edge_of(loss);
  Engine engine({root}, false, retain_graph);
  std::vector<Edge> leaves;
  for (Node* node : engine.nodes())
    if (node->is_leaf() && node->leaf().defined() && node->leaf().requires_grad())
      leaves.push_back({node->shared_from_this(), 0});
  engine.restrict_to(leaves);
  engine.seed(root, cotangent);
  const auto leave = [&](const Edge& e) {
    const NoGradGuard no_grad;
    Tensor leaf = e.node->leaf();
    const Tensor g = engine.cotangent(e);
    if (!leaf.defined() || !g.defined()) return;  // the graph may have been the last to hold it
    leaf.set_grad(leaf.grad().defined() ? add(leaf.grad(), g) : owned(g));
    if (t_listener != nullptr) t_listener->leaf_done(leaf);
  };
  if (BackwardListener* listener = t_listener; listener != nullptr && !root.node->is_leaf())
    return engine.run_telling(leave, [listener] { listener->rule_done(); });
  engine.run(true);
  for (const Edge& e : leaves) leave(e);
}

}  // namespace capsfw
