// What does not depend on the size of numbers has all its digits for very short and very long ones.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/normalize.hpp>

using namespace capsfw;

TEST_CASE("directions of short vectors have all their digits, and so have their gradients") {
  const Tensor x = Rng(3).normal({5, 4}, 0, 1), g = Rng(4).normal({5, 4}, 0, 1);
  for (const double size : {0x1p-52, 0x1p-60, 0x1p-70}) {  // down to 1e-21
    const Tensor a = (x * 1.0).requires_grad_(), b = (x * size).requires_grad_();
    const Tensor ya = safe_normalize(a), yb = safe_normalize(b);
    CHECK(allclose(ya, yb, 1e-6, 0));
    CHECK(allclose(grad(ya, a, g), grad(yb, b, g) * size, 1e-5, 1e-6));
  }
}

TEST_CASE("layer_norm does not depend on the size of large numbers, nor does the KL descent") {
  const Tensor x = Rng(3).normal({5, 4}, 0, 1) * 1e8, g = Rng(4).normal({5, 4}, 0, 1);
  for (const double factor : {0x1p4, 0x1p60}) {  // to 1e26
    const Tensor a = (x * 1.0).requires_grad_(), b = (x * factor).requires_grad_();
    const Tensor ya = layer_norm(a, 1, {}, {}, 1e-5), yb = layer_norm(b, 1, {}, {}, 1e-5);
    CHECK(allclose(ya, yb, 1e-6, 0));
    CHECK(allclose(grad(ya, a, g) * 1e8, grad(yb, b, g) * (factor * 1e8), 1e-3, 1e-5));
  }
  const Tensor u = Rng(7).normal({2, 6, 3, 4}, 0, 1) * 1e25;
  CHECK(allclose(safe_norm(kl_trace(u, 2).centres), ones({2, 3}), 1e-5, 0));
}

TEST_CASE("margin loss: what a target of 0 leaves out does not matter, however large it is") {
  const Tensor targets = from_vector<float>({1, 0}, {1, 2});
  const Tensor x = from_vector<float>({1e30F, -1e30F}, {1, 2}).requires_grad_();
  const Tensor loss = margin_loss(x, targets);
  CHECK(loss.item() == 0);
  CHECK(grad(loss, x).to_vector<double>() == std::vector<double>{0, 0});
}
