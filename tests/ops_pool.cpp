#include "ops_support.hpp"

#include <cmath>
#include <limits>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/pool.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct Geometry {
  Dims size, kernel;
  PoolOptions options;
};

const std::vector<Geometry> kGeometries = {
    {{4, 6}, {2, 2}, {}},
    {{5, 7}, {2, 3}, {}},  // rows and columns are left over
    {{5, 6}, {3, 2}, {.stride = {1, 2}, .padding = {1, 1}}},
    {{5, 4}, {3, 3}, {.stride = {2, 1}, .padding = {1, 0}, .count_include_pad = false}},
    {{7, 7}, {2, 2}, {.stride = {3, 3}}},  // gaps between the windows
    {{1, 1}, {1, 1}, {}},
    {{2, 3}, {2, 3}, {}},
};

/// The definition on one plane, written over the padded image.
Values naive(const Values& x, const Geometry& g, bool maximum) {
  const Dims stride = g.options.stride.empty() ? g.kernel : g.options.stride;
  const Dims pad = g.options.padding;
  Values y;
  for (std::int64_t i = -pad[0]; i + g.kernel[0] <= g.size[0] + pad[0]; i += stride[0])
    for (std::int64_t j = -pad[1]; j + g.kernel[1] <= g.size[1] + pad[1]; j += stride[1]) {
      double best = -kInf, total = 0;
      int inside = 0;
      for (std::int64_t r = i; r < i + g.kernel[0]; ++r)
        for (std::int64_t c = j; c < j + g.kernel[1]; ++c) {
          if (r < 0 || c < 0 || r >= g.size[0] || c >= g.size[1]) continue;
          const double v = x[static_cast<std::size_t>(r * g.size[1] + c)];
          best = std::max(best, v);
          total += v;
          ++inside;
        }
      const auto all = static_cast<double>(g.kernel.numel());
      y.push_back(maximum ? best : total / (g.options.count_include_pad ? all : inside));
    }
  return y;
}

}  // namespace

TEST_CASE("pooling equals loops over the padded image, for any strides") {
  for (const Geometry& g : kGeometries) {
    CAPTURE(g.size.str());
    const Tensor x = swapped_storage(random({2, 3, g.size[0], g.size[1]}));
    Values largest, average;
    for (int b = 0; b < 2; ++b)
      for (int c = 0; c < 3; ++c) {
        const Values plane = values(select(select(x, 0, b), 0, c));
        for (double v : naive(plane, g, true)) largest.push_back(v);
        for (double v : naive(plane, g, false)) average.push_back(v);
      }
    CHECK(values(max_pool2d(x, g.kernel, g.options)) == largest);
    check_close(values(avg_pool2d(x, g.kernel, g.options)), average);
  }
}

TEST_CASE("pooling has gradients of both orders") {
  for (const Geometry& g : kGeometries) {
    CAPTURE(g.size.str());
    const Tensor x = random({1, 2, g.size[0], g.size[1]});
    check_gradients(
        [&](const TensorList& in) {
          return TensorList{square(max_pool2d(in[0], g.kernel, g.options)),
                            square(avg_pool2d(in[0], g.kernel, g.options))};
        },
        {x});
    const Tensor y = avg_pool2d(x, g.kernel, g.options);
    check_gradients(
        [&](const TensorList& in) {
          return TensorList{square(avg_pool2d_input(in[0], g.size, g.kernel, g.options))};
        },
        {y});
    const Tensor gy = random(y.shape(), 2);
    CHECK(dot(y, gy) == doctest::Approx(dot(x, avg_pool2d_input(gy, g.size, g.kernel, g.options))));
  }
}

TEST_CASE("max_pool2d gives the gradient to the first maximiser") {
  const Tensor x = ones({1, 1, 4, 4}, DType::f64).requires_grad_();
  const Tensor y = max_pool2d(x, {2, 2});
  CHECK(values(grad(sum(y), x)) == Values{1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0});
  // Overlapping windows add up.
  const Tensor peak = from_vector(Values{0, 0, 0, 0, 9, 0, 0, 0, 0}, {1, 1, 3, 3}).requires_grad_();
  const Tensor z = max_pool2d(peak, {2, 2}, {.stride = {1, 1}});
  CHECK(values(grad(sum(z), peak)) == Values{0, 0, 0, 0, 4, 0, 0, 0, 0});
}

TEST_CASE("max_pool2d propagates NaN and takes -infinity for a value") {
  const Tensor x = from_vector(Values{1, kNan, kNan, 5, -kInf, -kInf, -kInf, -kInf}, {1, 2, 2, 2});
  const Values y = values(max_pool2d(x, {2, 2}));
  CHECK(std::isnan(y[0]));
  CHECK(y[1] == -kInf);
  const Tensor leaf = x.detach().requires_grad_();
  const Tensor g = grad(max_pool2d(leaf, {2, 2}), leaf, ones({1, 2, 1, 1}, DType::f64));
  CHECK(values(g) == Values{0, 1, 0, 0, 1, 0, 0, 0});
}

TEST_CASE("pooling of an empty batch is empty") {
  CHECK(max_pool2d(empty({0, 3, 4, 4}), {2, 2}).shape() == Shape{0, 3, 2, 2});
  CHECK(avg_pool2d(empty({2, 0, 4, 4}), {2, 2}).shape() == Shape{2, 0, 2, 2});
}

TEST_CASE("pooling gives the same bits for any number of threads") {
  Rng rng(1);
  const Tensor x = randn({8, 16, 20, 20}, rng);
  const PoolOptions o = {.stride = {1, 1}, .padding = {1, 1}};
  const Tensor gy = randn({8, 16, 20, 20}, rng);
  const auto run = [&] {
    const Tensor leaf = x.detach().requires_grad_();
    const Tensor y = max_pool2d(leaf, {3, 3}, o) * avg_pool2d(leaf, {3, 3}, o);
    return grad(y, leaf, gy).to_vector<float>();
  };
  const int before = num_threads();
  set_num_threads(1);
  const auto expected = run();
  for (int n : {2, 3, 7}) {
    set_num_threads(n);
    CHECK(run() == expected);
  }
  set_num_threads(before);
}

TEST_CASE("pooling names what does not fit") {
  const Tensor x = ones({1, 1, 4, 4});
  CHECK_THROWS_WITH_AS(max_pool2d(ones({4, 4}), {2, 2}),
                       "max_pool2d: takes images [B, C, H, W]; got [4, 4]", ShapeError);
  CHECK_THROWS_WITH_AS(avg_pool2d(x, {5, 2}),
                       "avg_pool2d: the window must fit into the padded image; got image = [4, 4], "
                       "kernel = [5, 2], padding = [0, 0]",
                       ShapeError);
  constexpr std::int64_t kHuge = 1LL << 40;  // its square has no place in 64 bits
  CHECK(avg_pool2d(x, {kHuge, kHuge}, {.padding = {kHuge / 2, kHuge / 2}}).item() ==
        doctest::Approx(16 * 0x1p-80));
  CHECK_THROWS_AS(max_pool2d(ones({1, 1, 0, 4}), {1, 1}), ShapeError);
  CHECK_THROWS_AS(max_pool2d(x, {2}), ShapeError);
  CHECK_THROWS_AS(max_pool2d(x, {2, 2}, {.stride = {1}}), ShapeError);
  CHECK_THROWS_WITH_AS(max_pool2d(x, {0, 2}), doctest::Contains("kernel = [0, 2]"), ValueError);
  CHECK_THROWS_AS(max_pool2d(x, {2, 2}, {.stride = {0, 1}}), ValueError);
  CHECK_THROWS_AS(max_pool2d(x, {2, 2}, {.stride = {-1, 1}}), ValueError);
  CHECK_THROWS_AS(avg_pool2d(x, {2, 2}, {.padding = {2, 0}}), ValueError);
  CHECK_THROWS_AS(avg_pool2d(x, {2, 2}, {.padding = {0, -1}}), ValueError);
  CHECK_THROWS_AS(max_pool2d(ones({1, 1, 4, 4}, DType::i64), {2, 2}), DTypeError);
  CHECK_THROWS_WITH_AS(avg_pool2d_input(ones({1, 1, 3, 2}), {4, 4}, {2, 2}),
                       doctest::Contains("has 2 by 2 windows of [2, 2]; got gy = [1, 1, 3, 2]"),
                       ShapeError);
}

namespace {

/// sin(0.7 i + 0.3): the input of the numbers from PyTorch below.
Tensor wave(const Shape& shape) {
  Values v;
  for (std::int64_t i = 0; i < shape.numel(); ++i)
    v.push_back(std::sin(0.7 * static_cast<double>(i) + 0.3));
  return from_vector(v, shape);
}

}  // namespace

TEST_CASE("adaptive pooling agrees with PyTorch 1.13, for sizes that divide nothing") {
  const Tensor x = wave({1, 1, 5, 7});
  check_close(values(adaptive_avg_pool2d(x, {3, 4})),
              {-0.030085032, 0.549450049, 0.434658342, -0.225410838, -0.367514529, -0.337858319,
               0.126380363, 0.422418791, 0.627450455, -0.00028842, -0.640079496, -0.461197063},
              2e-6);
  check_close(values(adaptive_max_pool2d(x, {3, 4})),
              {0.841470985, 0.99166481, 0.989358247, 0.66296923, 0.65028784, 0.850436621,
               0.989358247, 0.986771964, 0.983906695, 0.983906695, -0.008851309, 0.343314929},
              1e-7);
  // More windows than pixels.
  check_close(values(adaptive_avg_pool2d(wave({1, 1, 2, 3}), {3, 5})),
              {0.295520207, 0.568495596, 0.841470985, 0.916567898, 0.99166481, 0.485491694,
               0.463508759, 0.441525824, 0.315714642, 0.18990346, 0.675463181, 0.358521921,
               0.041580662, -0.285138614, -0.611857891},
              1e-7);
}

TEST_CASE("adaptive pooling: even windows, global pooling, the image itself") {
  const Tensor x = swapped_storage(random({2, 3, 6, 4}));
  check_close(values(adaptive_avg_pool2d(x, {3, 2})), values(avg_pool2d(x, {2, 2})));
  CHECK(values(adaptive_max_pool2d(x, {3, 2})) == values(max_pool2d(x, {2, 2})));
  check_close(values(adaptive_avg_pool2d(x, {1, 1})), values(mean(x, {2, 3})));
  CHECK(values(adaptive_max_pool2d(x, {1, 1})) == values(max(x, {2, 3})));
  CHECK(values(adaptive_avg_pool2d(x, {6, 4})) == values(x));
  CHECK(values(adaptive_max_pool2d(x, {6, 4})) == values(x));
  // A long sum of f32: each of a million equal terms counts.
  CHECK(values(adaptive_avg_pool2d(full({1, 1, 1000, 1000}, 0.1), {1, 1}))[0] ==
        doctest::Approx(0.1f).epsilon(1e-7));
}

TEST_CASE("adaptive pooling keeps a NaN to the windows that see it, and refuses bad sizes") {
  Tensor x = zeros({1, 1, 4, 4}, DType::f64);
  x.mutable_data<double>()[0] = kNan;
  x.mutable_data<double>()[15] = -kInf;
  for (const Values& y :
       {values(adaptive_avg_pool2d(x, {2, 2})), values(adaptive_max_pool2d(x, {2, 2}))}) {
    CHECK(std::isnan(y[0]));
    CHECK(y[1] == 0);
    CHECK(y[2] == 0);
  }
  CHECK(values(adaptive_avg_pool2d(x, {2, 2}))[3] == -kInf);
  CHECK(values(adaptive_max_pool2d(x, {2, 2}))[3] == 0);
  CHECK_THROWS_WITH_AS(
      adaptive_avg_pool2d(x, {0, 2}),
      "adaptive_avg_pool2d: the output must have at least one row and one column; got [0, 2]",
      ValueError);
  CHECK_THROWS_AS(adaptive_max_pool2d(x, {2, -1}), ValueError);
  CHECK_THROWS_AS(adaptive_max_pool2d(x, {2}), ShapeError);
  for (const std::int64_t many : {std::int64_t{1} << 32, std::int64_t{1} << 62}) {
    CHECK_THROWS_AS(adaptive_max_pool2d(x, {many, many}), ShapeError);
    CHECK_THROWS_AS(adaptive_avg_pool2d(x, {many, many}), ShapeError);
  }
  CHECK_THROWS_AS(adaptive_avg_pool2d(zeros({1, 1, 0, 4}), {1, 1}), ShapeError);
  CHECK_THROWS_AS(adaptive_avg_pool2d(zeros({4, 4}), {1, 1}), ShapeError);
  CHECK_THROWS_AS(adaptive_avg_pool2d(zeros({1, 1, 4, 4}, DType::i64), {1, 1}), DTypeError);
  CHECK_THROWS_AS(adaptive_avg_pool2d_input(x, {0, 4}), ShapeError);
}
