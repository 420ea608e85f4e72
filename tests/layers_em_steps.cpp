// EM routing in long training: no NaN, on images with and without anything to see.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/optim/adam.hpp>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// The smallest network with primary, convolutional and class capsules.
MatrixCapsNetOptions smallest(int iterations) {
  MatrixCapsNetOptions o;
  o.image = {1, 5, 6};
  o.conv = {.channels = 3, .kernel = 3, .stride = 2};
  o.primary_types = 2;
  o.pose = 2;
  o.capsules = {{2, 2, 1}};
  o.classes = 3;
  o.routing.iterations = iterations;
  return o;
}

/// A NaN in a loss stays in the sum of losses, one in a gradient stays in the moments of Adam and
/// so in the parameters: looking at the end is enough.
void check_thousand_steps(int iterations) {
  const Shape images{3, 1, 5, 6};
  Rng rng(10);
  for (const Tensor& x : {rng.uniform(images, 0, 1), full(images, 0.7), zeros(images)}) {
    CAPTURE(x.to_vector<float>()[0]);
    Rng init(11);
    MatrixCapsNet net(smallest(iterations), init);
    const Tensor labels = from_vector(std::vector<std::int64_t>{0, 1, 2});
    Adam adam(net.parameters(), {.lr = 0.02});
    const TensorList start = [&] {
      TensorList copies;
      for (const Tensor& p : net.parameters()) copies.push_back(empty_like(p).copy_(p));
      return copies;
    }();
    double losses = 0;
    constexpr int kSteps = testing::kSanitized ? 100 : 1000;
    for (int step = 0; step < kSteps; ++step) {
      const Tensor loss =
          spread_loss(net(x).activations, labels, spread_margin_linear(step, kSteps));
      adam.zero_grad();
      backward(loss);
      adam.step();
      losses += loss.item();
    }
    CHECK(std::isfinite(losses));
    double moved = 0;
    const TensorList end = net.parameters();
    for (std::size_t i = 0; i < end.size(); ++i) {
      CHECK(all(isfinite(end[i])));
      moved += max_difference(end[i].detach(), start[i]);
    }
    CHECK(moved > 0.1);  // it did train
  }
}

}  // namespace

TEST_CASE("E13 no NaN in 1,000 steps with 1 iteration") { check_thousand_steps(1); }
TEST_CASE("E13 no NaN in 1,000 steps with 2 iterations") { check_thousand_steps(2); }
TEST_CASE("E13 no NaN in 1,000 steps with 3 iterations") { check_thousand_steps(3); }
TEST_CASE("E13 no NaN in 1,000 steps with 5 iterations") { check_thousand_steps(5); }
