// Random affine maps of training images.

#include <doctest/doctest.h>
#include <capsfw/data/augment.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;

namespace {

Batch batch(const Tensor& images) { return {images, zeros({images.size(0)}, DType::i64)}; }

Tensor changed(const Tensor& images, const AffineOptions& options, std::uint64_t seed = 1) {
  Batch b = batch(empty_like(images).copy_(images));
  Rng rng(seed);
  random_affine(options)(b, rng);
  return b.images;
}

}  // namespace

TEST_CASE("no options no change, and equal seeds equal changes") {
  Rng rng(1);
  const Tensor x = rng.uniform({3, 2, 7, 9}, 0, 1);
  CHECK(same_bits(changed(x, {}), x));
  const AffineOptions o{.degrees = 20, .scale = 0.2, .shear = 0.1};
  CHECK(same_bits(changed(x, o), changed(x, o)));
  CHECK(max_difference(changed(x, o), changed(x, o, 2)) > 0.01);
  // Each image by a map of its own, all channels of an image by the same one.
  const Tensor twins = cat({narrow(x, 0, 0, 1), narrow(x, 0, 0, 1)});
  const Tensor y = changed(twins, o);
  CHECK(max_difference(narrow(y, 0, 0, 1), narrow(y, 0, 1, 1)) > 0.01);
  const Tensor grey = cat({narrow(x, 1, 0, 1), narrow(x, 1, 0, 1)}, 1), z = changed(grey, o);
  CHECK(same_bits(narrow(z, 1, 0, 1), narrow(z, 1, 1, 1)));
}

TEST_CASE("rotation keeps the centre and what is round, and moves a bar by the angle drawn") {
  Tensor disc = zeros({1, 1, 21, 21});
  for (std::int64_t y = 0; y < 21; ++y)
    for (std::int64_t x = 0; x < 21; ++x)
      if ((y - 10) * (y - 10) + (x - 10) * (x - 10) <= 36)
        select(select(select(select(disc, 0, 0), 0, 0), 0, y), 0, x).fill_(1);
  const Tensor turned = changed(disc, {.degrees = 90});
  CHECK(std::abs(sum(turned).item() - sum(disc).item()) < 0.03 * sum(disc).item());
  // A bar along the middle row stays in the image, through the centre.
  Tensor bar = zeros({1, 1, 21, 21});
  narrow(bar, 2, 10, 1).fill_(1);
  const Tensor y = changed(bar, {.degrees = 45});
  CHECK(select(select(select(select(y, 0, 0), 0, 0), 0, 10), 0, 10).item() > 0.99);
  CHECK(max_difference(y, bar) > 0.5);
  CHECK(max_difference(flip(flip(y, {2}), {3}), y) < 1e-5);  // symmetric about the centre
}

TEST_CASE("a constant image stays constant inside, magnified") {
  const Tensor x = ones({4, 1, 9, 9}), y = changed(x, {.scale = 0.3});
  CHECK(max_difference(narrow(narrow(y, 2, 3, 3), 3, 3, 3), ones({4, 1, 3, 3})) < 1e-6);
  CHECK(max(y).item() <= 1 + 1e-6);
}

TEST_CASE("options of random_affine are checked") {
  CHECK_THROWS_AS(random_affine({.degrees = -1}), ValueError);
  CHECK_THROWS_AS(random_affine({.degrees = 181}), ValueError);
  CHECK_THROWS_AS(random_affine({.scale = 1}), ValueError);
  CHECK_THROWS_AS(random_affine({.shear = -0.1}), ValueError);
}
