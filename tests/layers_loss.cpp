// Losses: values by hand, gradients, kinks, errors.

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/softmax.hpp>

#include "ops_support.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::test::Values;
using capsfw::test::values;
using capsfw::testing::largest;
using capsfw::testing::message_of;

namespace {

Tensor table(const Values& v, const Shape& shape) { return from_vector(v, shape); }
Tensor labels(const std::vector<std::int64_t>& v) { return from_vector(v); }

Values gradient(const Tensor& loss, const Tensor& x) { return values(grad(loss, x)); }

doctest::Approx about(double v) { return doctest::Approx(v).epsilon(1e-12); }

}  // namespace

TEST_CASE("L1 margin loss by hand: squares, sum over classes, mean over the batch, lambda 0.5") {
  const Tensor a = table({0.4, 0.3, 0.95, 0.1, 0.7, 0.05}, {2, 3}).requires_grad_();
  const Tensor t = table({1, 0, 0, 0, 1, 0}, {2, 3});
  // (0.9 − 0.4)² + ½ (0.3 − 0.1)² + ½ (0.95 − 0.1)²; then (0.9 − 0.7)².
  const double first = 0.25 + 0.02 + 0.36125, second = 0.04;
  const Tensor loss = margin_loss(a, t);
  CHECK(loss.shape() == Shape{});
  CHECK(loss.item() == about((first + second) / 2));
  test::check_close(values(margin_loss_per_sample(a, t)), {first, second});
  // −2 · 0.5 / B and so on: the gradient carries 1/B.
  test::check_close(gradient(loss, a), {-0.5, 0.1, 0.425, 0, -0.2, 0});
  CHECK(margin_loss(a, t, {.lambda = 0.25}).item() == about((0.25 + 0.01 + 0.180625 + 0.04) / 2));
  CHECK(margin_loss(a, t, {.positive = 0.5, .negative = 0.2, .lambda = 1}).item() ==
        about((0.01 + 0.01 + 0.5625) / 2));
}

TEST_CASE("L2 no softmax on the lengths: a perfect answer costs nothing") {
  const Tensor t = one_hot(labels({3}), 10, DType::f64);
  const Tensor perfect = t * 0.95;
  CHECK(margin_loss(perfect, t).item() == 0);
  // After a softmax of ten lengths in [0, 1] no class can reach 0.9.
  CHECK(margin_loss(softmax(perfect, -1), t).item() > 0.4);
}

TEST_CASE("L3 the gradient is the slope of the loss, not multiplied by its value") {
  for (double length : {0.8, 0.5, 0.1}) {
    const Tensor a = table({length}, {1, 1}).requires_grad_();
    const Tensor t = ones({1, 1}, DType::f64);
    CHECK(gradient(margin_loss(a, t), a)[0] == about(-2 * (0.9 - length)));
    const Tensor l = margin_loss(a, t);
    CHECK(gradient(l * 3.0, a)[0] == about(-6 * (0.9 - length)));
  }
}

TEST_CASE("L4 spread loss by hand: the target is left out, once per sample") {
  const Tensor a = table({0.6, 0.5, 0.1, 0.2, 0.9, 0.0}, {2, 3}).requires_grad_();
  const Tensor loss = spread_loss(a, labels({0, 2}), 0.3);
  // Sample 0: m − (0.6 − 0.5) = 0.2, m − 0.5 < 0. Sample 1: m + 0.2 = 0.5, m + 0.9 = 1.2.
  CHECK(loss.item() == about((0.04 + 0.25 + 1.44) / 2));
  test::check_close(gradient(loss, a), {-0.2, 0.2, 0, 0.5, 1.2, -1.7});
  test::check_close(values(spread_loss_per_sample(a, labels({0, 2}), 0.3)), {0.04, 0.25 + 1.44});
  // Equal activations: m² (J − 1) for any batch; with the target kept it would be m² J.
  for (std::int64_t b : {1, 4})
    CHECK(spread_loss(full({b, 5}, 0.3, DType::f64), zeros({b}, DType::i64), 0.2).item() ==
          about(0.04 * 4));
  CHECK(spread_loss(ones({2, 1}, DType::f64), zeros({2}, DType::i64), 0.9).item() == 0);
}

TEST_CASE("L4 the margin of the spread loss grows from 0.2 to 0.9") {
  CHECK(spread_margin_linear(0, 1000) == about(0.2));
  CHECK(spread_margin_linear(500, 1000) == about(0.55));
  CHECK(spread_margin_linear(1000, 1000) == about(0.9));
  CHECK(spread_margin_linear(5000, 1000) == about(0.9));
  CHECK(spread_margin_linear(5, 10, 0.1, 0.3) == about(0.2));
  CHECK_THROWS_AS(spread_margin_linear(0, 0), ValueError);
  CHECK(spread_margin_sigmoid(0) == about(0.2 + 0.79 / (1 + std::exp(4.0))));
  CHECK(spread_margin_sigmoid(200000) == about(0.2 + 0.79 / 2));
  CHECK(spread_margin_sigmoid(1e9) == about(0.2 + 0.79 / (1 + std::exp(-10.0))));
}

TEST_CASE("L5 once every margin is met, loss and gradient are zero") {
  const Tensor a = table({0.95, 0.05, 0.1, 0.0, 0.9, 0.1}, {2, 3}).requires_grad_();
  const Tensor t = table({1, 0, 0, 0, 1, 0}, {2, 3});
  CHECK(margin_loss(a, t).item() == 0);
  CHECK(largest(grad(margin_loss(a, t), a)) == 0);
  const Tensor spread = spread_loss(a, labels({0, 1}), 0.8);
  CHECK(spread.item() == 0);
  CHECK(largest(grad(spread, a)) == 0);
}

TEST_CASE("L5 targets without any class, and with two") {
  const Tensor a = table({0.6, 0.05, 0.3}, {1, 3}).requires_grad_();
  const Tensor none = margin_loss(a, zeros({1, 3}, DType::f64));
  CHECK(none.item() == about(0.5 * (0.25 + 0.04)));
  test::check_close(gradient(none, a), {0.5, 0, 0.2});
  const Tensor two = margin_loss(a, table({1, 0, 1}, {1, 3}));
  CHECK(two.item() == about(0.09 + 0.36));
  test::check_close(gradient(two, a), {-0.6, 0, -1.2});
}

TEST_CASE("cross-entropy by hand, for huge logits too, with rows of the gradient that sum to 0") {
  const Tensor z = table({0, std::log(3.0), 1000, -1000, 0, 5}, {3, 2}).requires_grad_();
  const Tensor loss = cross_entropy(z, labels({1, 1, 0}));
  const double last = std::log1p(std::exp(5.0));
  CHECK(loss.item() == about((std::log(4.0 / 3) + 2000 + last) / 3));
  const auto each = cross_entropy_per_sample(z, labels({1, 1, 0})).to_vector<double>();
  CHECK(each.size() == 3);
  CHECK(each[0] == about(std::log(4.0 / 3)));
  CHECK(each[1] == about(2000));
  CHECK(each[2] == about(last));
  const auto g = gradient(loss, z);
  CHECK(g[0] == about(0.25 / 3));
  CHECK(g[2] == about(1.0 / 3));
  for (std::size_t b = 0; b < 3; ++b) CHECK(g[2 * b] + g[2 * b + 1] == doctest::Approx(0));
}

TEST_CASE("binary cross-entropy by hand: the mean over all elements, stable for huge logits") {
  const Tensor z = table({0, 1000, -1000, 2}, {2, 2}).requires_grad_();
  const Tensor t = table({1, 1, 1, 0}, {2, 2});
  const Tensor loss = binary_cross_entropy_with_logits(z, t);
  CHECK(loss.item() == about((std::log(2.0) + 0 + 1000 + 2 + std::log1p(std::exp(-2.0))) / 4));
  test::check_close(gradient(loss, z), {-0.125, 0, -0.25, 0.25 / (1 + std::exp(-2.0))});
}

TEST_CASE("R1 the reconstruction weight: 0.0005 of the sum is 0.392 of the mean at 784 pixels") {
  const Tensor x = test::random({3, 1, 28, 28}), y = test::random({3, 1, 28, 28}, 2);
  const double loss = reconstruction_loss(x, y).item();
  CHECK(loss == about(0.0005 * sum_squared_error(x, y).item()));
  CHECK(loss == about(0.392 * mse_loss(x, y).item()));
  // General rule: the weight of the mean is 0.0005 times the elements of an image.
  const Tensor a = test::random({2, 3, 4, 5}), b = test::random({2, 3, 4, 5}, 2);
  CHECK(reconstruction_loss(a, b, 0.01).item() == about(0.01 * 60 * mse_loss(a, b).item()));
  const Tensor p = table({1, 2, 3, 4}, {2, 2}), q = table({0, 2, 1, 1}, {2, 2});
  CHECK(sum_squared_error(p, q).item() == about((1 + 13) / 2.0));
  CHECK(mse_loss(p, q).item() == about(14 / 4.0));
  CHECK(sum_squared_error(reshape(p, {4}), reshape(q, {4})).item() == about(14 / 4.0));
}

TEST_CASE("losses agree with finite differences, twice, away from their kinks") {
  const Tensor t = table({1, 0, 1, 0, 0, 1}, {2, 3}), y = labels({2, 0});
  // Lengths at least 0.05 from both margins.
  const Tensor a = table({0.5, 0.4, 0.8, 0.03, 0.95, 1.2}, {2, 3});
  const Tensor z = test::random({2, 3});
  const auto check = [](const char* name, auto&& loss, const TensorList& in) {
    CAPTURE(name);
    test::check_gradients([&](const TensorList& x) { return TensorList{loss(x)}; }, in);
  };
  check("margin", [&](const TensorList& x) { return margin_loss(x[0], t, {.lambda = 0.3}); }, {a});
  check("margin per sample", [&](const TensorList& x) { return margin_loss_per_sample(x[0], t); },
        {a});
  check("spread", [&](const TensorList& x) { return spread_loss(x[0], y, 0.5); }, {a});
  check("cross-entropy", [&](const TensorList& x) { return cross_entropy(x[0], y); }, {z});
  check("binary", [&](const TensorList& x) { return binary_cross_entropy_with_logits(x[0], x[1]); },
        {z, a});
  check("squared", [&](const TensorList& x) { return sum_squared_error(x[0], x[1]); }, {z, a});
  check("mse", [&](const TensorList& x) { return mse_loss(x[0], x[1]); }, {z, a});
  check("reconstruction", [&](const TensorList& x) { return reconstruction_loss(x[0], x[1]); },
        {z, a});
}

TEST_CASE("accuracy counts rows whose largest score is at the label") {
  const Tensor s = table({0.1, 0.9, 0.8, 0.2, 0.3, 0.4, 0.6, 0.5}, {4, 2});
  CHECK(accuracy(s, labels({1, 0, 0, 0})) == 0.75);
  CHECK(accuracy(s, labels({0, 1, 0, 1})) == 0);
}

TEST_CASE("losses say what does not fit") {
  const Tensor a = ones({2, 3});
  CHECK(message_of<ShapeError>([&] {
          margin_loss(a, ones({3, 2}));
        }) == "margin_loss: shapes must be equal; got [2, 3] and [3, 2]");
  CHECK(message_of<ShapeError>([&] { margin_loss(ones({3}), ones({3})); }) ==
        "margin_loss: lengths must be [B, J]; got [3]");
  CHECK(message_of<ShapeError>([&] { spread_loss(a, zeros({3}, DType::i64), 0.2); }) ==
        "spread_loss: scores [B, J] and labels i64 [B]; got [2, 3] and i64 [3]");
  CHECK(message_of<ShapeError>([&] { cross_entropy(a, zeros({2})); }) ==
        "cross_entropy: scores [B, J] and labels i64 [B]; got [2, 3] and f32 [2]");
  CHECK_THROWS_AS(cross_entropy(a, labels({0, 3})), ValueError);
  CHECK_THROWS_AS(spread_loss(a, labels({-1, 0}), 0.2), ValueError);
  CHECK_THROWS_AS(binary_cross_entropy_with_logits(a, ones({2, 1})), ShapeError);
  CHECK_THROWS_AS(mse_loss(a, ones({6})), ShapeError);
  CHECK(message_of<ShapeError>([] { sum_squared_error(scalar(1), scalar(2)); }) ==
        "sum_squared_error: takes a batch [B, ...]; got a number");
  CHECK_THROWS_AS(reconstruction_loss(ones({1, 1, 4, 4}), ones({1, 16})), ShapeError);
  CHECK_THROWS_AS(accuracy(a, zeros({3}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(margin_loss(a, ones({2, 3}, DType::f64)), DTypeError);
}

TEST_CASE("R3 two digits: the two largest scores as a set, and above the threshold") {
  const Tensor scores = table({0.9, 0.1, 0.8,    // {0, 2}, both sure
                               0.9, 0.1, 0.4,    // {0, 2}, the second unsure
                               0.2, 0.7, 0.95},  // {2, 1}
                              {3, 3});
  const auto pairs = [](const std::vector<std::int64_t>& v) {
    return reshape(labels(v), {static_cast<std::int64_t>(v.size()) / 2, 2});
  };
  TwoDigitAccuracy a = two_digit_accuracy(scores, pairs({2, 0, 0, 2, 1, 2}));
  CHECK(a.exact == 1);
  CHECK(a.confident == about(2.0 / 3));
  a = two_digit_accuracy(scores, pairs({2, 1, 0, 2, 0, 2}));
  CHECK(a.exact == about(1.0 / 3));
  CHECK(a.confident == 0);
  CHECK(two_digit_accuracy(scores, pairs({2, 0, 0, 2, 1, 2}), 0.1).confident == 1);
  const Tensor bad = table({NAN, 0.6, 0.1}, {1, 3});
  CHECK(two_digit_accuracy(bad, pairs({0, 1})).exact == 0);
  CHECK(std::isnan(two_digit_accuracy(zeros({0, 3}), zeros({0, 2}, DType::i64)).exact));
  CHECK(message_of<ShapeError>([&] {
          two_digit_accuracy(scores, pairs({0, 1}));
        }) ==
        "two_digit_accuracy: scores [n, J] with J >= 2 and pairs i64 [n, 2]; got [3, 3] and i64 "
        "[1, 2]");
  CHECK(message_of<ValueError>([&] {
          two_digit_accuracy(bad, pairs({1, 1}));
        }) == "two_digit_accuracy: the two classes of a pair must be different");
  CHECK(message_of<ValueError>([&] {
          two_digit_accuracy(bad, pairs({1, 3}));
        }) == "two_digit_accuracy: classes must lie in [0, 3); got 3");
}
