#include "ops_support.hpp"
#include "support.hpp"

#include <cmath>
#include <limits>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;
using testing::largest, testing::max_difference;

namespace {

/// Mean and biased variance.
std::pair<double, double> moments(const Values& v) {
  double m = 0, s = 0;
  for (double e : v) m += e / static_cast<double>(v.size());
  for (double e : v) s += (e - m) * (e - m) / static_cast<double>(v.size());
  return {m, s};
}

}  // namespace

TEST_CASE("batch_norm normalises by the batch and moves the running statistics") {
  for (const Shape& shape : {Shape{4, 3}, Shape{4, 3, 5}, Shape{2, 3, 2, 3}}) {
    const Tensor x = swapped_storage(random(shape)), gamma = random({3}, 2), beta = random({3}, 3);
    Tensor rm = random({3}, 4), rv = random({3}, 5);
    const Values rm0 = values(rm), rv0 = values(rv);
    const Tensor y = batch_norm(x, gamma, beta, rm, rv, true, 0.1, 1e-5);
    CHECK(y.shape() == shape);
    for (int c = 0; c < 3; ++c) {
      const auto k = static_cast<std::size_t>(c);
      const Values v = values(select(x, 1, c)), got = values(select(y, 1, c));
      const auto [m, s] = moments(v);
      const auto n = static_cast<double>(v.size());
      Values expected;
      for (double e : v)
        expected.push_back((e - m) / std::sqrt(s + 1e-5) * values(gamma)[k] + values(beta)[k]);
      check_close(got, expected, 1e-11);
      CHECK(values(rm)[k] == doctest::Approx(0.9 * rm0[k] + 0.1 * m).epsilon(1e-12));
      CHECK(values(rv)[k] == doctest::Approx(0.9 * rv0[k] + 0.1 * s * n / (n - 1)).epsilon(1e-12));
    }
  }
}

TEST_CASE("batch_norm equals its plain ops, values and gradients") {
  for (const Shape& shape :
       {Shape{5, 3, 7, 5}, Shape{64, 2}, Shape{2, 40, 33}, Shape{3, 1, 1, 1}}) {
    CAPTURE(shape.str());
    Rng rng(4);
    const auto leaf = [&](const Shape& s) { return rng.normal(s, 2, 3).requires_grad_(); };
    const Tensor x = leaf(shape), gamma = leaf({shape[1]}), beta = leaf({shape[1]}),
                 gy = rng.normal(shape, 0, 1);
    Axes axes = {0};
    Shape each = Dims::filled(shape.rank(), 1);
    each[1] = shape[1];
    for (int i = 2; i < shape.rank(); ++i) axes.push_back(i);
    const Tensor centred = x - mean(x, axes, true), v = mean(square(centred), axes, true),
                 plain = centred * rsqrt(v + 1e-5) * reshape(gamma, each) + reshape(beta, each);
    const Tensor fused = batch_norm(x, gamma, beta, {}, {}, true);
    CHECK(max_difference(fused, plain) < 1e-5);
    const TensorList a = grad({fused}, {x, gamma, beta}, {gy}),
                     b = grad({plain}, {x, gamma, beta}, {gy});
    for (std::size_t i = 0; i < 3; ++i)
      CHECK(max_difference(a[i], b[i]) < 3e-5 * (1 + largest(b[i])));
    // Evaluation by the statistics of the batch is the same function of x.
    const Tensor m = reshape(mean(x.detach(), axes, true), {shape[1]}),
                 eval = batch_norm(x, gamma, beta, m, reshape(v.detach(), {shape[1]}), false);
    CHECK(max_difference(eval, plain) < 1e-5);
  }
}

TEST_CASE("batch_norm of relu: as two ops, values, gradients and running statistics") {
  Rng rng(5);
  Tensor x = rng.normal({6, 5, 9, 7}, 0, 1);
  x.mutable_data<float>()[0] = 0;
  x.mutable_data<float>()[1] = -0.0F;
  x.mutable_data<float>()[400] = NAN;  // of the second channel
  x.requires_grad_();
  const Tensor gamma = rng.normal({5}, 1, 1).requires_grad_(),
               beta = rng.normal({5}, 0, 1).requires_grad_(), gy = rng.normal(x.shape(), 0, 1);
  // NaNs are compared by where they are.
  const auto equal = [](const Tensor& p, const Tensor& q, double tolerance) {
    const auto filled = [](const Tensor& y) { return where(isnan(y), 1e6, y.detach()); };
    return max_difference(filled(p), filled(q)) < tolerance;
  };
  for (const bool training : {true, false}) {
    Tensor m1 = zeros({5}), v1 = ones({5}), m2 = zeros({5}), v2 = ones({5});
    const Tensor one = batch_norm(x, gamma, beta, m1, v1, training, 0.1, 1e-5, true),
                 two = batch_norm(relu(x), gamma, beta, m2, v2, training);
    CHECK(equal(one, two, 1e-5));
    CHECK(equal(m1, m2, 1e-6));
    CHECK(equal(v1, v2, 1e-5));
    const TensorList a = grad({one}, {x, gamma, beta}, {gy}),
                     b = grad({two}, {x, gamma, beta}, {gy});
    for (std::size_t i = 0; i < 3; ++i) CHECK(equal(a[i], b[i], 1e-4));
    const NoGradGuard no_grad;
    CHECK(equal(batch_norm(x, gamma, beta, m1, v1, training, 0.1, 1e-5, true), one, 1e-5));
  }
}

TEST_CASE("batch_norm of large maps keeps its digits: a constant channel becomes 0") {
  for (const double v : {100.1, 0.7}) {
    const Tensor x = full({2, 1, 300, 300}, v);
    Tensor mean = zeros({1}), var = ones({1});
    CHECK(largest(batch_norm(x, {}, {}, mean, var, true, 1.0)) < 0.03);
    CHECK(mean.item() == doctest::Approx(v).epsilon(1e-6));
  }
}

TEST_CASE("normalisation names a gamma or beta of another type") {
  const Tensor x = ones({2, 3, 4}), wrong = ones({3}, DType::f64);
  CHECK(testing::message_of<DTypeError>([&] { batch_norm(x, wrong, {}, {}, {}, true); }) ==
        "batch_norm: gamma must be of the type of x; got x = f32 [2, 3, 4], gamma = f64 [3]");
  CHECK_THROWS_AS(group_norm(x, 1, {}, wrong), DTypeError);
  CHECK_THROWS_AS(layer_norm(x, 1, ones({4}, DType::f64)), DTypeError);
}

TEST_CASE("batch_norm in evaluation uses the running statistics and leaves them alone") {
  const Tensor x = random({2, 3, 2, 2}), gamma = random({3}, 2), beta = random({3}, 3);
  Tensor rm = random({3}, 4), rv = from_vector(Values{0.5, 1, 2});
  const Values rm0 = values(rm);
  const Tensor y = batch_norm(x, gamma, beta, rm, rv, false);
  CHECK(values(rm) == rm0);
  CHECK(values(rv) == Values{0.5, 1, 2});
  for (int c = 0; c < 3; ++c) {
    const auto k = static_cast<std::size_t>(c);
    Values expected;
    for (double e : values(select(x, 1, c)))
      expected.push_back((e - rm0[k]) / std::sqrt(values(rv)[k] + 1e-5) * values(gamma)[k] +
                         values(beta)[k]);
    check_close(values(select(y, 1, c)), expected, 1e-11);
  }
  CHECK(batch_norm(empty({0, 3}), {}, {}, zeros({3}), ones({3}), false).shape() == Shape{0, 3});
  CHECK(batch_norm(ones({1, 3}), {}, {}, zeros({3}), ones({3}), false).shape() == Shape{1, 3});
}

TEST_CASE("batch_norm takes undefined parameters and statistics, and others of another type") {
  const Tensor x = random({6, 2});
  const Tensor y = batch_norm(x, {}, {}, {}, {}, true, 0.1, 0.0);
  for (int c = 0; c < 2; ++c) {
    const auto [m, s] = moments(values(select(y, 1, c)));
    CHECK(m == doctest::Approx(0).epsilon(1e-12));
    CHECK(s == doctest::Approx(1).epsilon(1e-12));
  }
  Tensor rm = zeros({2}), rv = ones({2});  // f32 beside f64 activations
  batch_norm(x, {}, {}, rm, rv, true);
  CHECK(rm.to_vector<double>()[0] != 0);
  CHECK(batch_norm(x, {}, {}, rm, rv, false).dtype() == DType::f64);
}

TEST_CASE("the running statistics stay outside the graph") {
  const Tensor x = random({4, 2}).requires_grad_();
  Tensor rm = zeros({2}, DType::f64), rv = ones({2}, DType::f64);
  const Tensor y = batch_norm(x, {}, {}, rm, rv, true);
  CHECK_FALSE(rm.requires_grad());
  CHECK_FALSE(rv.requires_grad());
  // A second forward pass moves them, which must not disturb the gradient of the first.
  const Tensor eval = batch_norm(x, {}, {}, rm, rv, false);
  batch_norm(x, {}, {}, rm, rv, true);
  CHECK_NOTHROW(grad(sum(square(eval)) + sum(square(y)), x));
}

TEST_CASE("batch_norm keeps running statistics from moments that are not finite") {
  Tensor x = random({4, 2}), rm = zeros({2}, DType::f64), rv = ones({2}, DType::f64);
  x.mutable_data<double>()[0] = std::numeric_limits<double>::quiet_NaN();
  CHECK(std::isnan(batch_norm(x, {}, {}, rm, rv, true).to_vector<double>()[0]));
  const auto mean = rm.to_vector<double>(), var = rv.to_vector<double>();
  CHECK((mean[0] == 0 && var[0] == 1));
  CHECK((mean[1] != 0 && var[1] != 1));
}

TEST_CASE("batch_norm has gradients of both orders") {
  const Tensor rm = random({2}, 4), rv = from_vector(Values{0.5, 2});
  for (const bool training : {true, false})
    check_gradients(
        [&](const TensorList& in) {
          // Copies, because training moves them and results must repeat.
          return TensorList{batch_norm(in[0], in[1], in[2], rm + 0.0, rv + 0.0, training)};
        },
        {random({3, 2, 2}), random({2}, 2), random({2}, 3)});
}

TEST_CASE("batch_norm refuses what it cannot normalise") {
  const Tensor none;
  CHECK_THROWS_WITH_AS(batch_norm(ones({1, 3}), none, none, none, none, true),
                       doctest::Contains("more than one value per channel; got x = [1, 3]"),
                       ValueError);
  CHECK_THROWS_AS(batch_norm(ones({1, 3, 1, 1}), none, none, none, none, true), ValueError);
  CHECK_THROWS_AS(batch_norm(ones({0, 3}), none, none, none, none, true), ValueError);
  CHECK_NOTHROW(batch_norm(ones({1, 3, 2}), none, none, none, none, true));
  CHECK_THROWS_AS(batch_norm(ones({2, 3}), none, none, none, ones({3}), false), ValueError);
  CHECK_THROWS_WITH_AS(batch_norm(ones({2, 3}), ones({2}), none, none, none, true),
                       "batch_norm: gamma must be [3] for x = [2, 3]; got [2]", ShapeError);
  CHECK_THROWS_WITH_AS(batch_norm(ones({2, 3}), none, none, none, ones({3, 1}), true),
                       doctest::Contains("running_var must be [3]"), ShapeError);
  CHECK_THROWS_AS(batch_norm(ones({3}), none, none, none, none, true), ShapeError);
  CHECK_THROWS_AS(batch_norm(ones({2, 3}, DType::i64), none, none, none, none, true), DTypeError);
  CHECK_THROWS_AS(batch_norm(ones({2, 3}), none, none, none, none, true, 1.5), ValueError);
  CHECK_THROWS_AS(batch_norm(ones({2, 3}), none, none, none, none, true, 0.1, -1.0), ValueError);
  Tensor rm = zeros({3});
  CHECK_THROWS_AS(batch_norm(ones({1, 3}), none, none, rm, none, true), ValueError);
  CHECK(rm.to_vector<float>() == std::vector<float>{0, 0, 0});
}

TEST_CASE("layer_norm normalises the last axes") {
  const Tensor x = swapped_storage(random({2, 3, 4}));
  const Tensor gamma = random({3, 4}, 2), beta = random({3, 4}, 3);
  const Tensor y = layer_norm(x, 2, gamma, beta), plain = layer_norm(x);
  for (int b = 0; b < 2; ++b) {
    const Values v = values(select(x, 0, b));
    const auto [m, s] = moments(v);
    Values expected;
    for (std::size_t i = 0; i < v.size(); ++i)
      expected.push_back((v[i] - m) / std::sqrt(s + 1e-5) * values(gamma)[i] + values(beta)[i]);
    check_close(values(select(y, 0, b)), expected, 1e-11);
    for (int r = 0; r < 3; ++r) {
      const Values row = values(select(select(x, 0, b), 0, r));
      const auto [rm, rs] = moments(row);
      Values rows;
      for (double e : row) rows.push_back((e - rm) / std::sqrt(rs + 1e-5));
      check_close(values(select(select(plain, 0, b), 0, r)), rows, 1e-11);
    }
  }
  CHECK(values(layer_norm(full({2, 1}, 7, DType::f64))) == Values{0, 0});
  CHECK(layer_norm(empty({0, 4})).shape() == Shape{0, 4});
  CHECK_THROWS_WITH_AS(layer_norm(x, 1, gamma),
                       "layer_norm: gamma must be [4] for x = [2, 3, 4]; got [3, 4]", ShapeError);
  CHECK_THROWS_AS(layer_norm(x, 0), ShapeError);
  CHECK_THROWS_AS(layer_norm(x, 4), ShapeError);
  CHECK_THROWS_AS(layer_norm(ones({2, 2}, DType::i64)), DTypeError);
}

TEST_CASE("layer_norm has gradients of both orders") {
  for (int axes : {1, 2}) {
    const Shape last = axes == 1 ? Shape{4} : Shape{3, 4};
    check_gradients(
        [&](const TensorList& in) { return TensorList{layer_norm(in[0], axes, in[1], in[2])}; },
        {random({2, 3, 4}), random(last, 2), random(last, 3)});
  }
}

TEST_CASE("dropout keeps a share of the elements, scaled, with one mask for value and gradient") {
  Rng rng(7);
  const Tensor x = full({100, 100}, 3, DType::f64).requires_grad_();
  const Tensor y = dropout(x, 0.2, rng);
  const Values v = values(y), g = values(grad(sum(y), x));
  std::size_t kept = 0;
  for (std::size_t i = 0; i < v.size(); ++i) {
    REQUIRE((v[i] == 0 || v[i] == doctest::Approx(3.75)));
    REQUIRE(g[i] == doctest::Approx(v[i] / 3));
    kept += v[i] != 0;
  }
  CHECK(kept > 7800);
  CHECK(kept < 8200);
  CHECK(values(dropout(x, 0.2, rng)) != v);
  Rng again(7);
  CHECK(values(dropout(x, 0.2, again)) == v);
}

TEST_CASE("dropout: the ends of its range, evaluation, values that are not finite, gradients") {
  Rng rng(1);
  const Tensor x = random({3, 4}).requires_grad_();
  CHECK(values(dropout(x, 0.5, rng, false)) == values(x));
  CHECK(values(dropout(x, 0.0, rng)) == values(x));
  const Tensor gone = dropout(x, 1.0, rng);
  CHECK(values(gone) == Values(12, 0.0));
  CHECK(values(grad(gone, x, ones({3, 4}, DType::f64))) == Values(12, 0.0));
  const Tensor nan = full({50}, std::numeric_limits<double>::quiet_NaN(), DType::f64);
  for (double v : values(dropout(nan, 0.5, rng))) CHECK((v == 0 || std::isnan(v)));
  CHECK(dropout(empty({0, 2}), 0.5, rng).shape() == Shape{0, 2});
  CHECK_THROWS_WITH_AS(dropout(x, 1.5, rng), "dropout: p must lie in [0, 1]; got 1.5", ValueError);
  CHECK_THROWS_AS(dropout(x, -0.1, rng), ValueError);
  CHECK_THROWS_AS(dropout(x, std::nan(""), rng), ValueError);
  CHECK_THROWS_AS(dropout(ones({2}, DType::i64), 0.5, rng), DTypeError);
  check_gradients(
      [](const TensorList& in) {
        Rng mask(3);
        return TensorList{square(dropout(in[0], 0.4, mask))};
      },
      {x});
}

TEST_CASE("group_norm agrees with PyTorch 1.13") {
  Values v;
  for (int i = 0; i < 24; ++i) v.push_back(std::sin(0.7 * i + 0.3));
  const Tensor x = from_vector(v, {2, 4, 3});
  const Tensor gamma = from_vector(Values{1, 2, 3, 4}), beta = from_vector(Values{0, 1, 0, -1});
  check_close(values(group_norm(x, 2, gamma, beta, 1e-3)),
              {-0.140761766, 0.860048401,  1.13537635,   2.111462087,  -0.212542547, -2.608245509,
               -3.691350056, -3.330970097, -1.378902134, 0.662354357,  3.414854624,  4.124420736,
               1.805045632,  0.677462383,  -0.470708505, -1.198928648, -0.826182774, 1.001512403,
               -0.205755465, 2.664242319,  3.353069744,  1.049014013,  -3.573929028, -8.223827116},
              1e-7);
}

TEST_CASE("group_norm: one group is layer_norm, C groups normalise each channel") {
  const Tensor x = swapped_storage(random({2, 6, 3, 4}));
  check_close(values(group_norm(x, 1)), values(layer_norm(x, 3)));
  check_close(values(group_norm(x, 6)), values(layer_norm(x, 2)));
  // Groups do not see each other, nor do samples.
  const Tensor part = narrow(narrow(x, 1, 2, 2), 0, 1, 1);
  check_close(values(narrow(narrow(group_norm(x, 3), 1, 2, 2), 0, 1, 1)),
              values(group_norm(part, 1)));
  // Equal elements: 0, with a gradient of 0, also for f32.
  CHECK(values(group_norm(full({1, 2, 2}, 7), 1)) == Values{0, 0, 0, 0});
  CHECK(values(group_norm(ones({3, 2}), 2)) == Values(6, 0));
}

TEST_CASE("group_norm refuses what it cannot normalise") {
  const Tensor x = ones({2, 4, 3}), none;
  CHECK_THROWS_WITH_AS(group_norm(x, 3),
                       "group_norm: takes x [B, C, ...] with C divisible by groups; got x = "
                       "[2, 4, 3], groups = 3",
                       ShapeError);
  CHECK_THROWS_AS(group_norm(x, 0), ValueError);
  CHECK_THROWS_AS(group_norm(ones({4}), 1), ShapeError);
  CHECK_THROWS_AS(group_norm(x, 2, ones({2})), ShapeError);
  CHECK_THROWS_AS(group_norm(x, 2, none, ones({4, 1})), ShapeError);
  CHECK_THROWS_AS(group_norm(x, 2, none, none, -1), ValueError);
  CHECK_THROWS_AS(group_norm(ones({2, 4}, DType::i64), 2), DTypeError);
}
