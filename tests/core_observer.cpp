// What an observer hears of ops and of backward passes.

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/observer.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;

namespace {

struct Listener : OpObserver {
  std::vector<std::string> heard;
  void op_done(std::string_view name, const TensorList& in, const TensorList& out) override {
    heard.emplace_back(name);
    if (!out.empty() && !in.empty() && out[0].storage() == in[0].storage())
      heard.back() += "(view)";
  }
  void rule_begins(const Node& node) override { heard.push_back("+" + node.name()); }
  void rule_done(const Node& node) override { heard.push_back("-" + node.name()); }
};

using Names = std::vector<std::string>;

std::string joined(const Names& names) {
  std::string text;
  for (const std::string& n : names) text += (text.empty() ? "" : " ") + n;
  return text;
}

}  // namespace

TEST_CASE("an observer hears of ops in their order, recorded or not") {
  const Tensor x = from_vector<double>({1, 2, 3});
  Listener all, inner;
  {
    const ObserverGuard guard(&all);
    exp(x);
    {
      const ObserverGuard nested(&inner);
      tanh(x);
    }
    const NoGradGuard no_grad;
    sum(x * x);
  }
  exp(x);  // nobody listens any more
  CHECK(joined(all.heard) == "exp mul sum_to sum reshape(view)");
  CHECK(joined(inner.heard) == "tanh");
}

TEST_CASE("an observer hears when rules begin and end, with the ops that they are made of") {
  const Tensor x = from_vector<double>({1, 2, 3}).requires_grad_();
  const Tensor y = sum(exp(x));
  Listener listener;
  {
    const ObserverGuard guard(&listener);
    backward(y);
  }
  CHECK(joined(listener.heard) ==
        "+reshape reshape(view) -reshape +sum broadcast_to(view) -sum +exp mul -exp");
}

TEST_CASE("a fused op is one op, and in the gradient of its gradient one replay") {
  const Tensor s = from_vector<double>({1, 2, 3, 4}, {2, 2}).requires_grad_();
  Listener listener;
  const ObserverGuard guard(&listener);
  const Tensor v = squash(s);
  REQUIRE(joined(listener.heard) == "squash");
  grad(sum(v), s, {}, {.create_graph = true});
  int depth = 0, deepest = 0;
  for (const std::string& h : listener.heard) {
    depth += h[0] == '+' ? 1 : h[0] == '-' ? -1 : 0;
    deepest = std::max(deepest, depth);
  }
  CHECK(depth == 0);
  CHECK(deepest == 2);  // rules of the replayed graph within the rule of squash
}

TEST_CASE("an op of the user's own is announced by its name") {
  const Tensor x = from_vector<double>({1, 2, 3}).requires_grad_();
  Listener listener;
  const ObserverGuard guard(&listener);
  custom_vjp(
      "mine", {x}, [](const TensorList& in) { return TensorList{exp(in[0])}; },
      [](const TensorList&, const TensorList& out, const TensorList& gy) {
        return TensorList{gy[0] * out[0]};
      });
  CHECK(joined(listener.heard) == "exp mine");
}

TEST_CASE("fused routing is one op to an observer, although it uses others inside") {
  Rng rng(1);
  const Tensor votes = randn({2, 6, 3, 4}, rng).requires_grad_();
  Listener listener;
  const ObserverGuard guard(&listener);
  dynamic_routing(votes);
  CHECK(joined(listener.heard) == "dynamic_routing");
}
