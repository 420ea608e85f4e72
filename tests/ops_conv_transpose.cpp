// Transposed convolution: PyTorch's numbers, the definition, and what is refused.

#include "ops_support.hpp"

#include <cmath>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/layout.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

/// f(factor i + shift): the inputs of the numbers from PyTorch.
Tensor wave(const Shape& shape, double (*f)(double), double factor, double shift) {
  Values v;
  for (std::int64_t i = 0; i < shape.numel(); ++i)
    v.push_back(f(factor * static_cast<double>(i) + shift));
  return from_vector(v, shape);
}

Tensor sines(const Shape& s) { return wave(s, std::sin, 0.7, 0.3); }
Tensor cosines(const Shape& s) { return wave(s, std::cos, 0.5, 0); }

}  // namespace

TEST_CASE("conv_transpose2d agrees with PyTorch 1.13") {
  const Tensor x = sines({1, 2, 2, 3}), w = cosines({2, 2, 3, 2});
  const Tensor y =
      conv_transpose2d(x, w, from_vector(Values{0.5, -0.25}),
                       {.stride = {2, 1}, .padding = {1, 0}, .dilation = {1, 2}}, {1, 0});
  CHECK(y.shape() == Shape{1, 2, 4, 5});
  check_close(values(y),
              {-0.07729191,  0.288610257, 0.435990133,  0.253286717,  0.440548737,  1.493846807,
               1.13651183,   1.728568182, 1.224727456,  0.359851476,  1.09982605,   1.163612213,
               1.071062798,  0.797732668, 0.799665395,  0.173578855,  0.358957782,  -0.118023556,
               -0.04528505,  0.394580602, 0.377052793,  -0.058740493, -0.181928862, -0.007263236,
               -0.281246616, -1.12305659, -0.83123949,  -1.47227748,  -0.967622994, -0.141515576,
               -0.952917687, -0.99075609, -0.970739554, -0.663179047, -0.591499308, -0.05701785,
               -0.234441363, 0.210067418, 0.190487024,  -0.205443645},
              1e-6);
  const ConvOptions grouped = {.stride = {2, 2}, .padding = {1, 1}, .groups = 2};
  const Tensor z = conv_transpose2d(x, w, {}, grouped, {1, 1});
  CHECK(z.shape() == Shape{1, 4, 4, 5});
  check_close(values(select(z, 1, 3)),
              {0.464851669,  0.741281649,  0.420115313,  0.313709265,  0.177792161,
               -0.783105331, -0.778768444, -1.275009558, -0.903088904, -1.167256867,
               -0.148149423, -0.713577156, -0.404414018, -0.830142337, -0.470476381,
               0.150569424,  0.003763776,  0.411020066,  0.004378601,  0.478161549},
              1e-6);
}

TEST_CASE("conv_transpose2d is the adjoint of conv2d, into the image of each output_padding") {
  const ConvOptions o = {.stride = {3, 2}, .padding = {1, 0}};
  const Tensor w = random({2, 3, 2, 2}, 3);
  for (const Dims& extra : {Dims{0, 0}, Dims{2, 0}, Dims{1, 1}}) {
    CAPTURE(extra.str());
    const Tensor gy = random({2, 2, 3, 4}, 4), y = conv_transpose2d(gy, w, {}, o, extra);
    CHECK(y.shape() == Shape{2, 3, 6 + extra[0], 8 + extra[1]});
    const Tensor x = random(y.shape(), 5);
    CHECK(dot(y, x) == doctest::Approx(dot(gy, conv2d(x, w, {}, o))));
  }
  // Stride 2 and a kernel of two ones repeat every pixel.
  const Tensor x = from_vector(Values{1, 2, 3, 4}, {1, 1, 2, 2});
  CHECK(values(conv_transpose2d(x, ones({1, 1, 2, 2}, DType::f64), {}, {.stride = {2, 2}})) ==
        Values{1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4});
}

TEST_CASE("conv_transpose2d refuses what has no meaning") {
  const Tensor x = ones({1, 2, 3, 3}), w = ones({2, 4, 3, 3});
  CHECK(conv_transpose2d(x, w).shape() == Shape{1, 4, 5, 5});
  CHECK_THROWS_WITH_AS(conv_transpose2d(x, w, {}, {.stride = {2, 2}}, {2, 0}),
                       "conv_transpose2d: output_padding must lie in [0, stride); got [2, 0] for a "
                       "stride of [2, 2]",
                       ValueError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, {}, {}, {0, -1}), ValueError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, {}, {}, {0}), ShapeError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, {}, {.padding = {3, 1}}), ShapeError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, ones({2})), ShapeError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, ones({4}, DType::f64)), DTypeError);
  CHECK_THROWS_AS(conv_transpose2d(x, ones({3, 4, 3, 3})), ShapeError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, {}, {.groups = 3}), ShapeError);
  CHECK_THROWS_AS(conv_transpose2d(x, w, {}, {.groups = 0}), ValueError);
  CHECK_THROWS_AS(conv_transpose2d(x, ones({2, 4, 3, 3}, DType::f64)), DTypeError);
  CHECK_THROWS_AS(conv_transpose2d(ones({2, 3, 3}), w), ShapeError);
}
