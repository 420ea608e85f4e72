// Sets made of others: what is in them, exactly on small images, and how it is distributed.

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>
#include <capsfw/core/random.hpp>
#include <capsfw/data/synthetic.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

/// `n` images of one pixel, [1, 1, 1]: image i has the byte 50 + i, label i % classes.
ImageSet points(std::int64_t n, std::int64_t classes) {
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    pixels.push_back(static_cast<std::uint8_t>(50 + i));
    labels.push_back(i % classes);
  }
  return ImageSet({1, 1, 1}, pixels, labels, detail::numbered_classes(classes));
}

float byte(int v) { return static_cast<float>(v) / 255.0f; }

/// Where the only pixel above 0 of a [1, H, W] image is: row * W + column; -1 if it is not alone.
int place_of(const Tensor& image) {
  int at = -1;
  const auto v = contiguous(image).to_vector<float>();
  for (std::size_t i = 0; i < v.size(); ++i)
    if (v[i] > 0) {
      if (at >= 0) return -1;
      at = static_cast<int>(i);
    }
  return at;
}

}  // namespace

TEST_CASE("overlapped pairs: two classes, both images, their sum at most 1") {
  const ImageSet set = points(6, 3);
  const OverlappedPairs pairs(set, {.max_shift = 1, .per_image = 3, .seed = 5});
  CHECK(pairs.size() == 18);
  CHECK(pairs.image_shape() == Shape{1, 3, 3});
  const PairBatch all = pairs.range(0, 18);
  const auto labels = all.labels.to_vector<std::int64_t>();
  bool together = false;
  for (std::int64_t i = 0; i < 18; ++i) {
    const auto k = static_cast<std::size_t>(i);
    CHECK(labels[2 * k] == i % 6 % 3);
    CHECK(labels[2 * k + 1] != labels[2 * k]);
    const Tensor a = select(all.first, 0, i), b = select(all.second, 0, i);
    const int at = place_of(a), beside = place_of(b);
    REQUIRE(at >= 0);
    REQUIRE(beside >= 0);
    CHECK(contiguous(a).to_vector<float>()[static_cast<std::size_t>(at)] ==
          byte(50 + static_cast<int>(i % 6)));
    together = together || at == beside;
    for (std::size_t p = 0; p < 9; ++p) {
      const float sum = contiguous(a).to_vector<float>()[p] + contiguous(b).to_vector<float>()[p];
      CHECK(contiguous(select(all.images, 0, i)).to_vector<float>()[p] == std::min(sum, 1.0f));
    }
  }
  CHECK(together);
  // Any batch, any order: pair i is the same.
  const PairBatch some = pairs.at({11, 4, 4});
  CHECK(same_bits(some.images, cat({narrow(all.images, 0, 11, 1), narrow(all.images, 0, 4, 1),
                                    narrow(all.images, 0, 4, 1)})));
  const PairBatch other =
      OverlappedPairs(set, {.max_shift = 1, .per_image = 3, .seed = 6}).range(0, 18);
  CHECK_FALSE(same_bits(other.images, all.images));
  CHECK(pairs.range(3, 3).size() == 0);
}

TEST_CASE("overlapped pairs: white on white stays white") {
  const ImageSet set({1, 1, 1}, {200, 201}, {0, 1}, {"a", "b"});
  const PairBatch one = OverlappedPairs(set, {.max_shift = 0}).range(0, 2);
  CHECK(one.images.to_vector<float>() == std::vector<float>{1, 1});
  CHECK(one.first.to_vector<float>() == std::vector<float>{byte(200), byte(201)});
  CHECK(one.second.to_vector<float>() == std::vector<float>{byte(201), byte(200)});
}

TEST_CASE("overlapped pairs: shifts and partners are uniform") {
  const ImageSet set = points(4, 4);
  const OverlappedPairs pairs(set, {.max_shift = 1, .per_image = 450});
  const PairBatch all = pairs.range(0, 1800);
  std::vector<int> places(9), partners(16);
  const auto labels = all.labels.to_vector<std::int64_t>();
  for (std::int64_t i = 0; i < 1800; ++i) {
    ++places[static_cast<std::size_t>(place_of(select(all.second, 0, i)))];
    ++partners[static_cast<std::size_t>(labels[static_cast<std::size_t>(2 * i)] * 4 +
                                        labels[static_cast<std::size_t>(2 * i + 1)])];
  }
  for (const int n : places) CHECK(std::abs(n - 200) < 68);  // five deviations of 13.3
  for (std::size_t p = 0; p < 16; ++p)
    CHECK(std::abs(partners[p] - (p % 5 == 0 ? 0 : 150)) <= (p % 5 == 0 ? 0 : 50));
}

TEST_CASE("overlap: every image of a batch with the next one of another class") {
  Rng rng(3);
  const Tensor images = rand({4, 2, 3, 2}, rng);
  const PairBatch pairs = overlap(images, from_vector<std::int64_t>({5, 5, 1, 5}));
  CHECK(pairs.labels.to_vector<std::int64_t>() ==
        std::vector<std::int64_t>{5, 1, 5, 1, 1, 5, 5, 1});
  CHECK(same_bits(pairs.first, images));
  const auto alone = [&](std::int64_t i) { return narrow(images, 0, i, 1); };
  CHECK(same_bits(pairs.second, cat({alone(2), alone(2), alone(3), alone(2)})));
  CHECK(same_bits(pairs.images, minimum(images + pairs.second, 1.0)));
  CHECK(message_of<ValueError>([&] {
          overlap(images, from_vector<std::int64_t>({7, 7, 7, 7}));
        }) == "overlap: all 4 images are of class 7. Hint: a larger batch");
  CHECK_THROWS_AS(overlap(images, from_vector<std::int64_t>({7, 7, 7})), ShapeError);
  CHECK_THROWS_AS(overlap(select(images, 0, 0), from_vector<std::int64_t>({7, 8})), ShapeError);
  CHECK(overlap(zeros({0, 1, 2, 2}), zeros({0}, DType::i64)).size() == 0);
}

TEST_CASE("overlapped pairs: options and sets are checked") {
  const ImageSet set = points(4, 2);
  CHECK_THROWS_AS(OverlappedPairs(set, {.max_shift = -1}), ValueError);
  CHECK_THROWS_AS(OverlappedPairs(set, {.per_image = 0}), ValueError);
  CHECK_THROWS_AS(OverlappedPairs(set.subset({0, 2}), {}), ValueError);
  CHECK_THROWS_AS(OverlappedPairs(ImageSet(), {}), ValueError);
  const OverlappedPairs pairs(set, {});
  CHECK(pairs.image_shape() == Shape{1, 9, 9});
  CHECK_THROWS_AS(pairs.range(0, 5), ValueError);
  CHECK_THROWS_AS(pairs.range(3, 2), ValueError);
  CHECK_THROWS_AS(pairs.at({-1}), ValueError);
}

TEST_CASE("digit pairs: one image beside or above another one of another class") {
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  for (int i = 0; i < 12; ++i) {
    for (int k = 0; k < 6; ++k) pixels.push_back(static_cast<std::uint8_t>(10 * i + k));
    labels.push_back(i % 3);
  }
  const ImageSet set({1, 2, 3}, pixels, labels, {"0", "1", "2"});
  for (const bool horizontal : {false, true}) {
    const DigitPairs pairs(set, horizontal, 4);
    REQUIRE(pairs.size() > 2);
    const Tensor x = pairs.images(0, pairs.size());
    CHECK(x.shape() == (horizontal ? Shape{pairs.size(), 1, 2, 6} : Shape{pairs.size(), 1, 4, 3}));
    const auto y = pairs.labels(0, pairs.size()).to_vector<std::int64_t>();
    const int axis = horizontal ? 3 : 2;
    const std::int64_t side = horizontal ? 3 : 2;
    for (std::int64_t i = 0; i < pairs.size(); ++i) {
      const Tensor both = narrow(x, 0, i, 1);
      for (std::int64_t k = 0; k < 2; ++k) {
        const auto half = contiguous(narrow(both, axis, k * side, side)).to_vector<float>();
        const auto image = static_cast<std::int64_t>(std::lround(half[0] * 25.5f));
        CHECK(y[static_cast<std::size_t>(2 * i + k)] == image % 3);
        for (int p = 0; p < 6; ++p)
          CHECK(half[static_cast<std::size_t>(p)] == byte(static_cast<int>(10 * image) + p));
      }
      CHECK(y[static_cast<std::size_t>(2 * i)] != y[static_cast<std::size_t>(2 * i + 1)]);
    }
    CHECK_THROWS_AS(pairs.images(0, pairs.size() + 1), ValueError);
  }
}

TEST_CASE("affine digits: at every place of the canvas at which they are whole") {
  // A bar of two pixels, 1 x 2, in an image of 3 x 3.
  const ImageSet bar({1, 3, 3}, {0, 0, 0, 0, 80, 90, 0, 0, 0}, {0}, {"bar"});
  const ImageSet set = affine_digits(
      bar, {.height = 3, .width = 4, .per_image = 900, .degrees = 0, .scale = 0, .shear = 0});
  CHECK(set.size() == 900);
  CHECK(set.image_shape() == Shape{1, 3, 4});
  std::vector<int> places(12);
  const ImageSet centred = affine_digits(
      bar, {.height = 3, .width = 5, .degrees = 0, .scale = 0, .shear = 0, .translate = false});
  CHECK(centred.pixels(0)[7] == 80);
  CHECK(centred.pixels(0)[8] == 90);
  // Half a pixel off centre (3 columns in 4), the bar is three pixels wide: 40, 85, 45.
  for (std::int64_t i = 0; i < set.size(); ++i)
    for (int p = 0; p < 12; ++p)
      if (set.pixels(i)[p] == 40) {
        ++places[static_cast<std::size_t>(p)];
        CHECK(set.pixels(i)[p + 1] == 85);
        CHECK(set.pixels(i)[p + 2] == 45);
      }
  for (int p = 0; p < 12; ++p)
    CHECK(std::abs(places[static_cast<std::size_t>(p)] - (p % 4 < 2 ? 150 : 0)) <=
          (p % 4 < 2 ? 56 : 0));
}

TEST_CASE("affine digits: whole on the default canvas, in new poses, the same for the same seed") {
  std::vector<std::uint8_t> pixels(28 * 28);
  for (int y = 4; y < 24; ++y)
    for (int x = 10; x < 18; ++x) pixels[static_cast<std::size_t>(y * 28 + x)] = 200;
  const ImageSet one({1, 28, 28}, pixels, {0}, {"bar"});
  const ImageSet set = affine_digits(one, {.per_image = 60});
  CHECK(set.image_shape() == Shape{1, 40, 40});
  double least = 1e9, most = 0;
  for (std::int64_t i = 0; i < 60; ++i) {
    double ink = 0;
    for (int p = 0; p < 1600; ++p) ink += set.pixels(i)[p];
    // 160 pixels of 200, times two magnifications from 0.8 to 1.2; nothing is cut.
    least = std::min(least, ink / (160 * 200));
    most = std::max(most, ink / (160 * 200));
  }
  CHECK(least > 0.62);
  CHECK(least < 0.8);
  CHECK(most < 1.46);
  CHECK(most > 1.2);
  CHECK(same_bits(set.images(), affine_digits(one, {.per_image = 60}).images()));
  CHECK(same_bits(set.images(0, 20), affine_digits(one, {.per_image = 20}).images()));
  CHECK_FALSE(same_bits(set.images(), affine_digits(one, {.per_image = 60, .seed = 1}).images()));
  CHECK_THROWS_AS(affine_digits(one, {.height = 0}), ValueError);
  CHECK_THROWS_AS(affine_digits(one, {.per_image = 0}), ValueError);
  CHECK_THROWS_AS(affine_digits(one, {.scale = 1}), ValueError);
  CHECK_THROWS_AS(affine_digits(one, {.degrees = -1}), ValueError);
  CHECK(affine_digits(ImageSet(), {}).size() == 0);
}

TEST_CASE("noise: every byte equally often") {
  const ImageSet set = noise_images(100, {3, 16, 16}, 2);
  CHECK(set.size() == 100);
  CHECK(set.class_names() == std::vector<std::string>{"noise"});
  std::vector<int> counts(256);
  for (std::int64_t i = 0; i < 76800; ++i) ++counts[*(set.pixels(0) + i)];
  for (const int n : counts) CHECK(std::abs(n - 300) < 95);  // more than five deviations
  CHECK(same_bits(set.images(), noise_images(100, {3, 16, 16}, 2).images()));
  CHECK_FALSE(same_bits(set.images(), noise_images(100, {3, 16, 16}, 3).images()));
  CHECK_THROWS_AS(noise_images(0, {1, 1, 1}), ValueError);
  CHECK_THROWS_AS(noise_images(1, {1, 1}), ValueError);
}

TEST_CASE("overlapped pairs: batches with two targets, as docs/data.md has it") {
  std::vector<std::uint8_t> pixels(std::size_t{4} * 28 * 28, 100);
  const ImageSet digits({1, 28, 28}, pixels, {0, 1, 2, 3}, detail::numbered_classes(10));
  // [overlap]
  const OverlappedPairs pairs(digits, {.max_shift = 4, .per_image = 1000, .seed = 1});
  const PairBatch batch = pairs.range(0, 128);
  const Tensor& images = batch.images;                   // f32 [128, 1, 36, 36]
  const Tensor targets = multi_hot(batch.labels, 10);    // [128, 10], two ones in each row
  const Tensor &one = batch.first, &two = batch.second;  // each digit alone, to reconstruct
  // [overlap]
  CHECK(pairs.size() == 4000);
  CHECK(images.shape() == Shape{128, 1, 36, 36});
  CHECK(one.shape() == images.shape());
  CHECK(two.shape() == images.shape());
  const auto t = targets.to_vector<float>();
  CHECK(std::count(t.begin(), t.end(), 1.0F) == 256);
}
