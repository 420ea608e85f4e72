#include <capsfw/layers/per_sample.hpp>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/agreement.hpp"
#include "detail/batch_statistics.hpp"

namespace capsfw {
namespace {

/// A parameter, as it is or under another shape.
struct View {
  std::size_t param = 0;
  bool transposed = false;
};

/// An op that reads a parameter.
struct Use {
  const Node* node = nullptr;
  int input = 0;
  View view = {};
  bool samples = false;  // the op's result has the samples in front
};

/// What there is to say about a parameter.
struct Param {
  std::string name;
  Tensor value;
  const Conv2d* conv = nullptr;  // that it is a weight or bias of
};

/// Squared lengths of rows [n, ...] -> [n].
Tensor squares(const Tensor& x, std::int64_t n) {
  return sum(square(reshape(x, {n, x.numel() / std::max<std::int64_t>(n, 1)})), {1});
}

Shape with_batch(std::int64_t batch, const Shape& shape) {
  Shape out = shape;
  out.insert(0, batch);
  return out;
}

constexpr std::string_view kEinsum = "einsum ";  // and its equation

/// Computes gradients of one use from the gradient `delta` of the op's result.
class PerSample {
 public:
  PerSample(std::int64_t batch, const Param& param, const Use& use, const Tensor& delta)
      : batch_(batch), param_(param), use_(use), node_(*use.node), delta_(delta) {}

  /// ∇_p f_b [B, p.shape...].
  Tensor gradient() const {
    if (!use_.samples) refuse();
    const std::string& op = node_.name();
    if ((op == "matmul" || op == "linear") && use_.input == 1 &&
        node_.inputs()[1].shape.rank() == 2)
      return product();
    if (op == "linear" && use_.input == 2 && !use_.view.transposed)
      return sum(by_sample(delta_), {1});
    if (op == "conv2d" && param_.conv != nullptr) return convolution();
    if (detail::routes_product(node_) && use_.input == 1 && !use_.view.transposed) return votes();
    if (is_einsum() && !use_.view.transposed) return contraction();
    if (op == "batch_norm_running" && use_.input < 3 && !use_.view.transposed) return scale();
    if ((op == "add" || op == "sub" || op == "mul") && !use_.view.transposed) return elementwise();
    refuse();
  }

  /// ‖∇_p f_b‖² [B] where it can be had without the gradient itself.
  std::optional<Tensor> square_norms() const {
    if (!use_.samples) return std::nullopt;
    const std::string& op = node_.name();
    const Shape& x = node_.inputs()[0].shape;
    if ((op == "matmul" || op == "linear") && use_.input == 1 && x.rank() == 2 && x[0] == batch_ &&
        node_.inputs()[1].shape.rank() == 2)
      return squares(node_.input(0), batch_) * squares(delta_, batch_);
    if (use_.input == 1 && !use_.view.transposed && owns_children()) {
      const Tensor u = children();
      const std::int64_t i = u.size(1);
      return sum(reshape(squares(u, batch_ * i) * squares(delta_, batch_ * i), {batch_, i}), {1});
    }
    return std::nullopt;
  }

 private:
  [[noreturn]] void refuse() const {
    throw GradError(fmt::format(
        "per_sample: parameter '{}' {} is used by {}, for which the gradient of one sample is not "
        "known here. Hint: param_gradient_penalty_per_sample of a function takes any model, sample "
        "by sample",
        param_.name, param_.value.shape().str(), node_.where()));
  }

  bool is_einsum() const { return node_.name().starts_with(kEinsum); }

  /// [rows, ...] as [B, rows / B, ...]: samples are the slowest axis.
  Tensor by_sample(const Tensor& x) const {
    if (x.dim() < 1 || batch_ == 0 || x.size(0) % batch_ != 0) refuse();
    Shape shape = x.shape();
    shape[0] = x.size(0) / batch_;
    return reshape(x, with_batch(batch_, shape));
  }

  Tensor product() const {  // y = x wᵀ or x w
    const Tensor x = node_.input(0);
    if (x.dim() < 2) refuse();
    const Tensor xs = by_sample(flatten(x, 0, -2)), ds = by_sample(flatten(delta_, 0, -2));
    const Tensor g = use_.view.transposed != (node_.name() == "linear") ? matmul(transpose(ds), xs)
                                                                        : matmul(transpose(xs), ds);
    return reshape(g, with_batch(batch_, param_.value.shape()));
  }

  /// Of an einsum whose other operand and whose result have the samples in front.
  Tensor contraction() const {
    const std::string equation = node_.name().substr(kEinsum.size());
    const std::size_t comma = equation.find(','), arrow = equation.find("->");
    std::string mine = equation.substr(0, comma),
                other = equation.substr(comma + 1, arrow - comma - 1),
                result = equation.substr(arrow + 2);
    if (use_.input == 1) std::swap(mine, other);
    const std::string sample = other.substr(0, 1);
    if (sample.empty() || !result.starts_with(sample) || mine.find(sample) != std::string::npos)
      refuse();
    Tensor x = node_.input(1 - use_.input), d = delta_;
    if (x.size(0) != batch_) {  // several rows of a sample
      std::string free = "a";
      while (equation.find(free) != std::string::npos) ++free[0];
      x = by_sample(x), d = by_sample(d);
      other.insert(1, free), result.insert(1, free);
    }
    for (const char axis : mine)  // summed before it met the samples
      if (other.find(axis) == std::string::npos && result.find(axis) == std::string::npos) refuse();
    const Tensor g = einsum(result + "," + other + "->" + sample + mine, d, x);
    return reshape(g, with_batch(batch_, param_.value.shape()));
  }

  Tensor convolution() const {
    if (use_.input == 2) return sum(delta_, {2, 3});
    // Samples as groups of channels: each group has its own weight.
    const Tensor x = node_.input(0);
    ConvOptions options = param_.conv->geometry();
    options.groups *= batch_;
    const Tensor g =
        conv2d_weight(reshape(x, {1, batch_ * x.size(1), x.size(2), x.size(3)}),
                      reshape(delta_, {1, batch_ * delta_.size(1), delta_.size(2), delta_.size(3)}),
                      {param_.value.size(2), param_.value.size(3)}, options);
    return reshape(g, with_batch(batch_, param_.value.shape()));
  }

  Tensor children() const {
    return detail::routes_product(node_) ? detail::children_of(node_) : node_.input(0);
  }

  /// Votes with a weight for each child: W [I, ...] (votes_full, or the lower part of
  /// votes_factorised), one row for each sample.
  bool owns_children() const {
    const std::string& op = node_.name();
    const bool full = detail::routes_product(node_)
                          ? node_.inputs()[1].shape.rank() == 4
                          : op == "einsum bie,ijde->bijd" || op == "einsum bie,ime->bim";
    return full && delta_.size(0) == batch_;
  }

  /// Of votes that the op does not store: `delta` is their gradient [B, I, J, D].
  Tensor votes() const {
    const Tensor u = children();
    const bool full = node_.inputs()[1].shape.rank() == 4;
    const Tensor g =
        einsum(full ? "bkijd,bkie->bijde" : "bkijd,bkie->bjde", by_sample(delta_), by_sample(u));
    return reshape(g, with_batch(batch_, param_.value.shape()));
  }

  /// Of gamma (input 1) or beta (2) of a batch norm with running statistics.
  Tensor scale() const {
    const Tensor x = node_.input(0);
    Tensor g = delta_;
    Shape each = Dims::filled(x.dim(), 1);
    each[1] = x.size(1);
    if (use_.input == 1)
      g = g * (x - reshape(node_.input(3), each)) * reshape(node_.input(4), each);
    each[0] = batch_;
    if (g.size(0) != batch_) refuse();
    return reshape(sum_to(g, each), {batch_, x.size(1)});
  }

  Tensor elementwise() const {
    const Shape& shape = node_.inputs()[static_cast<std::size_t>(use_.input)].shape;
    Tensor g = delta_;
    if (node_.name() == "mul") g = g * node_.input(1 - use_.input);
    if (node_.name() == "sub" && use_.input == 1) g = neg(g);
    if (g.size(0) != batch_) g = by_sample(g);
    Shape target = Dims::filled(g.dim(), 1);  // `shape` at the end, the batch in front
    if (shape.rank() > g.dim() || (shape.rank() == g.dim() && shape[0] != 1)) refuse();
    for (int i = 1; i <= shape.rank(); ++i) target[g.dim() - i] = shape[shape.rank() - i];
    target[0] = batch_;
    return reshape(sum_to(g, target), with_batch(batch_, param_.value.shape()));
  }

  std::int64_t batch_;
  const Param& param_;
  const Use& use_;
  const Node& node_;
  const Tensor& delta_;
};

/// Whether all samples share input `i` of an op whose result has them in front: it is a weight, and
/// rows of what makes a weight of parameters (`v * g`, `a b`) are no samples, however many there
/// are.
bool is_weight(const Node& node, std::size_t i) {
  const std::string& op = node.name();
  const Shape& shape = node.inputs()[i].shape;
  if (op == "matmul") return i == 1 && shape.rank() == 2;
  if (op == "linear" || op == "conv2d" || op == "batch_norm_running") return i >= 1;
  if (detail::routes_product(node)) return i == 1;
  if (op.starts_with(kEinsum)) {
    const std::size_t comma = op.find(','), arrow = op.find("->");
    const std::string mine = i == 0 ? op.substr(kEinsum.size(), comma - kEinsum.size())
                                    : op.substr(comma + 1, arrow - comma - 1);
    return mine.find(op.substr(arrow + 2, 1)) == std::string::npos;
  }
  return false;
}

/// Ops whose result has the samples in front, as `values` have.
std::unordered_set<const Node*> ops_of_samples(const Tensor& values) {
  std::vector<const Node*> open{values.grad_fn().get()};
  std::unordered_set<const Node*> seen{open[0]};
  while (!open.empty()) {
    const Node& node = *open.back();
    open.pop_back();
    for (std::size_t i = 0; i < node.edges().size(); ++i) {
      const Node* from = node.edges()[i].node.get();
      if (from != nullptr && !is_weight(node, i) && seen.insert(from).second) open.push_back(from);
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
    const Tensor s = quick ? *quick : squares(total(uses), values.size(0));
    sums = sums.defined() ? sums + s : s;
  });
  return sums.defined() ? sums : zeros(values.shape(), values.dtype());
}

}  // namespace capsfw
