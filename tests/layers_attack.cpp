// Adversarial examples: they stay in the box and raise the loss.

#include <cmath>

#include <capsfw/layers/attack.hpp>
#include <capsfw/layers/basic.hpp>

#include "layers_penalty.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("fgsm moves every pixel by epsilon along the sign of the gradient, within the range") {
  const Tensor x = from_vector<double>({0.5, 0.05, 0.95, 0.5}, {2, 2});
  const Tensor w = from_vector<double>({1, -2}, {2});
  const auto losses = [&](const Tensor& at) { return sum(at * w, {1}); };
  CHECK(max_difference(fgsm(losses, x, {.epsilon = 0.1}),
                       from_vector<double>({0.6, 0, 1, 0.4}, {2, 2})) < 1e-15);
  CHECK(same_bits(fgsm(losses, x, {.epsilon = 0}), x));
  // Any range: images in [-1, 1] reach its ends, and not those of [0, 1].
  const Tensor wide = from_vector<double>({-0.95, 0.95, 0, -0.5}, {2, 2});
  CHECK(max_difference(fgsm(losses, wide, {.epsilon = 0.1, .low = -1, .high = 1}),
                       from_vector<double>({-0.85, 0.85, 0.1, -0.6}, {2, 2})) < 1e-15);
  CHECK(max_difference(fgsm(losses, -wide, {.epsilon = 0.1, .low = -1, .high = 1}),
                       from_vector<double>({1, -1, 0.1, 0.4}, {2, 2})) < 1e-15);
  // Without any gradient nothing moves.
  CHECK(same_bits(fgsm([](const Tensor& at) { return sum(at.detach(), {1}); }, x, {}), x));
}

TEST_CASE("pgd stays within epsilon and the range, and more steps are never worse") {
  DoubleMlp net({6, 12, 3}, 1);
  Rng data(2);
  const Tensor x = data.uniform({8, 6}, 0, 1, DType::f64);
  const auto losses = [&](const Tensor& at) { return head(net(at * 4.0)); };
  const Tensor clean = losses(x).detach();
  double previous = 0;
  for (const int steps : {1, 3, 10, 40}) {
    Rng rng(3);
    const Tensor y = pgd(losses, x, {.epsilon = 0.2, .steps = steps, .step_size = 0.05}, rng);
    CHECK_FALSE(y.requires_grad());
    CHECK(largest(y - x) <= 0.2 + 1e-15);
    CHECK(largest(y - 0.5) <= 0.5);
    const double loss = mean(losses(y)).item();
    CHECK(loss >= previous);
    previous = loss;
  }
  CHECK(previous > mean(clean).item());
  {
    Rng rng(5);
    const Tensor wide = 2.0 * x - 1.0;
    const Tensor y = pgd(losses, wide, {.epsilon = 0.9, .low = -1, .high = 1, .steps = 10}, rng);
    CHECK(min(y).item() == -1);
    CHECK(max(y).item() == 1);
  }
  Rng a(4), b(4);
  const AttackOptions still{.epsilon = 0.2, .steps = 5, .random_start = false};
  CHECK(same_bits(pgd(losses, x, still, a), pgd(losses, x, still, b)));
  CHECK(a.next() == b.next());
  // From the image itself no loss shrinks.
  const Tensor after = losses(pgd(losses, x, still, a)).detach();
  CHECK(all(ge(after, clean)));
  CHECK(mean(after).item() >= mean(losses(fgsm(losses, x, {.epsilon = 0.2}))).item() * 0.9);
}

TEST_CASE("attacks say what is wrong") {
  Rng rng(1);
  const Tensor x = zeros({2, 3});
  CHECK(message_of<ValueError>([&] { fgsm(head, x, {.epsilon = -1}); }) ==
        "fgsm: epsilon must be at least 0 and low at most high; got -1, [0, 1]");
  CHECK(contains(message_of<ValueError>([&] { pgd(head, x, {.steps = 0}, rng); }),
                 "pgd: at least 1 step"));
  CHECK(contains(
      message_of<ShapeError>([&] { fgsm([](const Tensor& at) { return sum(at); }, x, {}); }),
      "fgsm: one value for each sample"));
  CHECK(
      message_of<ValueError>([&] {
        fgsm(head, ones({2, 3}) * 2.0, {});
      }) ==
      "fgsm: images [2, 3] must lie within [0, 1]; got values from 2 to 2. Hint: low and high are "
      "the range of the pixels");
  CHECK(contains(message_of<ValueError>([&] { pgd(head, x + std::nan(""), {}, rng); }),
                 "pgd: images [2, 3] must lie within [0, 1]; got values from nan to nan"));
  // A gradient of 0 / 0, and losses without a value: neither is passed on as an image.
  const auto steep = [](const Tensor& at) { return sum(sqrt(at * 0.0), {1}); };
  const auto lost = [](const Tensor& at) { return sum(at * std::nan(""), {1}); };
  CHECK(message_of<ValueError>([&] { fgsm(steep, x, {}); }) ==
        "fgsm: the gradient of the losses at the images [2, 3] must not be NaN. Hint: an "
        "AnomalyGuard around the attack names the op that makes the first one");
  CHECK(contains(message_of<ValueError>([&] { pgd(steep, x, {}, rng); }),
                 "pgd: the gradient of the losses at the images [2, 3] must not be NaN"));
  CHECK(contains(message_of<ValueError>([&] { fgsm(lost, x, {}); }),
                 "fgsm: the losses [2] must not be NaN"));
  CHECK(contains(message_of<ValueError>([&] { pgd(lost, x, {}, rng); }),
                 "pgd: the losses [2] must not be NaN"));
  CHECK(contains(message_of<ValueError>([&] { pgd(head, x, {.step_size = INFINITY}, rng); }),
                 "of a finite size of at least 0; got 10 and inf"));
  CHECK(fgsm(head, zeros({0, 3}), {}).shape() == Shape{0, 3});
  BatchNorm2d norm(1);
  CHECK(contains(message_of<GradError>([&] {
                   pgd([&](const Tensor& at) { return sum(flatten(norm(at), 1), {1}); },
                       ones({2, 1, 2, 2}), {}, rng);
                 }),
                 "batch norm in training mode"));
}
