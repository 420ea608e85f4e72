// checkpoint, custom_vjp and replay.

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;

namespace {

TensorList block(const TensorList& in) {  // two results of two inputs
  const Tensor h = tanh(matmul(in[0], in[1]));
  return {exp(h * 0.3) * h, sum(h * h)};
}

/// Value, first and second derivatives of a scalar made of f(x, w).
TensorList derivatives(const Function& f, const Tensor& x, const Tensor& w) {
  const TensorList y = f({x, w});
  const Tensor loss = sum(square(y[0])) * y[1];
  TensorList g = grad({loss}, {x, w}, {}, {.create_graph = true});
  const TensorList second = grad({sum(g[0] * g[0]) + sum(sin(g[1]))}, {x, w});
  return {y[0], y[1], g[0], g[1], second[0], second[1]};
}

}  // namespace

TEST_CASE("a checkpoint equals the plain function to second order") {
  Rng rng(1);
  const Tensor x = randn({3, 4}, rng, DType::f64).requires_grad_(),
               w = randn({4, 5}, rng, DType::f64).requires_grad_();
  const TensorList plain = derivatives(block, x, w);
  const TensorList saved =
      derivatives([](const TensorList& in) { return checkpoint(block, in); }, x, w);
  for (std::size_t k = 0; k < plain.size(); ++k) {
    CAPTURE(k);
    CHECK(max_difference(plain[k], saved[k]) <= 1e-12 * largest(plain[k]));
  }
  // A gradient for x alone depends on w all the same.
  const auto mixed = [&](const TensorList& y) {
    return grad(sum(square(grad(y[1], x, {}, {.create_graph = true}))), w);
  };
  CHECK(max_difference(mixed(block({x, w})), mixed(checkpoint(block, {x, w}))) <= 1e-12);
  const Tensor fixed = x.detach();
  CHECK_FALSE(checkpoint(block, {fixed, w.detach()})[0].requires_grad());
  const Tensor g = grad(checkpoint(block, {fixed, w})[1], w);
  CHECK(max_difference(g, grad(block({fixed, w})[1], w)) < 1e-14);
}

TEST_CASE("a checkpoint refuses what would get no gradient: captured tensors, undefined inputs") {
  const Tensor x = ones({3}, DType::f64).requires_grad_(),
               w = ones({3}, DType::f64).requires_grad_();
  const Tensor y =
      sum(checkpoint([&](const TensorList& in) { return TensorList{in[0] * (w * 2.0)}; }, {x})[0]);
  CHECK(message_of<GradError>([&] { backward(y); }) ==
        "checkpoint: the function uses a tensor [3] that requires a "
        "gradient and is not among its inputs: it would get none. Hint: pass parameters as inputs, "
        "too");
  const Tensor fixed = w.detach();
  const Function f = [&](const TensorList& in) { return TensorList{in[0] * fixed}; };
  CHECK(values(grad(sum(checkpoint(f, {x})[0]), x)) == Doubles{1, 1, 1});
  CHECK(values(grad(sum(checkpoint(f, {x * 2.0})[0]), x, {}, {.create_graph = true})) ==
        Doubles{2, 2, 2});
  CHECK(contains(message_of<ValueError>([&] {
                   checkpoint(f, {x.detach(), Tensor()});
                 }),
                 "checkpoint: input 1 is undefined"));
}

TEST_CASE("a checkpoint keeps less memory alive and frees what it ran again") {
  Rng rng(1);
  const Tensor x = randn({200, 500}, rng).requires_grad_();
  const Function deep = [](const TensorList& in) -> TensorList {
    Tensor y = in[0];
    for (int k = 0; k < 10; ++k) y = tanh(y * 1.1);
    return {y};
  };
  const auto live_after = [&](bool use) {
    const std::size_t before = memory_stats().live;
    const Tensor y = use ? checkpoint(deep, {x})[0] : deep({x})[0];
    const std::size_t during = memory_stats().live - before;
    grad(sum(y), x);
    return during;
  };
  const std::size_t plain = live_after(false), saved = live_after(true);
  CHECK(saved * 8 < plain);
  const std::int64_t nodes = live_nodes(), tensors = live_tensors();
  live_after(true);
  CHECK(live_nodes() == nodes);
  CHECK(live_tensors() == tensors);
}

TEST_CASE("an op of the user's own has gradients of the orders that its vjp allows") {
  const Tensor x = from_vector<double>({0.5, -1, 2}).requires_grad_();
  const Function forward = [](const TensorList& in) -> TensorList {
    return {in[0] * in[0] * in[0]};
  };
  const CustomVjp vjp = [](const TensorList& in, const TensorList& out, const TensorList& gy) {
    CHECK(out.size() == 1);
    return TensorList{gy[0] * 3.0 * square(in[0])};
  };
  Tensor y = custom_vjp("cube", {x}, forward, vjp)[0];
  CHECK(y.grad_fn()->name() == "cube");
  CHECK(values(y) == Doubles{0.125, -1, 8});
  y = grad(sum(y), x, {}, {.create_graph = true});
  CHECK(values(y) == Doubles{0.75, 3, 12});
  y = grad(sum(y), x, {}, {.create_graph = true});
  CHECK(values(y) == Doubles{3, -6, 12});
  CHECK(values(grad(sum(y), x)) == Doubles{6, 6, 6});
}

TEST_CASE("custom_vjp may use its output, and second order flows through it") {
  const Tensor x = from_vector<double>({0.5, -1}).requires_grad_();
  const auto e = custom_vjp(
      "my_exp", {x}, [](const TensorList& in) { return TensorList{exp(in[0])}; },
      [](const TensorList&, const TensorList& out, const TensorList& gy) {
        return TensorList{gy[0] * out[0]};
      });
  const Tensor g = grad(sum(e[0]), x, {}, {.create_graph = true});
  const Tensor gg = grad(sum(g), x);
  CHECK(max_difference(gg, exp(x.detach())) < 1e-15);
}

TEST_CASE("the wrong number of gradients from a user's vjp is an error that names the op") {
  const Tensor x = ones({2}, DType::f64).requires_grad_();
  const auto y = custom_vjp(
      "broken", {x, x}, [](const TensorList& in) { return TensorList{in[0] + in[1]}; },
      [](const TensorList&, const TensorList&, const TensorList& gy) { return gy; });
  CHECK(message_of<GradError>([&] { grad(sum(y[0]), x); }) ==
        "backward of 'broken': the rule must return one gradient per input; expected 2, got 1");
}

TEST_CASE("custom_vjp outside recording is just its forward function") {
  const Tensor x = ones({2}, DType::f64).requires_grad_();
  const NoGradGuard no_grad;
  const auto y = custom_vjp(
      "plain", {x}, [](const TensorList& in) { return TensorList{in[0] * 2.0}; },
      [](const TensorList&, const TensorList&, const TensorList& gy) { return gy; });
  CHECK_FALSE(y[0].requires_grad());
}

TEST_CASE("an op may hand its input through: the result is a tensor of its own") {
  const Tensor x = ones({2}, DType::f64).requires_grad_();
  const auto y = custom_vjp(
      "identity", {x}, [](const TensorList& in) { return in; },
      [](const TensorList&, const TensorList&, const TensorList& gy) {
        return TensorList{gy[0] * 5.0};
      });
  CHECK(y[0].impl() != x.impl());
  CHECK(x.is_leaf());
  CHECK(values(grad(sum(y[0]), x)) == Doubles{5, 5});
}

TEST_CASE("replay gives the vjp of a function, only of what is needed") {
  const Tensor a = from_vector<double>({1, 2}), b = from_vector<double>({3, 4});
  const Function mul = [](const TensorList& in) { return TensorList{in[0] * in[1]}; };
  const NoGradGuard no_grad;
  TensorList g = replay(mul, {a, b}, {ones({2}, DType::f64)});
  CHECK(values(g[0]) == Doubles{3, 4});
  CHECK(values(g[1]) == Doubles{1, 2});
  g = replay(mul, {a, b}, {ones({2}, DType::f64)}, {false, true});
  CHECK_FALSE(g[0].defined());
  CHECK(values(g[1]) == Doubles{1, 2});
  CHECK(contains(message_of<GradError>([&] {
                   replay(mul, {a, b}, {});
                 }),
                 "returned 1 tensors for 0 cotangents"));
}
