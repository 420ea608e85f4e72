// Lesson 1: tensors and gradients. Read it from top to bottom beside what it prints.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;

namespace {

void title(std::string_view text) { fmt::print("\n== {} ==\n\n", text); }
void show(std::string_view what, const Tensor& x) { fmt::print("{}\n{}\n", what, to_string(x)); }

// A tensor is a shape and strides over shared memory. Another look at the same memory is a view.
void tensors_and_views() {
  title("Tensors and views");
  // [views]
  const Tensor x = reshape(arange(0, 12), {3, 4});
  const Tensor turned = transpose(x);  // other strides, same memory
  Tensor column = slice(x, 1, 1, 2);   // elements 1, 2, ... below 2 of axis 1
  column.fill_(-1);                    // so this writes into x
  // [views]
  show("x: 0, 1, ..., 11 as [3, 4], its second column overwritten through a view", x);
  show("transposed", turned);
  fmt::print("strides of x {}, transposed {}; same storage: {}\n", x.strides().str(),
             turned.strides().str(), x.storage() == turned.storage());
}

// Axes of length 1 are repeated to fit, as in NumPy. Element types never mix silently.
void broadcasting() {
  title("Broadcasting");
  const Tensor rows = reshape(arange(1, 4), {3, 1}), columns = arange(1, 6);
  show("[3, 1] times [5] is a [3, 5] table", rows * columns);
  try {
    rows + arange(0, 4, 1, DType::f64);
  } catch (const DTypeError& e) {
    fmt::print("f32 + f64 is an error: {}\n", e.what());
  }
}

// Ops on tensors that require a gradient build a graph, newest op last. backward() walks it in the
// other direction and leaves the gradient in the leaves.
void graph_and_backward() {
  title("A graph, walked backwards");
  // [backward]
  const Tensor w = from_vector<float>({0.5F, -1, 2}).requires_grad_();
  const Tensor x = from_vector<float>({1, 2, 3});
  const Tensor y = tanh(sum(w * x) * 0.2);  // one number
  backward(y);
  // [backward]
  fmt::print("y = {:.4f}, made by the op '{}' with number {}\n", y.item(), y.grad_fn()->name(),
             y.grad_fn()->id());
  show("dy/dw = 0.2 (1 - y²) x", w.grad());
  // [dot]
  fmt::print("\nThe graph for Graphviz (dot -Tsvg):\n{}", to_dot({y}, {{"w", w}}));
  // [dot]
}

// Every gradient rule is written in the same ops, so a gradient can be recorded and differentiated
// again: as often as you like.
void derivatives_of_derivatives() {
  title("Derivatives of derivatives");
  // [orders]
  const Tensor x = scalar(2, DType::f64).requires_grad_();
  Tensor d = square(square(x));  // x⁴
  for (int order = 1; order <= 3; ++order) {
    d = grad(d, x, {}, {.create_graph = true});
    fmt::print("derivative {} of x⁴ at x = 2: {}\n", order, d.item());
  }
  // [orders]

  // So a loss may contain a gradient: here it asks for small slopes as well.
  Rng rng(1);
  const Tensor w = randn({3}, rng).requires_grad_(), p = randn({8, 3}, rng).requires_grad_();
  // [penalty]
  const Tensor y = tanh(matmul(p, w));
  const Tensor slope = grad(sum(y), p, {}, {.create_graph = true});  // has a graph of its own
  backward(mean(square(y - 1.0)) + 0.1 * mean(square(slope)));
  // [penalty]
  show("gradient of a loss with a penalty on slopes", w.grad());
}

// An op of your own: a forward function, and a rule from the cotangent of the result to those of
// the inputs. This one squeezes the line into (-1, 1): y = x / √(1 + x²), y' = (1 + x²)^(-3/2).
// [custom]
Tensor squeeze_line(const Tensor& x, double factor = 1) {
  return custom_vjp(
      "squeeze_line", {x},
      [](const TensorList& in) { return TensorList{in[0] * rsqrt(square(in[0]) + 1.0)}; },
      [factor](const TensorList& in, const TensorList&, const TensorList& gy) {
        const Tensor r = rsqrt(square(in[0]) + 1.0);
        return TensorList{gy[0] * r * r * r * factor};
      })[0];
}
// [custom]

// gradcheck compares a rule with differences of the function; gradgradcheck the rule of the rule.
void custom_op() {
  title("An op of your own, checked");
  Rng rng(1);
  const TensorList at = {randn({5}, rng, DType::f64)};
  const Function right = [](const TensorList& in) { return TensorList{squeeze_line(in[0])}; };
  const Function wrong = [](const TensorList& in) { return TensorList{squeeze_line(in[0], 1.1)}; };
  fmt::print("first order right: {}, second order right: {}\n", gradcheck(right, at).ok,
             gradgradcheck(right, at).ok);
  fmt::print("with a slip of 10 % in the rule:\n{}\n", gradcheck(wrong, at).message);
}

}  // namespace

int main(int argc, char** argv) {
  apps::Args args("lesson_1_tensors", "Lesson 1: tensors, views, graphs and gradients, printed.");
  return apps::run_main(args, argc, argv, [] {
    tensors_and_views();
    broadcasting();
    graph_and_backward();
    derivatives_of_derivatives();
    custom_op();
    fmt::print("\nNext: lesson_2_autograd. How it works inside: docs/internals.md.\n");
    return 0;
  });
}
