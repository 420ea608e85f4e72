// Graphs as pictures, and what nodes know for them: the order, and the rule that recorded them.

#include <cstdio>
#include <memory>

#include <doctest/doctest.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/dot.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

Tensor leaf(const std::vector<double>& v) { return from_vector(v).requires_grad_(); }

Tensor recorded(const Tensor& y, const Tensor& x) { return grad(y, x, {}, {.create_graph = true}); }

int order(const Tensor& y) { return y.grad_fn()->order(); }

constexpr const char* kForward = "fillcolor=\"#dbeafe\"";
constexpr const char* kGradient = "fillcolor=\"#fde68a\"";
constexpr const char* kSecond = "fillcolor=\"#fbcfe8\"";

/// True if Graphviz reads the text; also where it is not installed.
bool graphviz_reads(const std::string& dot) {
  if (std::system("command -v dot >/dev/null") != 0) {
    MESSAGE("Graphviz is not installed: the text is not read back");
    return true;
  }
  std::FILE* pipe = popen("dot -Tsvg >/dev/null 2>&1", "w");
  REQUIRE(pipe != nullptr);
  std::fputs(dot.c_str(), pipe);
  return pclose(pipe) == 0;
}

}  // namespace

TEST_CASE("a node knows how many gradients deep it lies") {
  const Tensor x = leaf({0.5, -1}), w = leaf({2, 3});
  const Tensor y = sum(exp(x * w));
  CHECK(order(y) == 0);
  CHECK(Node::of_leaf(x)->order() == 0);
  const Tensor g = recorded(y, x);
  CHECK(order(g) == 1);
  const Tensor penalty = sum(square(g));  // outside of any rule, but made of a gradient
  CHECK(order(penalty) == 1);
  CHECK(penalty.grad_fn()->rule_of() == 0);
  const Tensor h = recorded(y + penalty, w);
  CHECK(order(y + penalty) == 1);
  CHECK(order(h) == 2);
  CHECK(order(recorded(sum(h), w)) == 3);
  // A forward op after all of this, and a pass over it, start again.
  CHECK(order(exp(x)) == 0);
  CHECK(order(recorded(sum(exp(x)), x)) == 1);
}

TEST_CASE("a node knows the rule that recorded it, and its order does not mix passes") {
  const Tensor x = leaf({0.5, -1});
  const Tensor t = tanh(x);
  const Tensor g = recorded(sum(t), x);
  CHECK(g.grad_fn()->rule_of() == t.grad_fn()->id());
  // The second pass comes through tanh again: 1 - tanh² is computed anew, and belongs to that pass.
  const Tensor h = recorded(sum(g), x);
  int again = 0;
  std::vector<std::shared_ptr<Node>> stack = {h.grad_fn()};
  while (!stack.empty()) {
    const auto node = stack.back();
    stack.pop_back();
    if (!node) continue;
    if (node->id() > g.grad_fn()->id() && node->rule_of() == t.grad_fn()->id()) {
      CHECK(node->order() == 2);
      ++again;
    }
    for (const Edge& e : node->edges()) stack.push_back(e.node);
  }
  CHECK(again > 0);
}

TEST_CASE("what a fused op replays belongs to its rule, one order up") {
  const auto reference = [](const TensorList& in) { return TensorList{exp(square(in[0]))}; };
  const Tensor x = leaf({0.5, -1});
  Tensor y;
  {
    const NoGradGuard no_grad;
    y = reference({x})[0];
  }
  y = record_fused(
      "twice", {x}, {y}, Save::none,
      [](const Saved&, const TensorList& gy) { return TensorList{gy[0]}; }, reference)[0];
  const Tensor g = recorded(sum(y), x);
  const std::string dot = to_dot({y, g}, {}, {{"x", x}});
  CHECK(count(dot, kForward) == 1);
  CHECK(count(dot, kSecond) == 0);
  CHECK(contains(dot, "label=\"rule of 2: twice\""));
  CHECK(contains(dot, ": alias\\n"));
  CHECK(contains(dot, ": square\\n"));
}

TEST_CASE("the rule of a node is forgotten when it throws") {
  const Tensor x = leaf({1});
  const Tensor bad = record("bad", {x}, x.detach() * 1.0, Save::none,
                            [](const Saved& s, const Tensor& gy) { return gy * s.input(0); });
  CHECK_THROWS_AS(recorded(sum(bad), x), GradError);
  CHECK(exp(x).grad_fn()->rule_of() == 0);
  CHECK(order(exp(x)) == 0);
}

TEST_CASE("a graph as DOT has ops, shapes, paths and the names of the parameters") {
  const Tensor w = ones({2, 3}).requires_grad_(), other = ones({3}).requires_grad_();
  Tensor y;
  {
    const Scope scope("fc\"1\"");
    y = sum(exp(w) + other);
  }
  const std::string dot =
      to_dot({y}, {{"fc1.weight", w}, {"not in the graph", ones({2})}, {"loss", y}});
  CHECK(dot.starts_with("digraph capsfw {"));
  CHECK(dot.ends_with("}\n"));
  CHECK(contains(dot, "label=\"fc1.weight\\n[2, 3]\""));
  CHECK(contains(dot, "label=\"leaf\\n[3]\""));
  CHECK(contains(dot, "label=\"2: exp\\n[2, 3]\""));
  CHECK(contains(dot, "penwidth=2.5, label=\"loss\\n6: reshape\\n[]\""));
  CHECK(contains(dot, "label=\"fc\\\"1\\\"\""));  // the frame of the path
  CHECK(count(dot, "subgraph") == 1);
  CHECK_FALSE(contains(dot, "not in the graph"));
  CHECK(count(dot, "shape=ellipse") == 2);
  CHECK(count(dot, "shape=box") == 4);  // exp, add, and sum over all: sum, reshape
  CHECK(count(dot, "->") == 5);
  CHECK(graphviz_reads(dot));
  CHECK(to_dot({ones({2})}) == to_dot({}));  // no graph: no nodes
  CHECK(graphviz_reads(to_dot({})));
  CHECK(contains(to_dot({w}, {{"w", w}}), "label=\"w\\n[2, 3]\""));
}

TEST_CASE("the DOT of a penalty and of its gradient tells three orders and their rules apart") {
  const Tensor x = leaf({0.5, -1}), w = leaf({2, 3});
  const Tensor y = sum(x * w);                         // mul, sum, reshape
  const Tensor penalty = sum(square(recorded(y, x)));  // mul, square, sum, reshape
  std::string dot = to_dot({y, penalty}, {{"w", w}}, {{"x", x}});
  CHECK(count(dot, kForward) == 3);
  CHECK(count(dot, kGradient) == 4);
  CHECK(count(dot, kSecond) == 0);
  CHECK(count(dot, "->") == 4 + 4);
  CHECK(contains(dot, "label=\"rule of 3: mul\""));
  CHECK(count(dot, "<td") == 4);  // the legend: input, parameter, forward, gradient
  CHECK(contains(dot, "fillcolor=\"#bbf7d0\", label=\"x\\n[2]\""));
  CHECK(contains(dot, "fillcolor=\"#e5e7eb\", label=\"w\\n[2]\""));

  dot = to_dot({y, penalty, recorded(penalty, w)}, {{"w", w}}, {{"x", x}});
  CHECK(count(dot, kForward) == 3);
  CHECK(count(dot, kGradient) == 4);
  CHECK(count(dot, kSecond) > 1);
  CHECK(count(dot, "<td") == 5);
  CHECK(graphviz_reads(dot));
}

TEST_CASE("DOT: results of one op have numbers, and names hold what they like") {
  const Tensor x = ones({2, 3}).requires_grad_();
  const TensorList rows = unbind(x, 0);
  const std::string name = "a \"b\" \\n <b>&amp;</b>\nünd {x|y}";
  const std::string dot = to_dot({rows[0] + exp(rows[1])}, {{name, x}, {"row 1", rows[1]}});
  CHECK(contains(dot, "[label=\"1\"]"));
  CHECK(contains(dot, "label=\"row 1\\n"));
  CHECK(contains(dot, "a \\\"b\\\" \\\\n <b>&amp;</b> ünd"));
  CHECK(graphviz_reads(dot));
  CHECK_FALSE((graphviz_reads("digraph {") && std::system("command -v dot >/dev/null") == 0));
}
