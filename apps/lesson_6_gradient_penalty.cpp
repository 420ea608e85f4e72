// Lesson 6: a loss that contains a gradient. A small network tells two rings apart; the penalty
// ‖∇ₓ z‖² on its logit z makes it change slowly around the data.

#include <cmath>
#include <numbers>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"

using namespace capsfw;

namespace {

void title(std::string_view text) { fmt::print("\n== {} ==\n\n", text); }

// For f = w·x the gradient by x is w, so the penalty is ‖w‖² and its gradient by w is 2 w.
void by_hand() {
  title("A penalty that can be worked out by hand");
  // [hand]
  Rng rng(1);
  const Tensor w = from_vector<double>({3, -4}).requires_grad_();
  const Tensor x = randn({5, 2}, rng, DType::f64).requires_grad_();
  const Tensor f = matmul(x, w);                                 // [5], one value a sample
  const Tensor g = grad(sum(f), x, {}, {.create_graph = true});  // [5, 2], every row is w
  const Tensor penalty = mean(sum(square(g), {1}));              // ‖w‖²
  fmt::print("penalty {}, by the library {}, by hand {}\n", penalty.item(),
             input_gradient_penalty(f, x).item(), 3 * 3 + 4 * 4);
  fmt::print("its gradient {}, by hand 2 w\n", to_string(grad(penalty, w)));
  // [hand]
}

/// Points on two rings with noise: [n, 2], and 1 for the outer ring [n].
struct Rings {
  Tensor points, outer;
};
Rings rings(std::int64_t n, Rng& rng) {
  const Tensor outer = to(rng.bernoulli({n}, 0.5), DType::f32);
  const Tensor angle = rng.uniform({n}, 0, 2 * std::numbers::pi);
  const Tensor radius = 0.5 + 0.5 * outer + rng.normal({n}, 0, 0.1);
  return {stack({radius * cos(angle), radius * sin(angle)}, -1), outer};
}

/// The logit of every point [n], positive for the outer ring.
Tensor logits_of(Mlp& net, const Tensor& points) { return flatten(net(points)); }

double accuracy_at(Mlp& net, const Rings& r) {
  const NoGradGuard no_grad;
  const Tensor says = to(gt(logits_of(net, r.points), 0.0), DType::f32);
  return 100 * mean(to(eq(says, r.outer), DType::f32)).item();
}

void train(double weight, int steps) {
  Rng rng(3);
  Mlp net({2, 64, 64, 1}, rng, {.activation = "tanh"});
  const Rings train_set = rings(64, rng), test = rings(2000, rng);
  // [train]
  Adam adam(net.parameters(), {.lr = 1e-2});
  for (int step = 0; step < steps; ++step) {
    const Tensor logits = logits_of(net, train_set.points);
    const Tensor loss = binary_cross_entropy_with_logits(logits, train_set.outer);
    // Around the points, not at them: there alone a network learns to be flat, and steep between.
    Tensor x = train_set.points + rng.normal({64, 2}, 0, 0.2);
    x.requires_grad_();
    const Tensor total = loss + weight * input_gradient_penalty(logits_of(net, x), x);
    const TensorList parameters = net.parameters();
    const TensorList g = grad({total}, parameters, {}, {.allow_unused = true});
    for (std::size_t i = 0; i < g.size(); ++i) Tensor(parameters[i]).set_grad(g[i]);
    adam.step();
  }
  // [train]

  // [report]
  Tensor at = test.points.detach();
  at.requires_grad_();
  const double slope = input_gradient_penalty(logits_of(net, at), at).item();
  const Tensor step = 0.1 * safe_normalize(rng.normal({2000, 2}, 0, 1));  // anywhere, 0.1 long
  const Tensor change = logits_of(net, test.points + step) - logits_of(net, test.points);
  fmt::print(
      "weight {:5}: {:.1f} % of new points, mean squared slope {:8.3f}, a step of 0.1 {:.3f}\n",
      weight, accuracy_at(net, test), slope, std::sqrt(mean(square(change)).item()));
  // [report]
}

}  // namespace

// [main]
int main(int argc, char** argv) {
  int steps = 400;
  apps::Args args("lesson_6_gradient_penalty",
                  "Lesson 6: a penalty on the gradient of the input, by hand and in training.");
  args.section("Training").add("--steps N", steps, "steps of Adam for each network", {.min = 1});
  return apps::run_main(args, argc, argv, [&] {
    by_hand();
    title("Two rings, 64 training points, without and with the penalty");
    for (const double weight : {0.0, 0.001, 0.01, 0.1}) train(weight, steps);
    fmt::print("\nNext: gradient_penalty, and docs/gradient-penalty.md.\n");
    return 0;
  });
}
// [main]
