#include "ops_conv_cases.hpp"
#include "support.hpp"

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

ConvOptions with(ConvOptions o, ConvAlgorithm a) {
  o.algorithm = a;
  return o;
}

/// The three products in f32 by an algorithm.
TensorList products(const Case& c, ConvAlgorithm algorithm) {
  const ConvOptions o = with(c.options, algorithm);
  const Tensor x = to(random(c.x, 1), DType::f32), w = to(random(c.weight, 2), DType::f32),
               b = to(random({c.weight[0]}, 3), DType::f32), gy = to(random(c.y(), 4), DType::f32);
  return {conv2d(x, w, b, o), conv2d_input(gy, w, c.size(), o),
          conv2d_weight(x, gy, c.kernel(), o)};
}

/// The same in f64, from the same f32 numbers.
TensorList exact(const Case& c) {
  const auto rounded = [](const Tensor& t) { return to(to(t, DType::f32), DType::f64); };
  const Tensor x = rounded(random(c.x, 1)), w = rounded(random(c.weight, 2)),
               b = rounded(random({c.weight[0]}, 3)), gy = rounded(random(c.y(), 4));
  return {conv2d(x, w, b, c.options), conv2d_input(gy, w, c.size(), c.options),
          conv2d_weight(x, gy, c.kernel(), c.options)};
}

void check_transform(const Case& c) {
  CAPTURE(c.str());
  const std::string name =
      conv2d_algorithm(c.x, c.weight, with(c.options, ConvAlgorithm::transform));
  CAPTURE(name);
  // Four outputs of three taps have real points, where values cancel more.
  const double tolerance = name == "transform 4x4" ? 4e-6 : 2e-6;
  const TensorList got = products(c, ConvAlgorithm::transform), want = exact(c);
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(distance(got[i], values(want[i])) < tolerance);
  }
}

/// Layers that the transform is for, with few images; under a sanitizer with few channels.
constexpr std::int64_t kPart = testing::kSanitized ? 4 : 1;
const std::vector<Case> kLayers = {
    {{3, 256 / kPart, 20, 20},
     {256 / kPart, 256 / kPart, 9, 9},
     {.stride = {2, 2}}},  // primary capsules
    {{3, 64 / kPart, 26, 26}, {64 / kPart, 64 / kPart, 3, 3}, {}},
    {{5, 128 / kPart, 10, 10}, {128 / kPart, 128 / kPart, 3, 3}, {}},
};

/// Enough images for sums of weights of several groups, of unequal size.
const Case kManyImages = {{67, 9, 26, 26}, {10, 9, 3, 3}, {}};

}  // namespace

TEST_CASE("the transform gives what the definition gives on a grid of geometries") {
  int checked = 0;
  for (const Dims& size : {Dims{1, 1}, Dims{6, 9}, Dims{23, 14}})
    for (const Dims& kernel : {Dims{1, 1}, Dims{3, 3}, Dims{2, 5}, Dims{9, 4}})
      for (const std::int64_t stride : {1, 2, 3})
        for (const std::int64_t padding : {0, 1, 4}) {
          const Case c = {{1 + checked % 3, 1 + 7 * (checked % 4), size[0], size[1]},
                          {2 + 9 * (checked % 3), 1 + 7 * (checked % 4), kernel[0], kernel[1]},
                          {.stride = {stride, 4 - stride}, .padding = {padding, padding / 2}}};
          if (c.out(0) < 1 || c.out(1) < 1) continue;
          ++checked;
          check_transform(c);
        }
  CHECK(checked > 60);
}

TEST_CASE("the transform keeps the digits of the layers that it is for") {
  for (const Case& c : kLayers) check_transform(c);
}

TEST_CASE("blocks of images and of channels change nothing") {
  // More than one block of each: the workspace is bounded.
  check_transform({{70, 40, 14, 14}, {40, 40, 5, 5}, {}});
  check_transform(kManyImages);
  if (testing::kSanitized) return;  // slow there
  check_transform({{2, 300, 12, 12}, {260, 300, 9, 9}, {.stride = {2, 2}}});
}

TEST_CASE("groups of images for the gradient of the weights: none is empty, whatever memory held") {
  // Many tiles an image and few images: more groups than these would be cut.
  for (const std::int64_t batch : {8, 9, 15}) {
    const Case c = {{batch, 8, 64, 72}, {8, 8, 3, 3}, {.padding = {1, 1}}};
    static_cast<void>(full({1 << 22}, 1e6F));  // freed, and handed out again
    check_transform(c);
  }
}

TEST_CASE("the transform has the same bits for any number of threads") {
  for (const Case& c :
       {kLayers[1], Case{{9, 40, 12, 13}, {24, 40, 5, 5}, {.stride = {2, 1}}}, kManyImages}) {
    std::vector<std::vector<float>> expected;
    for (const int n : {1, 2, 3, 7}) {
      const testing::Threads threads(n);
      const TensorList got = products(c, ConvAlgorithm::transform);
      for (std::size_t i = 0; i < got.size(); ++i)
        if (n == 1)
          expected.push_back(got[i].to_vector<float>());
        else
          CHECK((got[i].to_vector<float>() == expected[i]));
    }
  }
}

TEST_CASE("gradients of the first and the second order take the algorithm of the convolution") {
  const Case c = {{2, 9, 8, 8}, {10, 9, 3, 3}, {.padding = {1, 1}}};
  const auto gradients = [&](ConvAlgorithm algorithm) {
    const ConvOptions o = with(c.options, algorithm);
    Tensor x = to(random(c.x, 1), DType::f32), w = to(random(c.weight, 2), DType::f32);
    x.requires_grad_();
    w.requires_grad_();
    const Tensor slope = grad(sum(square(conv2d(x, w, {}, o))), x, {}, {.create_graph = true});
    backward(sum(square(slope)));
    return TensorList{slope, x.grad(), w.grad()};
  };
  const TensorList a = gradients(ConvAlgorithm::transform), b = gradients(ConvAlgorithm::direct);
  for (std::size_t i = 0; i < a.size(); ++i) {
    CHECK(distance(a[i], values(b[i])) < 1e-5);
    CHECK(values(a[i]) != values(b[i]));  // else it was the same algorithm
  }
}

TEST_CASE("a convolution says which algorithm it runs") {
  const ConvOptions two = {.stride = {2, 2}};
  CHECK(conv2d_algorithm({128, 256, 20, 20}, {256, 256, 9, 9}, two) == "transform 6x6");
  CHECK(conv2d_algorithm({128, 256, 20, 20}, {256, 256, 9, 9}, two, DType::f64) == "direct");
  CHECK(conv2d_algorithm({128, 1, 28, 28}, {256, 1, 9, 9}) == "direct");
  CHECK(conv2d_algorithm({8, 16, 9, 9}, {16, 16, 1, 1}) == "matrix product");
  CHECK(conv2d_algorithm({8, 16, 9, 9}, {16, 1, 9, 9}, {.groups = 16}) == "matrix product");
  CHECK(conv2d_algorithm({8, 16, 9, 9}, {16, 1, 9, 9}, {.padding = {1, 0}, .groups = 16}) ==
        "direct");
  CHECK(conv2d_algorithm({128, 256, 20, 20}, {256, 256, 9, 9}, with(two, ConvAlgorithm::direct)) ==
        "direct");
  const Case c = kLayers[0];
  const TensorList automatic = products(c, ConvAlgorithm::automatic),
                   direct = products(c, ConvAlgorithm::direct);
  const bool same = conv2d_algorithm(c.x, c.weight, c.options) == "direct";
  for (std::size_t i = 0; i < direct.size(); ++i)
    CHECK((values(automatic[i]) == values(direct[i])) == same);
}

TEST_CASE("a transform that cannot be says why") {
  const ConvOptions o = {.groups = 2, .algorithm = ConvAlgorithm::transform};
  CHECK_THROWS_WITH_AS(conv2d(random({1, 4, 8, 8}), random({4, 2, 3, 3}), {}, o),
                       doctest::Contains("conv2d: the transform takes f32, one group, no dilation"),
                       ValueError);
  CHECK_THROWS_AS(conv2d(random({1, 4, 8, 8}), random({4, 4, 3, 3}), {},
                         {.algorithm = ConvAlgorithm::transform}),
                  ValueError);  // f64
  CHECK_THROWS_AS(
      conv2d_algorithm({1, 4, 20, 20}, {4, 4, 13, 3}, {.algorithm = ConvAlgorithm::transform}),
      ValueError);
}

TEST_CASE("the name of an algorithm is asked for with shapes and a type that conv2d takes") {
  CHECK_THROWS_WITH_AS(conv2d_algorithm({20, 20}, {3, 3}),
                       "conv2d_algorithm: takes the shapes of images [B, C, H, W] and weights [O, "
                       "C/groups, kh, kw]; got x = [20, 20], weight = [3, 3]",
                       ShapeError);
  CHECK_THROWS_AS(conv2d_algorithm({1, 4, 20, 20}, {4, 4, 3}), ShapeError);
  CHECK_THROWS_AS(conv2d_algorithm({1, 1, 4, 20, 20}, {4, 4, 3, 3}), ShapeError);
  CHECK_THROWS_AS(conv2d_algorithm({1, 4, 20, 20}, {4, 4, 3, 3}, {}, DType::i64), DTypeError);
}

TEST_CASE("the transform needs bounded memory") {
  if (testing::kSanitized) return;  // slow there, and counts what the others touch
  const testing::Threads threads(2);
  const Case c = {{96, 64, 20, 20}, {128, 64, 9, 9}, {.stride = {2, 2}}};
  Rng rng(1);
  const ConvOptions o = with(c.options, ConvAlgorithm::transform);
  const Tensor x = randn(c.x, rng), w = randn(c.weight, rng), gy = randn(c.y(), rng);
  const auto extra = [](const auto& f) {
    const std::size_t live = memory_stats().live;
    reset_peak_memory();
    const Tensor y = f();
    return memory_stats().peak - live - static_cast<std::size_t>(y.numel()) * 4;
  };
  const std::size_t bound = std::size_t{66} << 20;
  CHECK(extra([&] { return conv2d(x, w, {}, o); }) < bound);
  CHECK(extra([&] { return conv2d_input(gy, w, c.size(), o); }) < bound);
  CHECK(extra([&] { return conv2d_weight(x, gy, c.kernel(), o); }) < bound);
}
