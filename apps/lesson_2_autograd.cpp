// Lesson 2: how gradients come about. The graph of a computation, the chain rule along it, by hand
// and by backward(), and the four surprises that everybody meets once.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;

namespace {

void title(std::string_view text) { fmt::print("\n== {} ==\n\n", text); }

// y = (a b + 1)². Every op notes where its inputs come from; that is the whole graph.
void a_graph() {
  title("What is recorded");
  // [graph]
  const Tensor a = scalar(2, DType::f64).requires_grad_();
  const Tensor b = scalar(3, DType::f64).requires_grad_();
  const Tensor y = square(a * b + 1.0);
  std::shared_ptr<Node> op = y.grad_fn();  // the last op
  for (; !op->is_leaf(); op = op->edges()[0].node) fmt::print("{} from ", op->name());
  fmt::print("a leaf, a: {}\n", op->leaf().item());
  // [graph]
  fmt::print("y = (2 * 3 + 1)^2 = {}\n", y.item());
}

// Backwards along the graph, the cotangent of a result (dy by it) becomes that of its inputs.
void by_hand() {
  title("The chain rule, by hand and by backward()");
  // [hand]
  const Tensor a = scalar(2, DType::f64).requires_grad_();
  const Tensor b = scalar(3, DType::f64).requires_grad_();
  const Tensor p = a * b, s = p + 1.0, y = square(s);

  const double gy = 1;                  // dy/dy
  const double gs = gy * 2 * s.item();  // square: 2 s
  const double gp = gs;                 // + 1 hands it on
  const double ga = gp * b.item();      // a b, by a: b
  const double gb = gp * a.item();      // a b, by b: a
  backward(y);
  fmt::print("dy/da by hand {}, by backward() {}\n", ga, a.grad().item());
  fmt::print("dy/db by hand {}, by backward() {}\n", gb, b.grad().item());
  // [hand]
}

// One number has a gradient. A vector has a Jacobian, and one backward pass gives uᵀ J.
void products_with_jacobians() {
  title("More than one result: u^T J");
  // [jacobian]
  const Tensor x = from_vector<double>({1, 2, 3}).requires_grad_();
  const auto f = [](const Tensor& t) {
    return stack({sum(square(t)), select(t, 0, 0) * select(t, 0, 2)});
  };
  const Tensor u = from_vector<double>({1, 10});
  fmt::print("J =\n{}\n", to_string(jacobian(f, x)));
  fmt::print("uᵀ J by grad(f(x), x, u): {}\n", to_string(grad(f(x), x, u)));
  fmt::print("uᵀ J by a product:        {}\n", to_string(matmul(u, jacobian(f, x))));
  // [jacobian]
}

/// What a call throws, or "nothing".
template <class F>
std::string error_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "nothing";
}

void surprises() {
  title("Four surprises");
  // [add]
  const Tensor w = scalar(1, DType::f64).requires_grad_();
  backward(square(w));
  backward(square(w));
  fmt::print("1. backward() adds: {} after two passes of w², whose slope is 2\n", w.grad().item());
  fmt::print("   grad() adds nothing: {}, and w.grad() is still {}\n", grad(square(w), w).item(),
             w.grad().item());
  // [add]

  // [freed]
  const Tensor y = exp(w);
  backward(y, {}, true);  // retain_graph
  backward(y);            // now what the rules had saved is gone
  fmt::print("2. a third pass: {}\n", error_of([&] { backward(y); }));
  // [freed]

  // [inplace]
  Tensor data = from_vector<double>({1, 2});
  const Tensor z = sum(square(w * data));
  data.fill_(5);  // the rule of * had saved it
  fmt::print("3. changed in place: {}\n", error_of([&] { backward(z); }));
  // [inplace]

  // [detach]
  const Tensor x = scalar(3, DType::f64).requires_grad_();
  fmt::print("4. detach() makes a constant: slope of x·x {}, of x·x.detach() {}\n",
             grad(x * x, x).item(), grad(x * x.detach(), x).item());
  const NoGradGuard no_grad;  // for evaluation and for updates: nothing is recorded
  fmt::print("   under NoGradGuard x·x has an op behind it: {}\n", (x * x).grad_fn() != nullptr);
  // [detach]
}

// Is a gradient right? Compare with a difference. That is all that gradcheck does, for every input.
void against_differences() {
  title("Against differences");
  // [difference]
  const auto f = [](double at) { return tanh(scalar(at, DType::f64)).item(); };
  const Tensor x = scalar(0.5, DType::f64).requires_grad_();
  const double exact = grad(tanh(x), x).item();
  for (const double h : {1e-1, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11})
    fmt::print("step {:.0e}: error {:.1e}\n", h, (f(0.5 + h) - f(0.5 - h)) / (2 * h) - exact);
  // [difference]
}

}  // namespace

int main(int argc, char** argv) {
  apps::Args args("lesson_2_autograd", "Lesson 2: graphs, the chain rule, and four surprises.");
  return apps::run_main(args, argc, argv, [] {
    a_graph();
    by_hand();
    products_with_jacobians();
    surprises();
    against_differences();
    fmt::print("\nNext: training, then lesson_4_capsules. Inside: docs/internals.md.\n");
    return 0;
  });
}
