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
