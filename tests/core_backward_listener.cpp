// Gradients that are complete before the backward pass is.

#include <algorithm>
#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/backward_listener.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;

TEST_CASE("backward() tells of a complete gradient while the pass goes on") {
  const Tensor a = from_vector<double>({1, 2}).requires_grad_(),
               b = from_vector<double>({3, 4}).requires_grad_(),
               unused = from_vector<double>({5}).requires_grad_();
  int hooked = 0;
  Tensor(b).register_hook([&](const Tensor& g) {
    ++hooked;
    return 2.0 * g;
  });
  const auto loss = [&] { return sum(exp(tanh(a) + a) * b); };
  backward(loss());
  const auto ga = a.grad().to_vector<double>(), gb = b.grad().to_vector<double>();
  CHECK(hooked == 1);
  for (const Tensor& x : {a, b}) Tensor(x).set_grad({});
  // Once more, now that the leaves have nodes older than all ops.
  const Tensor y = loss();
  struct Heard : BackwardListener {
    const Tensor& first;
    std::string text;
    explicit Heard(const Tensor& x) : first(x) {}
    void leaf_done(const Tensor& leaf) override {
      text += leaf.impl() == first.impl() ? 'a' : 'b';
      CHECK(leaf.grad().defined());
    }
    void rule_done() override { text += '.'; }
  } listener(a);
  {
    const BackwardListenerGuard guard(&listener);
    backward(y);
    grad(sum(a * b), a);
  }
  CHECK(hooked == 2);
  CHECK(a.grad().to_vector<double>() == ga);
  CHECK(b.grad().to_vector<double>() == gb);
  CHECK_FALSE(unused.grad().defined());
  // b behind the product, a behind the last op that uses it.
  CHECK(std::count(listener.text.begin(), listener.text.end(), 'b') == 1);
  CHECK(listener.text.ends_with("a."));
  CHECK(listener.text.find('b') < listener.text.size() - 4);
  backward(a.detach().requires_grad_() * 1.0, ones_like(a));  // nobody listens any more
}
