#include "ops_conv_cases.hpp"

#include <limits>

#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::test;

namespace {

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

TEST_CASE("f32 sums of the primary capsules' convolution keep five digits") {
  // 9x9 taps of 256 channels: 20,736 products per output.
  const std::int64_t k = testing::kSanitized ? 48 : 256;
  const Case c = {{1, k, 20, 20}, {k, k, 9, 9}, {.stride = {2, 2}}};
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
  CHECK_THROWS_WITH_AS(conv2d(x, w, random({4})), doctest::Contains("; got [4]"), ShapeError);
  CHECK_THROWS_WITH_AS(conv2d(x, w, zeros({4})),
                       "conv2d: bias must be of the type of x, f64; got f32", DTypeError);
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
  constexpr std::int64_t kLong = 1LL << 24, kHuge = 1LL << 40;  // the square of kHuge wraps
  CHECK_THROWS_AS(unfold(x, {kLong, kLong}, {.padding = {kLong, kLong}}), ShapeError);
  CHECK_THROWS_AS(unfold(x, {kHuge, kHuge}, {.padding = {kHuge, kHuge}}), ValueError);
  CHECK_THROWS_AS(unfold(to(x, DType::i64), {3, 3}), DTypeError);
  CHECK_THROWS_WITH_AS(fold(random({2, 36, 35}), {8, 8}, {3, 3}),
                       doctest::Contains("columns must be [B, C * 9, 36]"), ShapeError);
  CHECK_THROWS_AS(fold(random({2, 35, 36}), {8, 8}, {3, 3}), ShapeError);
}
