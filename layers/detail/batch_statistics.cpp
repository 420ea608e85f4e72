#include "batch_statistics.hpp"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>

namespace capsfw::detail {

void refuse_batch_statistics(const Tensor& values, const Tensor& x, std::string_view who) {
  if (!values.requires_grad() || values.is_leaf()) return;
  const Node* from = nullptr;
  if (x.defined() && x.requires_grad())
    from = x.is_leaf() ? Node::of_leaf(x).get() : x.grad_fn().get();
  std::vector<const Node*> order{values.grad_fn().get()};
  std::unordered_set<const Node*> seen{order[0]};
  for (std::size_t next = 0; next < order.size(); ++next)
    for (const Edge& e : order[next]->edges())
      if (e.node && (from == nullptr || e.node->id() > from->id()) &&
          seen.insert(e.node.get()).second)
        order.push_back(e.node.get());
  // From the oldest node upwards: those that depend on x.
  std::sort(order.begin(), order.end(),
            [](const Node* a, const Node* b) { return a->id() < b->id(); });
  std::unordered_set<const Node*> depends;
  for (const Node* node : order) {
    const bool below = std::any_of(node->edges().begin(), node->edges().end(), [&](const Edge& e) {
      return e.node && (e.node.get() == from || depends.contains(e.node.get()));
    });
    if (from != nullptr && !below) continue;
    depends.insert(node);
    if (node->name() == "batch_norm")
      throw GradError(fmt::format(
          "{}: samples must not depend on each other, but batch norm in training mode{} normalises "
          "each by the mean and variance of all: the gradient of one sample is not defined. Hint: "
          "eval() makes it use its running statistics; layer norm has no such mode",
          who, node->path().empty() ? "" : fmt::format(" ({})", node->path())));
  }
}

void check_per_sample(const Tensor& values, const Tensor& x, std::string_view who) {
  if (values.dim() != 1 || (x.defined() && (x.dim() < 1 || x.size(0) != values.size(0))))
    throw ShapeError(fmt::format(
        "{}: one value for each sample, [B]; got values {}{}. Hint: a loss before its mean", who,
        values.shape().str(), x.defined() ? fmt::format(" for x {}", x.shape().str()) : ""));
}

}  // namespace capsfw::detail
