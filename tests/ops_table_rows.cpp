// The machinery of the table, and the rows of elementwise ops.

#include "op_table.hpp"

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

namespace capsfw::op_table {
namespace {

/// Values made one by one.
template <class F>
Tensor made(const Shape& shape, const F& f) {
  Tensor y = empty(shape, DType::f64);
  double* p = y.mutable_data<double>();
  for (std::int64_t i = 0; i < y.numel(); ++i) p[i] = f(i);
  return y;
}

}  // namespace

Tensor normal(const Shape& shape, std::size_t, Rng& rng) { return randn(shape, rng, DType::f64); }
Tensor positive(const Shape& shape, std::size_t, Rng& rng) {
  return rng.uniform(shape, 0.5, 2, DType::f64);
}
Tensor off_zero(const Shape& shape, std::size_t, Rng& rng) {
  return made(shape, [&](std::int64_t) {
    const double v = rng.normal();
    return v < 0 ? v - 0.1 : v + 0.1;
  });
}
Tensor distinct(const Shape& shape, std::size_t, Rng& rng) {
  const auto order = rng.permutation(shape.numel()).to_vector<double>();
  const double step = std::max(0.01, 4.0 / static_cast<double>(order.size() + 1));
  return made(shape, [&](std::int64_t i) {
    return (order[static_cast<std::size_t>(i)] - static_cast<double>(order.size()) / 2) * step;
  });
}
Tensor with_zeros(const Shape& shape, std::size_t, Rng& rng) {
  return made(shape, [&](std::int64_t i) { return i % 5 == 0 ? 0.0 : rng.normal(); });
}
Tensor definite(const Shape& shape, std::size_t, Rng& rng) {
  const std::int64_t n = shape.back();
  return made(shape, [&](std::int64_t i) {
    const double noise = rng.uniform() - 0.5;
    return i / n % n == i % n ? static_cast<double>(n) + noise : noise;
  });
}
Tensor triangle(const Shape& shape, std::size_t i, Rng& rng) {
  return i == 0 ? definite(shape, i, rng) : normal(shape, i, rng);
}

Tensor indices(const Shape& shape, std::int64_t n) {
  Tensor y = empty(shape, DType::i64);
  auto* p = y.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < y.numel(); ++i) p[i] = (i * 7 + i / 5 + 3) % n;
  return y;
}
Tensor mask(const Shape& shape) {
  Tensor y = empty(shape, DType::b8);
  bool* p = y.mutable_data<bool>();
  for (std::int64_t i = 0; i < y.numel(); ++i) p[i] = i % 3 == 0;
  return y;
}

TensorList Row::operator()(const TensorList& x) const {
  if (unary != nullptr) return {unary(x.at(0))};
  if (binary != nullptr) return {binary(x.at(0), x.at(1))};
  return call(x);
}

const std::vector<Row>& rows() {
  static const std::vector<Row> table = [] {
    std::vector<Row> t;
    add_elementwise_rows(t);
    add_shape_rows(t);
    add_product_rows(t);
    add_image_rows(t);
    return t;
  }();
  return table;
}

TensorList sample(const Row& row, const Shapes& shapes, DType dtype) {
  Rng rng(17);
  TensorList x;
  for (const Shape& s : shapes) x.push_back(cast_data(row.sample(s, x.size(), rng), dtype));
  return x;
}

TensorList leaves(const TensorList& x) {
  TensorList y;
  for (const Tensor& t : x) y.push_back(t.detach().requires_grad_());
  return y;
}

TensorList random_like(const TensorList& y, std::uint64_t seed) {
  Rng rng(seed);
  TensorList c;
  for (const Tensor& t : y) c.push_back(randn(t.shape(), rng, t.dtype()));
  return c;
}

Evaluated evaluate(const std::function<TensorList(const TensorList&)>& f,
                   const TensorList& x,
                   TensorList cotangents,
                   bool create_graph) {
  const TensorList in = leaves(x);
  Evaluated e{f(in), {}};
  if (cotangents.empty()) cotangents = random_like(e.values);
  e.gradients = grad(e.values, in, cotangents, {.create_graph = create_graph});
  return e;
}

void for_each_row(int expected,
                  const std::function<bool(const Row&)>& wanted,
                  const std::function<std::string(const Row&)>& check) {
  int count = 0;
  for (const Row& row : rows()) {
    if (!wanted(row)) continue;
    ++count;
    std::string problem;
    try {
      problem = check(row);
    } catch (const std::exception& e) {
      problem = std::string("threw ") + e.what();
    }
    if (!problem.empty()) problem = row.title() + ": " + problem;
    CHECK_MESSAGE(problem.empty(), problem);
  }
  CHECK(count >= expected);
}

std::string compare(const TensorList& a, const TensorList& b, double error, const char* what) {
  if (a.size() != b.size()) return fmt::format("{} {} against {}", what, a.size(), b.size());
  for (std::size_t k = 0; k < a.size(); ++k) {
    const double d = testing::max_difference(a[k], b[k]), allowed = error * testing::largest(b[k]);
    if (!(d <= allowed))
      return fmt::format("{} {} {} differ by {}, allowed {}", what, k, b[k].shape().str(), d,
                         allowed);
  }
  return "";
}

void add_elementwise_rows(std::vector<Row>& table) {
  const auto add = [&](Row row) { table.push_back(std::move(row)); };

  // One tensor: a NaN stays where it is.
  const auto unary = [&](Row row) {
    row.elementwise = true;
    add(std::move(row));
  };
  unary({.name = "neg", .unary = neg, .linear = true});
  unary({.name = "exp", .unary = exp});
  unary({.name = "expm1", .unary = expm1});
  unary({.name = "log", .unary = log, .sample = positive});
  unary({.name = "log1p", .unary = log1p, .sample = positive});
  unary({.name = "sqrt", .unary = sqrt, .sample = positive});
  unary({.name = "rsqrt", .unary = rsqrt, .sample = positive});
  unary({.name = "reciprocal", .unary = reciprocal, .sample = off_zero});
  unary({.name = "square", .unary = square});
  unary({.name = "sin", .unary = sin});
  unary({.name = "cos", .unary = cos});
  unary({.name = "atan", .unary = atan});
  unary({.name = "erf", .unary = erf});
  unary({.name = "tanh", .unary = tanh});
  unary({.name = "sigmoid", .unary = sigmoid});
  unary({.name = "logsigmoid", .unary = logsigmoid});
  unary({.name = "softplus", .unary = softplus});
  unary({.name = "relu", .unary = relu, .sample = off_zero});
  unary({.name = "leaky_relu",
         .call = [](const TensorList& x) { return TensorList{leaky_relu(x[0], 0.2)}; },
         .sample = off_zero});
  unary({.name = "elu",
         .call = [](const TensorList& x) { return TensorList{elu(x[0], 0.7)}; },
         .sample = off_zero});
  unary({.name = "gelu", .unary = gelu});
  unary({.name = "abs", .unary = abs, .sample = off_zero});
  unary({.name = "sign", .unary = sign, .sample = off_zero, .flat = true});
  unary({.name = "clamp",
         .call = [](const TensorList& x) { return TensorList{clamp(x[0], -0.5, 0.8)}; },
         .sample = distinct});
  unary({.name = "to",
         .call = [](const TensorList& x) { return TensorList{to(x[0], DType::f64)}; },
         .linear = true,
         .widens = true});

  // Two tensors, with broadcasting on both sides.
  const auto binary = [&](Row row) {
    row.inputs = {{3, 4}, {2, 1, 4}};
    row.outputs = {{2, 3, 4}};
    row.large = {{40, 50}, {41, 1, 50}};
    row.none = {{0, 4}, {2, 1, 4}};
    row.none_outputs = {{2, 0, 4}};
    row.broadcasts = true;
    add(std::move(row));
  };
  binary({.name = "add", .binary = add_tensors, .linear = true});
  binary({.name = "sub", .binary = sub, .linear = true});
  binary({.name = "mul", .binary = mul});
  binary({.name = "div", .binary = div, .sample = off_zero});
  binary({.name = "pow", .binary = pow, .sample = positive});
  binary({.name = "maximum", .binary = maximum});
  binary({.name = "minimum", .binary = minimum});
  binary({.name = "operator+", .binary = operator+, .linear = true});
  binary({.name = "operator-", .binary = operator-, .linear = true});
  binary({.name = "operator*", .binary = operator*});
  binary({.name = "operator/", .binary = operator/, .sample = off_zero});
  binary({.name = "where",
          .call =
              [](const TensorList& x) {
                return TensorList{where(mask({x[0].size(0), 1}), x[0], x[1])};
              },
          .linear = true});

  // A tensor and a number.
  const auto number = [&](Row row) {
    row.label = "number";
    add(std::move(row));
  };
  number({.name = "operator+",
          .call = [](const TensorList& x) { return TensorList{x[0] + 2.0, 3.0 + x[0]}; },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  number({.name = "operator-",
          .call = [](const TensorList& x) { return TensorList{x[0] - 2.0, 3.0 - x[0]}; },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  number({.name = "operator*",
          .call = [](const TensorList& x) { return TensorList{x[0] * 2.0, 3.0 * x[0]}; },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}},
          .linear = true});
  number({.name = "operator/",
          .call = [](const TensorList& x) { return TensorList{x[0] / 2.0, 3.0 / x[0]}; },
          .sample = off_zero,
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  number({.name = "operator-", .unary = operator-, .linear = true});
  number({.name = "maximum",
          .call = [](const TensorList& x) { return TensorList{maximum(x[0], 0.3)}; },
          .sample = distinct});
  number({.name = "minimum",
          .call = [](const TensorList& x) { return TensorList{minimum(x[0], 0.3)}; },
          .sample = distinct});
  number({.name = "where",
          .call =
              [](const TensorList& x) {
                const Tensor m = mask(x[0].shape());
                return TensorList{where(m, x[0], 2.0), where(m, -1.0, x[0])};
              },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  add({.name = "pow",
       .label = "whole exponents",
       .call = [](const TensorList& x) { return TensorList{pow(x[0], 3), pow(x[0], -2)}; },
       .sample = off_zero,
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  add({.name = "pow",
       .label = "root",
       .call = [](const TensorList& x) { return TensorList{pow(x[0], 0.5)}; },
       .sample = positive});
  add({.name = "pow",
       .label = "polynomial at zero",
       .call = [](const TensorList& x) { return TensorList{pow(x[0], 3) + pow(x[0], 1)}; },
       .sample = with_zeros});
}

}  // namespace capsfw::op_table
