#include "ops_support.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

struct Case {
  Shape x, weight;
  ConvOptions options;
  std::string str() const {
    return "x " + x.str() + " weight " + weight.str() + " stride " + options.stride.str() +
           " padding " + options.padding.str() + " dilation " + options.dilation.str() +
           " groups " + std::to_string(options.groups);
  }
  Dims size() const { return {x[2], x[3]}; }
  Dims kernel() const { return {weight[2], weight[3]}; }
  /// Length of an axis of the result; 0 or less where the kernel does not fit.
  std::int64_t out(int a) const {
    const ConvOptions& o = options;
    const std::int64_t room = size()[a] + 2 * o.padding[a] - o.dilation[a] * (kernel()[a] - 1) - 1;
    return room < 0 ? 0 : room / o.stride[a] + 1;
  }
  Shape y() const { return {x[0], weight[0], out(0), out(1)}; }
};

/// Calls f(index in y, index in x, index in weight) for every product of the definition.
template <class F>
void each_product(const Case& c, const F& f) {
  const ConvOptions& o = c.options;
  const std::int64_t filters = c.weight[0] / o.groups, channels = c.weight[1];
  std::size_t y = 0;
  for (std::int64_t b = 0; b < c.x[0]; ++b)
    for (std::int64_t k = 0; k < c.weight[0]; ++k)
      for (std::int64_t i = 0; i < c.out(0); ++i)
        for (std::int64_t j = 0; j < c.out(1); ++j, ++y)
          for (std::int64_t t = 0; t < channels * c.kernel().numel(); ++t) {
            const std::int64_t q = t % c.weight[3], p = t / c.weight[3] % c.weight[2],
                               channel = k / filters * channels + t / c.kernel().numel(),
                               row = i * o.stride[0] + p * o.dilation[0] - o.padding[0],
                               column = j * o.stride[1] + q * o.dilation[1] - o.padding[1];
            if (row < 0 || column < 0 || row >= c.x[2] || column >= c.x[3]) continue;
            f(y,
              static_cast<std::size_t>(((b * c.x[1] + channel) * c.x[2] + row) * c.x[3] + column),
              static_cast<std::size_t>(k * channels * c.kernel().numel() + t));
          }
}

/// Largest difference in units of the largest element.
double distance(const Tensor& a, const Values& b) {
  const Values p = values(a);
  REQUIRE(p.size() == b.size());
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < p.size(); ++i) {
    worst = std::max(worst, std::isfinite(p[i]) ? std::abs(p[i] - b[i]) : INFINITY);
    largest = std::max(largest, std::abs(b[i]));
  }
  return worst / largest;
}

/// The three products of a case on random operands of both types against the definition.
void check_against_definition(const Case& c) {
  CAPTURE(c.str());
  const Tensor x = random(c.x, 1), w = random(c.weight, 2), bias = random({c.weight[0]}, 3),
               gy = random(c.y(), 4);
  const Values xs = values(x), ws = values(w), bs = values(bias), gs = values(gy);
  Values y(gs.size()), gx(xs.size()), gw(ws.size());
  const std::size_t plane = static_cast<std::size_t>(c.out(0) * c.out(1));
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = bs[i / plane % bs.size()];
  each_product(c, [&](std::size_t iy, std::size_t ix, std::size_t iw) {
    y[iy] += xs[ix] * ws[iw];
    gx[ix] += gs[iy] * ws[iw];
    gw[iw] += gs[iy] * xs[ix];
  });
  for (const DType t : {DType::f64, DType::f32}) {
    const double tolerance = t == DType::f64 ? 1e-13 : 1e-5;
    const Tensor a = to(x, t), b = to(w, t), g = to(gy, t),
                 result = conv2d(a, b, to(bias, t), c.options);
    CHECK(result.shape() == c.y());
    CHECK(distance(result, y) < tolerance);
    CHECK(distance(conv2d_input(g, b, c.size(), c.options), gx) < tolerance);
    CHECK(distance(conv2d_weight(a, g, c.kernel(), c.options), gw) < tolerance);
  }
}

/// Shapes that take every way through the kernels: several blocks, bands of large images, slices of
/// channels and of filters, parts of the batch, plain matrix products.
const std::vector<Case> kLargeCases = {
    {{9, 3, 11, 9}, {5, 3, 3, 2}, {.stride = {2, 1}, .padding = {1, 1}}},
    {{1, 40, 13, 37}, {50, 40, 3, 3}, {.padding = {1, 1}}},
    {{2, 3, 70, 50}, {4, 3, 5, 3}, {.stride = {2, 3}, .dilation = {2, 1}}},
    {{33, 20, 6, 6}, {24, 20, 3, 3}, {}},
    {{3, 18, 12, 10}, {70, 9, 2, 3}, {.dilation = {1, 2}, .groups = 2}},
    {{2, 48, 20, 20}, {60, 48, 9, 9}, {.stride = {2, 2}}},
    {{5, 30, 9, 8}, {20, 30, 1, 1}, {}},
    {{40, 6, 3, 3}, {8, 6, 1, 1}, {.stride = {2, 2}}},
    {{4, 12, 9, 9}, {12, 1, 9, 9}, {.groups = 12}},
};

const std::vector<Case> kSmallCases = {
    {{2, 2, 5, 4}, {3, 2, 3, 2}, {.padding = {1, 0}}},
    {{2, 4, 5, 6}, {4, 2, 2, 3}, {.stride = {2, 1}, .groups = 2}},
    {{1, 1, 7, 6}, {2, 1, 3, 2}, {.stride = {1, 2}, .padding = {2, 1}, .dilation = {2, 3}}},
    {{1, 3, 1, 1}, {2, 3, 1, 1}, {}},
};

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

TEST_CASE("a convolution and both gradients follow the definition on a grid of geometries") {
  int checked = 0;
  for (const Dims& size : {Dims{1, 1}, Dims{6, 9}, Dims{8, 5}})
    for (const Dims& kernel : {Dims{1, 1}, Dims{3, 3}, Dims{2, 4}})
      for (const std::int64_t stride : {1, 2, 3})
        for (const std::int64_t padding : {0, 1, 4})
          for (const std::int64_t dilation : {1, 2})
            for (const std::int64_t groups : {1, 3}) {
              const Case c = {{1 + checked % 3, 6, size[0], size[1]},
                              {groups == 3 ? 6 : 5, 6 / groups, kernel[0], kernel[1]},
                              {.stride = {stride, 4 - stride},
                               .padding = {padding, padding / 2},
                               .dilation = {dilation, 3 - dilation},
                               .groups = groups}};
              if (c.out(0) < 1 || c.out(1) < 1) continue;
              ++checked;
              check_against_definition(c);
            }
  CHECK(checked > 100);
}

TEST_CASE("larger convolutions follow the definition whichever way their work is cut") {
  for (const Case& c : kLargeCases) check_against_definition(c);
}

TEST_CASE("a convolution reads tensors of any strides") {
  const Case c = {{3, 4, 7, 6}, {5, 4, 3, 2}, {.padding = {1, 1}}};
  const Tensor x = random(c.x, 1), w = random(c.weight, 2), gy = random(c.y(), 3);
  const Tensor flipped = flip(flip(x, {2, 3}), {2, 3}), xs = swapped_storage(x),
               ws = swapped_storage(w), gs = swapped_storage(gy),
               bias = select(random({5, 2}, 4), 1, 1);
  REQUIRE_FALSE(xs.is_contiguous());
  const Tensor y = conv2d(x, w, contiguous(bias), c.options);
  CHECK(values(conv2d(xs, ws, bias, c.options)) == values(y));
  CHECK(values(conv2d(flipped, w, bias, c.options)) == values(y));
  CHECK(values(conv2d_input(gs, ws, c.size(), c.options)) ==
        values(conv2d_input(gy, w, c.size(), c.options)));
  CHECK(values(conv2d_weight(xs, gs, c.kernel(), c.options)) ==
        values(conv2d_weight(x, gy, c.kernel(), c.options)));
  CHECK(values(unfold(xs, c.kernel())) == values(unfold(x, c.kernel())));
}

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

TEST_CASE("unfold lists the patches, and fold is its adjoint") {
  for (Case c : kSmallCases) {
    CAPTURE(c.str());
    c.options.groups = 1;
    c.weight[1] = c.x[1];
    const std::int64_t outputs = c.out(0) * c.out(1);
    const Tensor x = random(c.x, 1), w = random(c.weight, 2), u = unfold(x, c.kernel(), c.options);
    CHECK(u.shape() == Shape{c.x[0], c.x[1] * c.kernel().numel(), outputs});
    // The definition of a convolution in matrices: any other order of the rows would differ.
    const Tensor y = matmul(reshape(w, {c.weight[0], -1}), u);
    check_close(values(y), values(conv2d(x, w, {}, c.options)), 1e-9);
    const Tensor g = random(u.shape(), 3);
    CHECK(dot(u, g) == doctest::Approx(dot(x, fold(g, c.size(), c.kernel(), c.options))));
  }
  const Tensor x = reshape(arange(0, 9, 1, DType::f64), {1, 1, 3, 3});
  CHECK(values(unfold(x, {2, 2})) == Values{0, 1, 3, 4, 1, 2, 4, 5, 3, 4, 6, 7, 4, 5, 7, 8});
  CHECK(values(fold(ones({1, 4, 4}, DType::f64), {3, 3}, {2, 2})) ==
        Values{1, 2, 1, 2, 4, 2, 1, 2, 1});
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

TEST_CASE("a convolution computes only the gradients that are asked for") {
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
  const int before = num_threads();
  std::vector<std::vector<float>> expected;
  for (const int n : {1, 2, 3, 7}) {
    set_num_threads(n);
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
  set_num_threads(before);
}

TEST_CASE("f32 sums of the primary capsules' convolution keep five digits") {
  // 9x9 taps of 256 channels: 20,736 products per output.
  const Case c = {{1, 256, 20, 20}, {256, 256, 9, 9}, {.stride = {2, 2}}};
  const Tensor x = random(c.x, 1), w = random(c.weight, 2), gy = random(c.y(), 3);
  const Tensor xs = to(x, DType::f32), ws = to(w, DType::f32), gs = to(gy, DType::f32);
  CHECK(distance(conv2d(xs, ws, {}, c.options), values(conv2d(x, w, {}, c.options))) < 1e-5);
  CHECK(distance(conv2d_input(gs, ws, c.size(), c.options),
                 values(conv2d_input(gy, w, c.size(), c.options))) < 1e-5);
  CHECK(distance(conv2d_weight(xs, gs, c.kernel(), c.options),
                 values(conv2d_weight(x, gy, c.kernel(), c.options))) < 1e-5);
}

TEST_CASE("a NaN reaches exactly the results that depend on it") {
  const Case c = {{3, 3, 6, 7}, {5, 3, 3, 2}, {.stride = {2, 1}, .padding = {1, 1}}};
  const Tensor w = random(c.weight, 2);
  const auto poisoned = [](const Shape& shape, std::size_t at) {
    Values v = values(random(shape, 1));
    v[at] = std::numeric_limits<double>::quiet_NaN();
    return from_vector(v, shape);
  };
  const std::size_t ix = 3 * 42 + 42 + 3 * 7 + 2, iy = 5 * 24 + 2 * 24 + 9;
  REQUIRE(c.y() == Shape{3, 5, 3, 8});
  std::vector<bool> y(360), gx(378);
  each_product(c, [&](std::size_t a, std::size_t b, std::size_t) {
    if (b == ix) y[a] = true;
    if (a == iy) gx[b] = true;
  });
  CHECK((isnan(conv2d(poisoned(c.x, ix), w, {}, c.options)).to_vector<bool>() == y));
  CHECK((isnan(conv2d_input(poisoned(c.y(), iy), w, c.size(), c.options)).to_vector<bool>() == gx));
}

TEST_CASE("an empty batch and empty sums are no special case") {
  const Tensor w = random({4, 3, 3, 3});
  Tensor x = random({0, 3, 8, 8});
  CHECK(conv2d(x, w).shape() == Shape{0, 4, 6, 6});
  CHECK(conv2d_input(random({0, 4, 6, 6}), w, {8, 8}).shape() == Shape{0, 3, 8, 8});
  CHECK(values(conv2d_weight(x, random({0, 4, 6, 6}), {3, 3})) == Values(108, 0.0));
  CHECK(unfold(x, {3, 3}).shape() == Shape{0, 27, 36});
  CHECK(fold(random({0, 27, 36}), {8, 8}, {3, 3}).shape() == Shape{0, 3, 8, 8});
  // No channels: the bias remains. An image of no rows, all padding: zeros.
  CHECK(values(conv2d(random({1, 0, 2, 2}), random({2, 0, 2, 2}), from_vector(Values{3, 4}))) ==
        Values{3, 4});
  CHECK(values(conv2d(random({1, 1, 0, 1}), random({1, 1, 1, 1}), {}, {.padding = {1, 0}})) ==
        Values{0, 0});
}

TEST_CASE("a convolution needs little memory besides its result") {
  const int before = num_threads();
  set_num_threads(2);
  const Case c = {{64, 16, 20, 20}, {16, 16, 9, 9}, {.stride = {2, 2}}};
  Rng rng(1);
  const Tensor x = randn(c.x, rng), w = randn(c.weight, rng), gy = randn(c.y(), rng);
  const std::size_t patches = 4 * 64 * 36 * 16 * 81;  // bytes of all patches, written out
  const auto extra = [](const auto& f) {
    const std::size_t live = memory_stats().live;
    reset_peak_memory();
    const Tensor y = f();
    return memory_stats().peak - live - static_cast<std::size_t>(y.numel()) * 4;
  };
  CHECK(extra([&] { return conv2d(x, w, {}, c.options); }) < patches / 4);
  CHECK(extra([&] { return conv2d_input(gy, w, c.size(), c.options); }) < patches / 4);
  CHECK(extra([&] { return conv2d_weight(x, gy, c.kernel(), c.options); }) < patches / 4);
  set_num_threads(before);
}

TEST_CASE("a convolution that cannot be says what does not fit") {
  const Tensor x = random({2, 4, 8, 8}), w = random({6, 4, 3, 3}), gy = random({2, 6, 6, 6});
  CHECK_THROWS_WITH_AS(
      conv2d(x, random({6, 3, 3, 3})),
      doctest::Contains(
          "got x = [2, 4, 8, 8], weight = [6, 3, 3, 3], stride = [1, 1], padding = [0, "
          "0], dilation = [1, 1], groups = 1 (4 channels, 3 * 1 wanted). Hint: "),
      ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, random({6, 4, 3, 3}), {}, {.groups = 2}),
                       doctest::Contains("4 channels, 4 * 2 wanted"), ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, random({5, 2, 3, 3}), {}, {.groups = 2}),
                       doctest::Contains("groups must divide weight.size(0)"), ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, random({6, 4, 9, 3})),
                       doctest::Contains("reaches over 9 of 8 rows). Hint: more padding"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, w, {}, {.padding = {1, 0}, .dilation = {1, 4}}),
                       doctest::Contains("reaches over 9 of 8 columns"), ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(select(x, 0, 0), w), doctest::Contains("Hint: unsqueeze(x, 0)"),
                       ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, w, random({4})), doctest::Contains("bias = f64 [4]"), ShapeError);
  CHECK_THROWS_AS(conv2d(x, random({6, 4, 0, 3})), ShapeError);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.stride = {2}}), ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, w, {}, {.stride = {0, 1}}), doctest::Contains("stride = [0, 1]"),
                       ValueError);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.padding = {0, -1}}), ValueError);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.dilation = {0, 1}}), ValueError);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.groups = 0}), ValueError);
  CHECK_THROWS_AS(conv2d(x, w, {}, {.padding = {0, std::int64_t{1} << 60}}), ValueError);
  CHECK_THROWS_WITH_AS(conv2d(x, to(w, DType::f32)),
                       doctest::Contains("x = f64 [2, 4, 8, 8], weight = f32 [6, 4, 3, 3]"),
                       DTypeError);
  CHECK_THROWS_AS(conv2d(to(x, DType::i64), to(w, DType::i64)), DTypeError);
  CHECK_THROWS_WITH_AS(conv2d_input(gy, w, {9, 8}),
                       doctest::Contains("[2, 6, 7, 6] for an image of [9, 8] and a kernel of [3, "
                                         "3]; got gy = [2, 6, 6, 6]"),
                       ShapeError);
  CHECK_THROWS_AS(conv2d_input(gy, w, {8}), ShapeError);
  CHECK_THROWS_AS(conv2d_input(gy, w, {-1, 8}), ShapeError);
  CHECK_THROWS_AS(conv2d_input(gy, w, {std::int64_t{1} << 62, 8}), ShapeError);
  CHECK_THROWS_AS(conv2d_weight(x, gy, {2, 3}), ShapeError);
  CHECK_THROWS_AS(conv2d_weight(x, gy, {std::int64_t{1} << 62, 3}), ShapeError);
  CHECK_THROWS_AS(conv2d_weight(x, gy, {3, 3}, {.groups = 3}), ShapeError);
  CHECK_THROWS_AS(unfold(select(x, 0, 0), {3, 3}), ShapeError);
  CHECK_THROWS_AS(unfold(x, {3, 9}), ShapeError);
  CHECK_THROWS_AS(unfold(to(x, DType::i64), {3, 3}), DTypeError);
  CHECK_THROWS_WITH_AS(fold(random({2, 36, 35}), {8, 8}, {3, 3}),
                       doctest::Contains("columns must be [B, C * 9, 36]"), ShapeError);
  CHECK_THROWS_AS(fold(random({2, 35, 36}), {8, 8}, {3, 3}), ShapeError);
}
