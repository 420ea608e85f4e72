#include <capsfw/core/dot.hpp>

#include <unordered_map>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>

namespace capsfw {
namespace {

std::string escaped(std::string_view s) {
  std::string out;
  for (char c : s) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

std::string to_dot(const TensorList& outputs,
                   const std::vector<std::pair<std::string, Tensor>>& names) {
  std::unordered_map<const Node*, std::string> leaf_names;
  for (const auto& [name, x] : names)
    if (x.defined() && x.requires_grad() && x.is_leaf()) leaf_names[Node::of_leaf(x).get()] = name;

  std::unordered_map<const Node*, int> index;
  std::vector<std::shared_ptr<Node>> found;
  const auto visit = [&](const std::shared_ptr<Node>& n) {
    if (n && index.try_emplace(n.get(), static_cast<int>(found.size())).second) found.push_back(n);
  };
  std::string dot = "digraph capsfw {\n  rankdir=BT;\n  node [fontname=\"sans-serif\"];\n";
  for (const Tensor& y : outputs)
    if (y.defined() && y.requires_grad()) visit(y.is_leaf() ? Node::of_leaf(y) : y.grad_fn());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::shared_ptr<Node> node = found[i];
    const std::string shape = node->outputs().empty() ? "" : node->outputs()[0].shape.str();
    if (node->is_leaf()) {
      const auto it = leaf_names.find(node.get());
      dot += fmt::format(
          "  n{} [shape=ellipse, style=filled, fillcolor=lightyellow, label=\"{}\\n{}\"];\n", i,
          it == leaf_names.end() ? "leaf" : escaped(it->second), shape);
    } else {
      const std::string path = node->path().empty() ? "" : "\\n" + escaped(node->path());
      dot += fmt::format("  n{} [shape=box, label=\"{}{}\\n{}\"];\n", i, escaped(node->name()),
                         path, shape);
    }
    for (const Edge& e : node->edges()) {
      visit(e.node);
      if (e.node) dot += fmt::format("  n{} -> n{};\n", index.at(e.node.get()), i);
    }
  }
  return dot + "}\n";
}

}  // namespace capsfw
