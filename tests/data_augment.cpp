// Changes of training images: values, bounds, and how often.

#include <cmath>

#include <doctest/doctest.h>
#include <capsfw/data/augment.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Batch batch(const Tensor& images) { return {images, zeros({images.size(0)}, DType::i64)}; }

Tensor applied(const Transform& transform, const Tensor& images, std::uint64_t seed = 1) {
  Batch b = batch(empty_like(images).copy_(images));
  Rng rng(seed);
  transform(b, rng);
  return b.images;
}

Tensor changed(const Tensor& images, const AffineOptions& options, std::uint64_t seed = 1) {
  return applied(random_affine(options), images, seed);
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
  // Its angle, by its second moments: within ±30 degrees, both ways, and up to them.
  const Tensor turns = changed(contiguous(broadcast_to(bar, {200, 1, 21, 21})), {.degrees = 30});
  double least = 0, most = 0;
  for (std::int64_t i = 0; i < 200; ++i) {
    const auto v = select(select(turns, 0, i), 0, 0).to_vector<double>();
    double xx = 0, xy = 0;
    for (int r = 0; r < 21; ++r)
      for (int c = 0; c < 21; ++c) {
        xx += v[static_cast<std::size_t>(21 * r + c)] * (c - 10) * (c - 10);
        xy += v[static_cast<std::size_t>(21 * r + c)] * (c - 10) * (r - 10);
      }
    const double degrees = std::atan2(xy, xx) * 180 / 3.14159265358979;
    least = std::min(least, degrees);
    most = std::max(most, degrees);
  }
  CHECK(least > -31);
  CHECK(least < -27);
  CHECK(most < 31);
  CHECK(most > 27);
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
  CHECK_THROWS_AS(random_affine({.translate = -1}), ValueError);
  CHECK_THROWS_AS(random_affine({.elastic = -1}), ValueError);
  CHECK_THROWS_AS(random_affine({.elastic = std::nan("")}), ValueError);
  CHECK_THROWS_AS(random_affine({.elastic = 1, .sigma = 0}), ValueError);
}

TEST_CASE("elastic: pixels move as far, and as smoothly, as the formula says") {
  constexpr std::int64_t kSide = 32, kMargin = 8, kInner = kSide - 2 * kMargin, kImages = 200;
  constexpr double kAlpha = 8, kSigma = 2;
  // The value of a pixel is its column, or its row: what is read from another place says which.
  const Tensor column = to(broadcast_to(arange(kSide), {1, 1, kSide, kSide}), DType::f32);
  for (const bool rows : {false, true}) {
    CAPTURE(rows);
    const Tensor ramp = contiguous(rows ? transpose(column, 2, 3) : column);
    const Tensor x = contiguous(broadcast_to(ramp, {kImages, 1, kSide, kSide}));
    const Tensor moved = changed(x, {.elastic = kAlpha, .sigma = kSigma}) - x;
    const auto inner = [&](std::int64_t across) {  // moved, `across` columns further on
      return to(narrow(narrow(moved, 2, kMargin, kInner), 3, kMargin + across, kInner), DType::f64);
    };
    const double variance = mean(square(inner(0))).item(),
                 expected = kAlpha * kAlpha / (12 * kSigma * kSigma * 3.14159265358979);
    CHECK(std::abs(mean(inner(0)).item()) < 0.06);
    CHECK(variance == doctest::Approx(expected).epsilon(0.05));
    // Two smoothed places are correlated by exp(-d² / 4 σ²).
    CHECK(mean(inner(0) * inner(2)).item() / variance ==
          doctest::Approx(std::exp(-0.25)).epsilon(0.05));
    CHECK(std::abs(mean(inner(-8) * inner(8)).item() / variance) < 0.05);
  }
}

TEST_CASE("elastic: every image by a field of its own, all channels alike, down to one pixel") {
  Rng rng(5);
  const Tensor grey = rng.uniform({1, 1, 6, 9}, 0, 1), colour = cat({grey, grey}, 1);
  const AffineOptions o{.degrees = 10, .elastic = 20, .sigma = 3};
  const Tensor y = changed(cat({colour, colour}), o);
  CHECK(same_bits(y, changed(cat({colour, colour}), o)));
  CHECK(same_bits(narrow(y, 1, 0, 1), narrow(y, 1, 1, 1)));
  CHECK(max_difference(narrow(y, 0, 0, 1), narrow(y, 0, 1, 1)) > 0.01);
  CHECK(max_difference(y, changed(cat({colour, colour}), {.degrees = 10})) > 0.01);
  for (const Shape& small :
       {Shape{2, 1, 1, 1}, Shape{2, 1, 1, 5}, Shape{2, 1, 7, 1}, Shape{0, 1, 4, 4}}) {
    const Tensor z = changed(zeros(small), {.elastic = 34});
    CHECK(z.shape() == small);
    CHECK(max_difference(z, zeros(small)) == 0);
  }
  // However wide the Gaussian: the numbers all but cancel.
  CHECK(max_difference(changed(colour, {.elastic = 1, .sigma = 1e300}), colour) < 1);
}

TEST_CASE("random_affine: an old seed gives the old images, whatever options came later") {
  // What the first version of random_affine made of this image with this seed.
  const Tensor x = from_vector<float>({0, 0.25, 0.5, 0.75, 1, 0.125}, {1, 1, 2, 3});
  const Tensor y = changed(x, {.degrees = 30, .scale = 0.2, .shear = 0.1}, 7);
  const auto v = y.to_vector<float>();
  const std::vector<double> expected{0.0624051653, 0.335013866, 0.374866366,
                                     0.505263269,  0.900838137, 0.324398488};
  REQUIRE(v.size() == expected.size());
  for (std::size_t i = 0; i < v.size(); ++i) CHECK(std::abs(v[i] - expected[i]) < 1e-6);
}

TEST_CASE("translation moves the whole image by what was drawn, within bounds") {
  Tensor x = zeros({200, 1, 11, 11});
  select(select(x, 3, 5), 2, 5).fill_(1);
  const Tensor y = changed(x, {.translate = 2});
  double smallest = 10, largest = -10;
  for (std::int64_t i = 0; i < 200; ++i) {
    const Tensor image = select(select(y, 0, i), 0, 0);
    CHECK(sum(image).item() == doctest::Approx(1).epsilon(1e-5));
    double row = 0;  // the centre of gravity of a dot interpolated linearly is where it went
    for (std::int64_t r = 0; r < 11; ++r)
      row += static_cast<double>(r) * sum(select(image, 0, r)).item();
    smallest = std::min(smallest, row - 5);
    largest = std::max(largest, row - 5);
  }
  CHECK(smallest >= -2.001);
  CHECK(largest <= 2.001);
  CHECK(smallest < -1.7);
  CHECK(largest > 1.7);
}

TEST_CASE("random_flip mirrors whole images, half of them") {
  const Tensor one = from_vector<float>({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, {1, 2, 2, 3});
  const Tensor x = contiguous(broadcast_to(one, {400, 2, 2, 3})), mirrored = flip(one, {3});
  const Tensor y = applied(random_flip(), x);
  int flipped = 0;
  for (std::int64_t i = 0; i < 400; ++i) {
    const Tensor image = narrow(y, 0, i, 1);
    const bool turned = same_bits(image, contiguous(mirrored));
    CHECK((turned || same_bits(image, one)));
    flipped += turned ? 1 : 0;
  }
  CHECK(flipped > 150);  // five standard deviations of 10 below 200
  CHECK(flipped < 250);
  CHECK(same_bits(applied(random_flip(0), x), x));
  CHECK(same_bits(applied(random_flip(1), x), contiguous(flip(x, {3}))));
  CHECK_THROWS_AS(random_flip(1.1), ValueError);
  CHECK_THROWS_AS(random_flip(NAN), ValueError);
}

TEST_CASE("random_crop takes every place of the padded image, equally often") {
  Tensor x = zeros({900, 2, 3, 3});
  select(select(x, 3, 1), 2, 1).fill_(1);  // a dot in the middle tells where the crop began
  const Tensor y = applied(random_crop(1), x);
  CHECK(y.shape() == x.shape());
  CHECK(same_bits(select(y, 1, 0), select(y, 1, 1)));  // all channels alike
  std::vector<int> at(9);
  const auto v = contiguous(select(y, 1, 0)).to_vector<float>();
  for (std::size_t i = 0; i < v.size(); ++i) at[i % 9] += v[i] == 1 ? 1 : 0;
  for (const int n : at) {
    CHECK(n > 60);  // 100 each, with a standard deviation of 9.4
    CHECK(n < 140);
  }
  const Tensor z = from_vector<float>({1, 2, 3, 4, 5, 6}, {1, 1, 2, 3});
  const Tensor wide = applied(random_crop(2, 6, 7), z);  // no choice is left: all of it
  CHECK(wide.shape() == Shape{1, 1, 6, 7});
  CHECK(same_bits(contiguous(narrow(narrow(wide, 2, 2, 2), 3, 2, 3)), z));
  CHECK(sum(wide).item() == 21);
  CHECK(same_bits(applied(random_crop(0), z), z));
  CHECK(applied(random_crop(0, 1, 1), z).shape() == Shape{1, 1, 1, 1});
  CHECK_THROWS_AS(applied(random_crop(1, 5, 1), z), ShapeError);
  CHECK_THROWS_AS(random_crop(-1), ValueError);
  CHECK_THROWS_AS(random_crop(1, 2, 0), ValueError);
  CHECK(message_of<ValueError>([] { random_crop(1 + (1 << 20)); }) ==
        "random_crop: padding must not be negative, height and width both at least 1 or both 0, "
        "and none above 1048576; got 1048577, 0 and 0");
}

TEST_CASE("center_crop keeps the middle") {
  const Tensor x = from_vector<float>({1, 2, 3, 4, 5, 6, 7, 8}, {1, 1, 2, 4});
  CHECK(applied(center_crop(2, 2), x).to_vector<float>() == std::vector<float>{2, 3, 6, 7});
  CHECK(applied(center_crop(1, 3), x).to_vector<float>() == std::vector<float>{1, 2, 3});
  CHECK(same_bits(applied(center_crop(2, 4), x), x));
  CHECK_THROWS_AS(applied(center_crop(3, 2), x), ShapeError);
  CHECK_THROWS_AS(center_crop(0, 2), ValueError);
}

TEST_CASE("cutout blackens one square, around any pixel, cut at the border") {
  const Tensor x = ones({600, 2, 4, 5});
  const Tensor y = applied(cutout(3), x);
  CHECK(same_bits(select(y, 1, 0), select(y, 1, 1)));
  std::vector<int> sizes(10);
  for (std::int64_t i = 0; i < 600; ++i) {
    const Tensor image = select(select(y, 0, i), 0, 0);
    const double black = 20 - sum(image).item();
    // A corner leaves 2 x 2, an edge 2 x 3, the inside 3 x 3.
    CHECK((black == 4 || black == 6 || black == 9));
    ++sizes[static_cast<std::size_t>(black)];
  }
  CHECK(sizes[4] > 80);  // 4, 10 and 6 of the 20 pixels
  CHECK(sizes[6] > 240);
  CHECK(sizes[9] > 130);
  const Tensor all = applied(cutout(9), ones({20, 1, 4, 5}));
  CHECK(sum(all).item() == 0);
  const Tensor even = applied(cutout(2), ones({50, 1, 1, 3}));
  for (std::int64_t i = 0; i < 50; ++i) {  // pixel k and the one at its right
    const auto row = contiguous(select(even, 0, i)).to_vector<float>();
    const bool good = row == std::vector<float>{0, 0, 1} || row == std::vector<float>{1, 0, 0} ||
                      row == std::vector<float>{1, 1, 0};
    CHECK(good);
  }
  CHECK(message_of<ValueError>([] { cutout(0); }) ==
        "cutout: the size must be at least 1 and at most 1048576; got 0");
  CHECK_THROWS_AS(cutout(1 + (1 << 20)), ValueError);
}

TEST_CASE("normalize by the statistics of a set: mean 0 and deviation 1 in every channel") {
  Rng rng(3);
  std::vector<std::uint8_t> pixels;
  for (int i = 0; i < 5 * 2 * 6; ++i)
    pixels.push_back(static_cast<std::uint8_t>(rng.below(i / 6 % 2 == 0 ? 256 : 40)));
  const ImageSet set({2, 2, 3}, pixels, {0, 0, 0, 0, 0}, {"a"});
  const ChannelStatistics s = channel_statistics(set);
  REQUIRE(s.mean.size() == 2);
  CHECK(s.mean[0] > s.mean[1]);
  const Tensor y = applied(normalize(s.mean, s.std), set.images());
  for (std::int64_t c = 0; c < 2; ++c) {
    CHECK(std::abs(mean(select(y, 1, c)).item()) < 1e-5);
    CHECK(mean(square(select(y, 1, c))).item() == doctest::Approx(1).epsilon(1e-5));
  }
  const Tensor z = applied(normalize({0.5}, {0.25}), from_vector<float>({0, 0.5, 1}, {1, 1, 1, 3}));
  CHECK(z.to_vector<float>() == std::vector<float>{-2, 0, 2});
  CHECK_THROWS_AS(applied(normalize({0.5}, {0.25}), ones({1, 3, 2, 2})), ShapeError);
  CHECK_THROWS_AS(normalize({}, {}), ValueError);
  CHECK_THROWS_AS(normalize({0.5}, {0}), ValueError);
  CHECK_THROWS_AS(normalize({0.5, 0.5}, {1}), ValueError);
  CHECK_THROWS_AS(channel_statistics(ImageSet()), ValueError);
}

TEST_CASE("compose: in order, with one generator, in a loader as well") {
  const Tensor x = from_vector<float>({1, 2, 3, 4}, {1, 1, 1, 4});
  const Transform both = compose({{}, random_flip(1), center_crop(1, 3)});
  CHECK(applied(both, x).to_vector<float>() == std::vector<float>{4, 3, 2});
  CHECK(applied(compose({center_crop(1, 3), random_flip(1)}), x).to_vector<float>() ==
        std::vector<float>{3, 2, 1});
  CHECK_FALSE(compose({}));
  CHECK_FALSE(compose({{}, {}}));
  const ImageSet set({1, 4, 4}, std::vector<std::uint8_t>(16 * 30, 9),
                     std::vector<std::int64_t>(30), {"a"});
  const auto epoch = [&](std::int64_t prefetch) {
    DataLoader loader(set, {.batch_size = 7,
                            .seed = 4,
                            .prefetch = prefetch,
                            .transform = compose({random_flip(), random_crop(2), cutout(2)})});
    TensorList images;
    for (const Batch& b : loader) images.push_back(b.images);
    return cat(images);
  };
  CHECK(same_bits(epoch(0), epoch(3)));
}
