#include <capsfw/core/dot.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>

#include "tensor_impl.hpp"

namespace capsfw {
namespace {

// Dark text on light nodes, and a grey that can be read on white and on black around them. What is
// set for `graph` here holds for the frames.
constexpr std::string_view kHead = R"(digraph capsfw {
  graph [fontname="Helvetica,Arial,sans-serif", fontsize=11, fontcolor="#767676", color="#767676",
         style="rounded,dashed", labeljust=l, ranksep=0.3, bgcolor=transparent];
  node [fontname="Helvetica,Arial,sans-serif", fontsize=11, fontcolor="#111827", color="#767676",
        height=0.3, margin="0.1,0.05"];
  edge [fontname="Helvetica,Arial,sans-serif", fontsize=9, fontcolor="#767676", color="#767676",
        arrowsize=0.6];
)";
constexpr const char* kLeaf = "#e5e7eb";
constexpr const char* kInput = "#bbf7d0";

struct Order {
  const char *colour, *meaning;
};
constexpr std::array<Order, 4> kOrders = {{{"#dbeafe", "forward"},
                                           {"#fde68a", "gradient"},
                                           {"#fbcfe8", "gradient of a gradient"},
                                           {"#ddd6fe", "third order and above"}}};

const Order& order_of(const Node& node) {
  return kOrders.at(std::min<std::size_t>(static_cast<std::size_t>(node.order()), 3));
}

std::string escaped(std::string_view s) {
  std::string out;
  for (const char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

/// Where a tensor comes from: a node and which of its results.
using Place = std::pair<const Node*, int>;

class Picture {
 public:
  Picture(const TensorList& outputs, const NamedTensors& names, const NamedTensors& inputs) {
    for (const Tensor& y : outputs)
      if (has_history(y)) {
        collect(node_of(y));
        outputs_.insert(node_of(y).get());
      }
    std::sort(nodes_.begin(), nodes_.end(),
              [](const auto& a, const auto& b) { return a->id() < b->id(); });
    for (std::size_t i = 0; i < nodes_.size(); ++i) number_[nodes_[i]->id()] = i + 1;
    for (const auto* list : {&names, &inputs})
      for (const auto& [name, x] : *list)
        if (has_history(x)) names_[place_of(x)] = name;
    for (const auto& [name, x] : inputs)
      if (has_history(x)) inputs_.insert(node_of(x).get());
  }

  std::string str() const {
    std::string dot(kHead);
    std::map<std::string, std::string> frames;
    for (const auto& node : nodes_) frames[frame_of(*node)] += statement(*node);
    int frame = 0;
    for (const auto& [label, statements] : frames)
      dot += label.empty() ? statements
                           : fmt::format("  subgraph cluster_{} {{\n  label=\"{}\";\n{}  }}\n",
                                         ++frame, label, statements);
    for (const auto& node : nodes_)
      for (const Edge& e : node->edges())
        if (e.node) dot += arrow(e, *node);
    return dot + legend() + "}\n";
  }

 private:
  static bool has_history(const Tensor& x) { return x.defined() && x.requires_grad(); }
  static std::shared_ptr<Node> node_of(const Tensor& x) {
    return x.is_leaf() ? Node::of_leaf(x) : x.grad_fn();
  }
  static Place place_of(const Tensor& x) {
    return {node_of(x).get(), x.is_leaf() ? 0 : x.impl()->autograd->output};
  }

  void collect(const std::shared_ptr<Node>& root) {
    std::vector<std::shared_ptr<Node>> stack = {root};
    while (!stack.empty()) {
      const std::shared_ptr<Node> node = std::move(stack.back());
      stack.pop_back();
      if (!node || !number_.try_emplace(node->id()).second) continue;
      nodes_.push_back(node);
      for (const Edge& e : node->edges()) stack.push_back(e.node);
    }
  }

  std::size_t number(const Node& node) const { return number_.at(node.id()); }

  /// The frame's label, which tells it from the others; "" for none.
  std::string frame_of(const Node& node) const {
    if (node.is_leaf()) return "";
    if (node.rule_of() == 0) return escaped(node.path());
    const auto it = number_.find(node.rule_of());
    if (it == number_.end()) return "";  // the op is not in the picture
    const Node& op = *nodes_[it->second - 1];
    // A pass over a gradient applies rules of the forward pass once more.
    return fmt::format("rule of {}: {}{}", it->second, escaped(op.name()),
                       node.order() > op.order() + 1 ? ", again" : "");
  }

  std::string statement(const Node& node) const {
    std::string label;
    for (std::size_t k = 0; k < node.outputs().size(); ++k)
      if (const auto it = names_.find({&node, static_cast<int>(k)}); it != names_.end())
        label += fmt::format("{}\\n", escaped(it->second));
    if (!node.is_leaf())
      label += fmt::format("{}: {}\\n", number(node), escaped(node.name()));
    else if (label.empty())
      label += "leaf\\n";
    for (std::size_t k = 0; k < node.outputs().size(); ++k)
      label += fmt::format("{}{}", k == 0 ? "" : " ", node.outputs()[k].shape.str());
    const char* colour = !node.is_leaf()           ? order_of(node).colour
                         : inputs_.contains(&node) ? kInput
                                                   : kLeaf;
    return fmt::format("  n{} [shape={}, style=\"{}\", fillcolor=\"{}\"{}, label=\"{}\"];\n",
                       number(node), node.is_leaf() ? "ellipse" : "box",
                       node.is_leaf() ? "filled" : "filled,rounded", colour,
                       outputs_.contains(&node) ? ", penwidth=2.5" : "", label);
  }

  std::string arrow(const Edge& from, const Node& to) const {
    const std::string which =
        from.node->outputs().size() > 1 ? fmt::format(" [label=\"{}\"]", from.output) : "";
    return fmt::format("  n{} -> n{}{};\n", number(*from.node), number(to), which);
  }

  /// One cell for each kind of node; nothing if there is one kind only.
  std::string legend() const {
    std::vector<std::pair<const char*, const char*>> cells;
    const auto any = [&](const auto& is) {
      return std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& n) { return is(*n); });
    };
    if (any([&](const Node& n) { return inputs_.contains(&n); }))
      cells.emplace_back(kInput, "input");
    if (any([&](const Node& n) { return n.is_leaf() && !inputs_.contains(&n); }))
      cells.emplace_back(kLeaf, "parameter");
    for (const Order& order : kOrders)
      if (any([&](const Node& n) { return !n.is_leaf() && &order_of(n) == &order; }))
        cells.emplace_back(order.colour, order.meaning);
    if (cells.size() < 2) return "";
    std::string row;
    for (const auto& [colour, meaning] : cells)
      row +=
          fmt::format("<td bgcolor=\"{}\"><font color=\"#111827\">{}</font></td>", colour, meaning);
    return fmt::format(
        "  labelloc=b;\n  labeljust=c;\n  label=<<table border=\"0\" cellborder=\"0\" "
        "cellspacing=\"4\" "
        "cellpadding=\"4\"><tr>{}</tr></table>>;\n",
        row);
  }

  std::vector<std::shared_ptr<Node>> nodes_;               // in the order of recording
  std::unordered_map<std::uint64_t, std::size_t> number_;  // by id, from 1
  std::map<Place, std::string> names_;
  std::set<const Node*> inputs_, outputs_;
};

}  // namespace

std::string to_dot(const TensorList& outputs,
                   const NamedTensors& names,
                   const NamedTensors& inputs) {
  return Picture(outputs, names, inputs).str();
}

}  // namespace capsfw
