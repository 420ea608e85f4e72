// The engine: long chains, hooks, several outputs, leaks, threads.

#include <thread>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;

namespace {

Tensor leaf(const Doubles& v) { return from_vector(v).requires_grad_(); }

/// Counts what is alive, to compare at the end.
struct Census {
  std::int64_t nodes = live_nodes(), tensors = live_tensors();
  bool holds() const { return nodes == live_nodes() && tensors == live_tensors(); }
};

}  // namespace

TEST_CASE("a chain of 200,000 nodes is built, differentiated and freed without recursion") {
  // Frames are larger under a sanitizer: a fourth of them overflows a stack as well.
  constexpr int kNodes = testing::kSanitized ? 50'000 : 200'000;
  const Census census;
  {
    const Tensor x = scalar(1, DType::f64).requires_grad_();
    Tensor y = x;
    for (int k = 0; k < kNodes; ++k) y = y + 1e-5;
    CHECK(live_nodes() >= census.nodes + kNodes);
    CHECK(grad(y, x).item() == 1);
    Tensor z = x;
    for (int k = 0; k < kNodes; ++k) z = z * 0.99999;  // saves its inputs: another way to be freed
    backward(z);
    CHECK(x.grad().item() == doctest::Approx(std::pow(0.99999, kNodes)).epsilon(1e-9));
  }
  CHECK(census.holds());
}

TEST_CASE("a recorded gradient of a long chain is freed as well") {
  const Census census;
  {
    const Tensor x = scalar(0.5, DType::f64).requires_grad_();
    Tensor y = x;
    for (int k = 0; k < 20000; ++k) y = y * 1.00001;
    const Tensor g = grad(y * y, x, {}, {.create_graph = true});
    CHECK(grad(g, x).item() == doctest::Approx(2 * std::pow(1.00001, 40000)).epsilon(1e-9));
  }
  CHECK(census.holds());
}

TEST_CASE("nothing leaks: values, gradients of two orders, hooks, retained gradients, errors") {
  const Census census;
  for (int k = 0; k < 3; ++k) {
    const Tensor x = leaf({1, 2}), w = leaf({3, 4});
    Tensor h = x * w;
    h.retain_grad();
    h.register_hook([](const Tensor& g) { return g * 2.0; });
    const Tensor y = sum(exp(h * 0.1));
    backward(y, {}, true);
    const Tensor g = grad(y, x, {}, {.create_graph = true});
    backward(sum(g * g));
    CHECK_THROWS_AS(grad(y, y * y), GradError);
    const Tensor unused = sum(sort(h).values);
  }
  CHECK(census.holds());
}

TEST_CASE("hooks see the complete gradient and may replace it") {
  const Tensor x = leaf({1, 2});
  Tensor h = x * 3.0;
  Doubles seen;
  h.register_hook([&](const Tensor& g) {
    seen = values(g);
    return Tensor();
  });
  h.register_hook([](const Tensor& g) { return g * 10.0; });
  CHECK(values(grad(sum(h * h) + sum(h), x)) == Doubles{30 * 7, 30 * 13});
  CHECK(seen == Doubles{7, 13});
  CHECK_FALSE(x.grad().defined());
  CHECK_THROWS_AS(ones({2}).register_hook([](const Tensor& g) { return g; }), GradError);
}

TEST_CASE("a hook on a leaf runs once, whether it was set before or after the leaf was used") {
  for (const bool before : {true, false}) {
    CAPTURE(before);
    Tensor x = leaf({1, 2});
    int calls = 0;
    const auto hook = [&](const Tensor& g) {
      ++calls;
      return g * -1.0;
    };
    if (before) x.register_hook(hook);
    const Tensor y = sum(x * x) + sum(x);
    if (!before) x.register_hook(hook);
    backward(y);
    CHECK(calls == 1);
    CHECK(values(x.grad()) == Doubles{-3, -5});
  }
}

TEST_CASE("a hook may add and remove hooks, itself as well") {
  const Tensor x = leaf({1, 2});
  int first = 0, later = 0;
  Tensor leaf_of_all = x;
  leaf_of_all.register_hook([&](const Tensor&) {
    ++first;
    Node::of_leaf(x)->hooks().clear();
    for (int k = 0; k < 10; ++k)
      leaf_of_all.register_hook([&](const Tensor&) {
        ++later;
        return Tensor();
      });
    return Tensor();
  });
  backward(sum(x * x));
  CHECK(first == 1);
  CHECK(later == 0);
  backward(sum(x * x));
  CHECK(first == 1);
  CHECK(later == 10);
}

TEST_CASE("retained gradients have memory of their own") {
  const Tensor x = leaf({1, 2}), gy = from_vector<double>({3, 4});
  Tensor a = x * 2.0, b = a + 1.0;
  a.retain_grad();
  b.retain_grad();
  backward(b, gy);
  a.grad().fill_(7);
  CHECK(values(b.grad()) == Doubles{3, 4});
  CHECK(values(gy) == Doubles{3, 4});
  Tensor c = x * 1.0;
  c.retain_grad();
  backward(sum(c));
  CHECK(c.grad().is_contiguous());
}

TEST_CASE("a saved input of a graph that is used up is an error that says so") {
  const Tensor x = leaf({1, 2}), y = sum(x * x);
  const auto node = y.grad_fn();
  backward(y);
  CHECK(contains(message_of<GradError>([&] { node->input(0); }), "freed by an earlier backward"));
}

TEST_CASE("a hook that returns another shape is an error that says so") {
  const Tensor x = leaf({1, 2});
  Tensor h = x * x;
  h.register_hook([](const Tensor&) { return scalar(1, DType::f64); });
  const std::string text = message_of<GradError>([&] { grad(sum(h), x); });
  CHECK(contains(text, "hook"));
  CHECK(contains(text, "[2]"));
}

TEST_CASE("retain_grad leaves the gradient of an intermediate tensor in backward, not in grad") {
  const Tensor x = leaf({1, 2});
  Tensor h = x * 3.0;
  h.retain_grad();
  const Tensor y = sum(h * h);
  grad(y, x, {}, {.retain_graph = true});
  CHECK_FALSE(h.grad().defined());
  backward(y);
  CHECK(values(h.grad()) == Doubles{6, 12});
  CHECK(values(x.grad()) == Doubles{18, 36});
  CHECK_THROWS_AS(ones({2}).retain_grad(), GradError);
}

TEST_CASE("an op with several results, of which only some are used") {
  const Tensor x = leaf({1, 2, 3, 4});
  const auto two = [](const Tensor& v) {  // (2 v, 3 v) as one node
    return record_many(
        "two", {v}, {v.detach() * 2.0, v.detach() * 3.0}, Save::none,
        [](const Saved&, const TensorList& g) -> TensorList { return {g[0] * 2.0 + g[1] * 3.0}; });
  };
  const TensorList y = two(x);
  CHECK(y[0].grad_fn() == y[1].grad_fn());
  CHECK(values(grad({sum(y[0]), sum(y[1])}, {x}, {}, {.retain_graph = true})[0]) == Doubles(4, 5));
  CHECK(values(grad(sum(y[1]), x)) == Doubles(4, 3));  // the other cotangent arrives as zeros
}

TEST_CASE("an undefined gradient from a rule stands for zero") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor y = record("first_only", {a, b}, a.detach() + b.detach(), Save::none,
                          [](const Saved&, const Tensor& g) {
                            return TensorList{g, Tensor()};
                          });
  const TensorList g = grad({sum(y)}, {a, b}, {}, {.allow_unused = true});
  CHECK(values(g[0]) == Doubles{1, 1});
  CHECK_FALSE(g[1].defined());
}

TEST_CASE("a rule is asked only for the gradients that this pass needs") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  std::vector<bool> asked;
  const auto product = [&] {
    return record("watched", {a, b}, a.detach() * b.detach(), Save::inputs,
                  [&](const Saved& s, const Tensor& g) {
                    asked = {s.needs(0), s.needs(1)};
                    return TensorList{s.needs(0) ? g * s.input(1) : Tensor(),
                                      s.needs(1) ? g * s.input(0) : Tensor()};
                  });
  };
  CHECK(values(grad(sum(product()), b)) == Doubles{1, 2});
  CHECK(asked == std::vector<bool>{false, true});
  // The gradient that was asked for still depends on the input that was not.
  const Tensor gb = grad(sum(square(product())), b, {}, {.create_graph = true});  // 2 a² b
  CHECK(values(grad(sum(gb), a)) == Doubles{12, 32});                             // 4 a b
  backward(sum(product()));
  CHECK(asked == std::vector<bool>{true, true});
  CHECK(values(a.grad()) == Doubles{3, 4});
}

TEST_CASE("backward leaves alone a leaf that was switched off since") {
  Tensor a = leaf({1, 2});
  const Tensor b = leaf({3, 4}), y = sum(a * b);
  a.requires_grad_(false);
  backward(y);
  CHECK_FALSE(a.grad().defined());
  CHECK(values(b.grad()) == Doubles{1, 2});
}

TEST_CASE("a leaf may die before the backward pass") {
  const Tensor x = leaf({1, 2});
  Tensor y;
  {
    const Tensor gone = leaf({5, 6});
    y = sum(x * gone + gone);
  }
  backward(y);
  CHECK(values(x.grad()) == Doubles{5, 6});
}

TEST_CASE("a result may die before the backward pass of what was made of it") {
  const Tensor x = leaf({1, 2});
  Tensor y = exp(x);
  y = y * y;
  y = sum(y);
  CHECK(values(grad(y, x))[0] == doctest::Approx(2 * std::exp(2.0)));
}

TEST_CASE("integer results take no part in the graph") {
  const Tensor x = leaf({3, 1, 2});
  const Sorted s = sort(x);
  CHECK(s.values.requires_grad());
  CHECK_FALSE(s.indices.requires_grad());
  CHECK_FALSE(argmax(x, 0).requires_grad());
  CHECK_FALSE(gt(x, 0.0).requires_grad());
  CHECK_FALSE(to(x, DType::i64).requires_grad());
}

TEST_CASE("a rule that returns the wrong shape, type or number of gradients is named") {
  const Tensor x = leaf({1, 2, 3});
  const auto with_rule = [&](auto rule) {
    return message_of<GradError>([&] {
      const Tensor y = record("mine", {x}, x.detach(), Save::none, rule);
      grad(sum(y), x);
    });
  };
  CHECK(with_rule([](const Saved&, const Tensor&) { return ones({2}, DType::f64); }) ==
        "backward of 'mine': expected a gradient of shape [3] for input 0, the rule returned [2]");
  CHECK(with_rule([](const Saved&, const Tensor&) { return ones({3}); }) ==
        "backward of 'mine': the gradient for input 0 must be f64, the rule returned f32");
  CHECK(with_rule([](const Saved&, const Tensor& g) {
          return TensorList{g, g};
        }) == "backward of 'mine': the rule must return one gradient per input; expected 1, got 2");
  CHECK(contains(with_rule([](const Saved& s, const Tensor&) { return s.input(0); }),
                 "input 0 was not saved. Hint: name it in the Save argument"));
}

TEST_CASE("an exception in a rule or hook leaves the engine usable and the mode unchanged") {
  const Tensor x = leaf({1, 2});
  Tensor h = x * x;
  bool angry = true;
  h.register_hook([&](const Tensor&) -> Tensor {
    if (angry) throw ValueError("no");
    return {};
  });
  const Tensor y = sum(h);
  CHECK_THROWS_AS(grad(y, x, {}, {.retain_graph = true}), ValueError);
  CHECK(is_grad_enabled());
  angry = false;
  CHECK(values(grad(y, x)) == Doubles{2, 4});
}

TEST_CASE("two threads run independent passes at once") {
  const auto work = [](double start, std::string& bits) {
    Rng rng(3);
    const Tensor x = randn({40, 500}, rng, DType::f64).requires_grad_();
    for (int k = 0; k < 20; ++k) {
      const Tensor g = grad(sum(exp(x * start) * x), x, {}, {.create_graph = true});
      bits = bytes_of(grad(sum(g * g), x));
    }
  };
  std::string alone, first, second, other;
  work(0.1, alone);
  const Threads guard(3);
  std::thread a(work, 0.1, std::ref(first)), b(work, 0.2, std::ref(other)),
      c(work, 0.1, std::ref(second));
  a.join();
  b.join();
  c.join();
  CHECK(first == alone);
  CHECK(second == alone);
  CHECK(other != alone);
}

TEST_CASE("recording is a matter of each thread") {
  const NoGradGuard off;
  bool other = false;
  std::thread([&] { other = is_grad_enabled(); }).join();
  CHECK(other);
  CHECK_FALSE(is_grad_enabled());
}

TEST_CASE("a long chain of ops whose closures hold tensors is freed without recursion") {
  const std::int64_t nodes = live_nodes(), tensors = live_tensors();
  {
    Tensor x = scalar(1.0, DType::f64).requires_grad_();
    Tensor y = x;
    for (int i = 0; i < 100000; ++i) {
      const Tensor before = y;  // the closure is what keeps the chain alive
      y = custom_vjp(
          "hold", {x},
          [](const TensorList& in) { return TensorList{cast_data(in[0], DType::f64)}; },
          [before](const TensorList&, const TensorList&, const TensorList& g) { return g; })[0];
    }
    CHECK(grad(y, x).item() == 1.0);
  }
  CHECK(live_nodes() == nodes);
  CHECK(live_tensors() == tensors);
}
