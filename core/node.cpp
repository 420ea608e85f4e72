#include <capsfw/core/node.hpp>

#include <algorithm>
#include <atomic>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>

#include "tensor_impl.hpp"

namespace capsfw {
namespace {

std::atomic<std::int64_t> g_live_nodes{0};
std::atomic<std::uint64_t> g_next_id{1};

// What a dying node owned. A chain of 200,000 nodes must not be freed by 200,000 nested
// destructors: the outermost ~Node frees the remains of all others in a loop.
struct Remains {
  std::vector<Edge> edges;
  std::vector<Tensor> tensors;
  Rule rule;  // of custom_vjp and checkpoint: may hold tensors
  std::vector<Node::Hook> hooks;
};
thread_local std::vector<Remains>* t_graveyard = nullptr;

/// The rule that runs now.
struct Running {
  std::uint64_t node = 0;  // its id; 0: none
  int order = 0;           // of what it records
};
thread_local Running t_rule;

/// Makes `rule` the one that records, unless it runs inside of another.
class RuleGuard {
 public:
  explicit RuleGuard(Running rule) : previous_(t_rule) {
    if (t_rule.node == 0) t_rule = rule;
  }
  ~RuleGuard() { t_rule = previous_; }
  RuleGuard(const RuleGuard&) = delete;
  RuleGuard& operator=(const RuleGuard&) = delete;

 private:
  Running previous_;
};

}  // namespace

std::int64_t live_nodes() { return g_live_nodes; }

Node::Node(std::string_view name) : name_(name), id_(g_next_id++), path_(detail::current_path()) {
  ++g_live_nodes;
}

Node::~Node() {
  --g_live_nodes;
  Remains remains;
  remains.edges = std::move(edges_);
  for (auto* list : {&saved_inputs_, &saved_outputs_})
    for (SavedTensor& s : *list) remains.tensors.push_back(std::move(s.value));
  remains.rule = std::move(rule_);
  remains.hooks = std::move(hooks_);
  if (t_graveyard != nullptr) {
    t_graveyard->push_back(std::move(remains));
    return;
  }
  std::vector<Remains> graveyard;
  t_graveyard = &graveyard;
  graveyard.push_back(std::move(remains));
  while (!graveyard.empty()) {
    const Remains last = std::move(graveyard.back());
    graveyard.pop_back();
  }
  t_graveyard = nullptr;
}

std::string Node::where() const {
  return path_ == nullptr || path_->empty() ? fmt::format("'{}'", name_)
                                            : fmt::format("'{}' at {}", name_, *path_);
}

std::shared_ptr<Node> Node::of_leaf(const Tensor& x) {
  detail::AutogradMeta& meta = detail::autograd_of(x);
  if (!meta.node) {
    meta.node = std::make_shared<Node>("leaf");
    meta.node->is_leaf_ = true;
    meta.node->leaf_ = x.impl_ptr();
    meta.node->outputs_ = {{x.shape(), x.dtype()}};
  }
  return meta.node;
}

void Node::attach(
    std::string_view name, const TensorList& inputs, TensorList& outputs, Save save, Rule rule) {
  // The edges come first: they make the nodes of new leaves, which must be older than this op.
  std::vector<Edge> edges;
  edges.reserve(inputs.size());
  for (const Tensor& x : inputs) {
    Edge edge;
    if (x.requires_grad()) {
      const detail::AutogradMeta& meta = *x.impl()->autograd;
      edge = x.is_leaf() ? Edge{of_leaf(x), 0} : Edge{meta.node, meta.output};
    }
    edges.push_back(std::move(edge));
  }
  auto node = std::make_shared<Node>(name);
  node->rule_of_ = t_rule.node;
  node->order_ = t_rule.order;
  for (const Edge& e : edges)
    if (e.node) node->order_ = std::max(node->order_, e.node->order());
  node->edges_ = std::move(edges);
  const auto bits = static_cast<unsigned>(save);
  node->inputs_.reserve(inputs.size());
  node->saved_inputs_.reserve(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& x = inputs[i];
    node->inputs_.push_back({x.shape(), x.dtype()});
    const bool keep = (bits >> std::min<std::size_t>(i, 6) & 1U) != 0;
    node->saved_inputs_.push_back(keep ? SavedTensor{x, x.version()} : SavedTensor{});
  }
  for (std::size_t k = 0; k < outputs.size(); ++k) {
    Tensor& y = outputs[k];
    node->outputs_.push_back({y.shape(), y.dtype()});
    const bool keep = (bits & static_cast<unsigned>(Save::output)) != 0;
    node->saved_outputs_.push_back(keep ? SavedTensor{y.detach(), y.version()} : SavedTensor{});
    // An op may hand its input through (contiguous, to): the result must be a tensor of its own.
    if (y.impl()->autograd) y = y.detach();
    detail::AutogradMeta& meta = detail::autograd_of(y);
    if (is_floating(y.dtype())) {
      meta.node = node;
      meta.output = static_cast<int>(k);
    }
  }
  node->rule_ = std::move(rule);
}

void Node::check_kept() const {
  if (released_)
    throw GradError(fmt::format(
        "backward of {}: what it saved was freed by an earlier backward pass. Hint: pass "
        "retain_graph = true to that pass (or create_graph = true to grad), or run the "
        "forward pass again",
        where()));
}

const Node::SavedTensor& Node::saved(const std::vector<SavedTensor>& list,
                                     int i,
                                     const char* kind) const {
  check_kept();
  const SavedTensor& s = list.at(static_cast<std::size_t>(i));
  if (!s.value.defined())
    throw GradError(fmt::format(
        "backward of {}: {} {} was not saved. Hint: name it in the Save argument of record()",
        where(), kind, i));
  if (s.value.version() != s.version)
    throw GradError(fmt::format(
        "backward of {}: saved {} {} {} at version {}, now at version {}: it was changed in place "
        "after "
        "the forward pass. Hint: step the optimizer after backward, or copy before writing",
        where(), kind, i, s.value.shape().str(), s.version, s.value.version()));
  return s;
}

Tensor Saved::input(int i) const { return node_.saved(node_.saved_inputs_, i, "input").value; }

Tensor Saved::output(int i) const {
  Tensor y = node_.saved(node_.saved_outputs_, i, "output").value.detach();
  detail::AutogradMeta& meta = detail::autograd_of(y);
  meta.node = std::const_pointer_cast<Node>(node_.shared_from_this());
  meta.output = i;
  return y;
}

Tensor Node::input(int i) const { return saved(saved_inputs_, i, "input").value; }

Tensor Node::result(int k) const {
  Tensor y = detail::expanded_zero(outputs_.at(static_cast<std::size_t>(k)));
  detail::AutogradMeta& meta = detail::autograd_of(y);
  meta.node = std::const_pointer_cast<Node>(shared_from_this());
  meta.output = k;
  return y;
}

const Shape& Saved::shape(int i) const {
  return node_.inputs_.at(static_cast<std::size_t>(i)).shape;
}

bool Saved::needs(int i) const { return wanted_.at(static_cast<std::size_t>(i)); }

TensorList Node::apply(const TensorList& cotangents, const std::vector<bool>& wanted) const {
  check_kept();
  int order = order_ + 1;
  for (const Tensor& g : cotangents)
    if (g.defined() && g.grad_fn()) order = std::max(order, g.grad_fn()->order());
  const RuleGuard guard({id_, order});
  return rule_(Saved(*this, wanted), cotangents);
}

void Node::release() {
  if (is_leaf_) return;
  released_ = true;
  saved_inputs_.clear();
  saved_outputs_.clear();
}

namespace detail {

Tensor expanded_zero(const Node::Meta& m) {
  return strided_view(zeros({1}, m.dtype), m.shape, Dims::filled(m.shape.rank(), 0), 0);
}

namespace {
template <class List>
bool any_needs_grad(const List& inputs) {
  if (!is_grad_enabled()) return false;
  for (const Tensor& x : inputs)
    if (x.defined() && x.requires_grad()) return true;
  return false;
}
}  // namespace

bool must_record(const TensorList& inputs) { return any_needs_grad(inputs); }
bool must_record(TensorRefs inputs) { return any_needs_grad(inputs); }

}  // namespace detail
}  // namespace capsfw
