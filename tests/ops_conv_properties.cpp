#include "ops_conv_cases.hpp"
#include "support.hpp"

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

/// All results of a case, one after the other.
std::vector<float> results(const Case& c) {
  Rng rng(5);
  const Tensor x = randn(c.x, rng), w = randn(c.weight, rng), gy = randn(c.y(), rng);
  std::vector<float> all;
  for (const Tensor& t :
       {conv2d(x, w, {}, c.options), conv2d_input(gy, w, c.size(), c.options),
        conv2d_weight(x, gy, c.kernel(), c.options), unfold(x, c.kernel(), c.options)}) {
    const auto v = t.to_vector<float>();
    all.insert(all.end(), v.begin(), v.end());
  }
  return all;
}

}  // namespace

TEST_CASE("the gradients of a convolution are its adjoints") {
  for (const auto* cases : {&kSmallCases, &kLargeCases})
    for (const Case& c : *cases) {
      CAPTURE(c.str());
      const Tensor x = random(c.x, 1), w = random(c.weight, 2), gy = random(c.y(), 3);
      const double product = dot(conv2d(x, w, {}, c.options), gy), scale = 1e-10;
      CHECK(std::abs(dot(x, conv2d_input(gy, w, c.size(), c.options)) - product) <
            scale * (1 + std::abs(product)));
      CHECK(std::abs(dot(w, conv2d_weight(x, gy, c.kernel(), c.options)) - product) <
            scale * (1 + std::abs(product)));
    }
}

TEST_CASE("convolutions have right gradients of the first and the second order") {
  for (const Case& c : kSmallCases) {
    CAPTURE(c.str());
    const ConvOptions o = c.options;
    const Dims size = c.size(), kernel = c.kernel();
    const Tensor x = random(c.x, 1), w = random(c.weight, 2), gy = random(c.y(), 3),
                 bias = random({c.weight[0]}, 4);
    check_gradients(
        [o](const TensorList& in) { return TensorList{conv2d(in[0], in[1], in[2], o)}; },
        {x, w, bias});
    check_gradients(
        [=](const TensorList& in) { return TensorList{conv2d_input(in[0], in[1], size, o)}; },
        {gy, w});
    check_gradients(
        [=](const TensorList& in) { return TensorList{conv2d_weight(in[0], in[1], kernel, o)}; },
        {x, gy});
    check_gradients(
        [=](const TensorList& in) { return TensorList{square(unfold(in[0], kernel, o))}; }, {x});
    const Tensor columns = random(unfold(x, kernel, o).shape(), 5);
    check_gradients(
        [=](const TensorList& in) { return TensorList{square(fold(in[0], size, kernel, o))}; },
        {columns});
  }
}

TEST_CASE("a convolution with constants gives the gradients of the rest") {
  const Case& c = kSmallCases[0];
  const Tensor x = random(c.x, 1);
  Tensor w = random(c.weight, 2), b = random({c.weight[0]}, 3);
  w.requires_grad_();
  b.requires_grad_();
  const Tensor y = conv2d(x, w, b, c.options);
  backward(sum(y));
  CHECK_FALSE(x.grad().defined());
  check_close(values(b.grad()), Values(3, static_cast<double>(y.numel()) / 3));
  check_close(values(w.grad()), values(conv2d_weight(x, ones_like(y), c.kernel(), c.options)));
  // A frozen weight: the gradient of the image alone.
  Tensor image = x.detach();
  image.requires_grad_();
  const Tensor gx = grad(sum(conv2d(image, w.detach(), {}, c.options)), image);
  check_close(values(gx), values(conv2d_input(ones_like(y), w.detach(), c.size(), c.options)));
}

TEST_CASE("convolutions have the same bits for any number of threads") {
  std::vector<std::vector<float>> expected;
  for (const int n : {1, 2, 3, 7}) {
    const testing::Threads threads(n);
    for (std::size_t i = 0; i < kLargeCases.size(); ++i) {
      CAPTURE(n);
      CAPTURE(kLargeCases[i].str());
      const auto r = results(kLargeCases[i]);
      if (n == 1)
        expected.push_back(r);
      else
        CHECK((r == expected[i]));
    }
  }
}

TEST_CASE("a direct convolution needs little memory besides its result") {
  const testing::Threads threads(2);
  const Case c = {
      {64, 16, 20, 20}, {16, 16, 9, 9}, {.stride = {2, 2}, .algorithm = ConvAlgorithm::direct}};
  Rng rng(1);
  const Tensor x = randn(c.x, rng), w = randn(c.weight, rng), gy = randn(c.y(), rng);
  const std::size_t patches = 4 * 64 * 36 * 16 * 81;  // bytes of all patches, written out
  const auto extra = [](const auto& f) {
    const std::size_t live = memory_stats().live;
    reset_peak_memory();
    const Tensor y = f();
    return memory_stats().peak - live - static_cast<std::size_t>(y.numel()) * 4;
  };
  CHECK(extra([&] { return conv2d(x, w, {}, c.options); }) < patches / 8);
  CHECK(extra([&] { return conv2d_input(gy, w, c.size(), c.options); }) < patches / 8);
  CHECK(extra([&] { return conv2d_weight(x, gy, c.kernel(), c.options); }) < patches / 8);
}
