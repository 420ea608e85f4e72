// Lesson 5: an op of your own, y = ln(eᵃ + eᵇ), from one line that overflows to a checked one.
// docs/add_an_op.md does the same inside the library.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;

namespace {

void title(std::string_view text) { fmt::print("\n== {} ==\n\n", text); }

// Made of ops that exist it has gradients of all orders at once. Start like this.
// [composed]
Tensor logaddexp_reference(const Tensor& a, const Tensor& b) { return log(exp(a) + exp(b)); }
// [composed]

// The larger number taken out, ln(eᵃ + eᵇ) = m + ln(1 + e^−|a − b|), nothing overflows. The rule:
// ∂y/∂a = sigmoid(a − b), ∂y/∂b = sigmoid(b − a). It is written in ops, so it has a gradient too.
// [custom]
Tensor logaddexp(const Tensor& a, const Tensor& b) {
  return custom_vjp(
      "logaddexp", {a, b},
      [](const TensorList& in) {
        return TensorList{maximum(in[0], in[1]) + log(1.0 + exp(-abs(in[0] - in[1])))};
      },
      [](const TensorList& in, const TensorList& out, const TensorList& gy) {
        (void)out;  // results may be used as well: the rule of exp needs only its own
        const Tensor gap = in[0] - in[1];
        return TensorList{gy[0] * sigmoid(gap), gy[0] * sigmoid(-gap)};
      })[0];
}
// [custom]

// Two ways to go wrong: a sign, and a gradient that is right but cut off from the graph.
// [wrong]
Tensor wrong_sign(const Tensor& a, const Tensor& b) {
  return custom_vjp(
      "wrong_sign", {a, b},
      [](const TensorList& in) { return TensorList{logaddexp(in[0], in[1])}; },
      [](const TensorList& in, const TensorList&, const TensorList& gy) {
        const Tensor gap = in[0] - in[1];
        return TensorList{gy[0] * sigmoid(gap), -(gy[0] * sigmoid(-gap))};
      })[0];
}

Tensor cut_off(const Tensor& a, const Tensor& b) {
  return custom_vjp(
      "cut_off", {a, b}, [](const TensorList& in) { return TensorList{logaddexp(in[0], in[1])}; },
      [](const TensorList& in, const TensorList&, const TensorList& gy) {
        const Tensor gap = (in[0] - in[1]).detach();
        return TensorList{gy[0] * sigmoid(gap), gy[0] * sigmoid(-gap)};
      })[0];
}
// [wrong]

using Op = Tensor (*)(const Tensor&, const Tensor&);

// [check]
void check(std::string_view name, Op op) {
  Rng rng(1);
  const TensorList at = {randn({3, 4}, rng, DType::f64), randn({3, 4}, rng, DType::f64)};
  const Function f = [op](const TensorList& in) { return TensorList{op(in[0], in[1])}; };
  const GradcheckResult first = gradcheck(f, at), second = gradgradcheck(f, at);
  fmt::print("{}: first order {}, second order {}\n", name, first.ok ? "right" : "WRONG",
             second.ok ? "right" : "WRONG");
  if (!first)
    fmt::print("  {}\n", first.message);
  else if (!second)
    fmt::print("  {}\n", second.message);
}
// [check]

void values() {
  title("Values: the formula overflows, the op does not");
  // [values]
  const Tensor a = from_vector<float>({0, 10, 100, -200}), b = a - 1.0;
  fmt::print("composed {}\ncustom   {}\n", to_string(logaddexp_reference(a, b)),
             to_string(logaddexp(a, b)));
  // [values]
}

// Coupled to nothing: a soft maximum of lengths, whose gradient shares itself out.
void use() {
  title("In use");
  // [use]
  const Tensor x = from_vector<double>({0.2, 0.9, 0.4}).requires_grad_();
  Tensor soft = select(x, 0, 0) * 8.0;
  for (int i = 1; i < 3; ++i) soft = logaddexp(soft, select(x, 0, i) * 8.0);
  soft = soft / 8.0;
  fmt::print("soft maximum of 0.2, 0.9, 0.4: {:.4f}\n", soft.item());
  fmt::print("its gradient, {}, is softmax(8 x): {}\n", to_string(grad(soft, x)),
             to_string(softmax(x * 8.0)));
  // [use]
}

}  // namespace

int main(int argc, char** argv) {
  apps::Args args("lesson_5_new_op", "Lesson 5: an op of your own, with its gradient, checked.");
  return apps::run_main(args, argc, argv, [] {
    values();
    title("Gradients against differences");
    check("composed", logaddexp_reference);
    check("custom", logaddexp);
    check("wrong sign", wrong_sign);
    check("cut off", cut_off);
    use();
    fmt::print("\nNext: lesson_6_gradient_penalty. In the library: docs/add_an_op.md.\n");
    return 0;
  });
}
