// The rows of elementwise ops.

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/gamma.hpp>
#include <capsfw/ops/unary.hpp>

#include "op_table.hpp"

namespace capsfw::op_table {

void add_elementwise_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };

  // One tensor: a NaN stays where it is.
  const auto unary = [&](Row row) {
    row.elementwise = true;
    put(std::move(row));
  };
  unary({.name = "neg", .unary = neg, .linear = true});
  unary({.name = "exp", .unary = exp});
  unary({.name = "expm1", .unary = expm1});
  unary({.name = "log", .unary = log, .sample = positive});
  unary({.name = "log1p", .unary = log1p, .sample = positive});
  unary({.name = "lgamma", .unary = lgamma, .sample = positive});
  unary({.name = "digamma", .unary = digamma, .sample = positive});
  unary({.name = "polygamma",
         .call = [](const TensorList& x) { return TensorList{polygamma(1, x[0])}; },
         .sample = positive});
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
         .call = [](const TensorList& x) { return TensorList{clamp(x[0], -0.5, 0.8)}; }});
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
    put(std::move(row));
  };
  binary({.name = "add", .binary = add, .linear = true});
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
                return TensorList{where(mask({x[0].size(-2), 1}), x[0], x[1])};
              },
          .linear = true});

  // A tensor and a number.
  const auto number = [&](Row row) {
    row.label = "number";
    put(std::move(row));
  };
  number({.name = "operator+",
          .call =
              [](const TensorList& x) {
                return TensorList{x[0] + 2.0, 3.0 + x[0]};
              },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  number({.name = "operator-",
          .call =
              [](const TensorList& x) {
                return TensorList{x[0] - 2.0, 3.0 - x[0]};
              },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  number({.name = "operator*",
          .call =
              [](const TensorList& x) {
                return TensorList{x[0] * 2.0, 3.0 * x[0]};
              },
          .outputs = {kSmall, kSmall},
          .none_outputs = {{0, 3, 4}, {0, 3, 4}},
          .linear = true});
  number({.name = "operator/",
          .call =
              [](const TensorList& x) {
                return TensorList{x[0] / 2.0, 3.0 / x[0]};
              },
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
  put({.name = "pow",
       .label = "whole exponents",
       .call =
           [](const TensorList& x) {
             return TensorList{pow(x[0], 3), pow(x[0], -2)};
           },
       .sample = off_zero,
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  put({.name = "pow",
       .label = "root",
       .call = [](const TensorList& x) { return TensorList{pow(x[0], 0.5)}; },
       .sample = positive});
  put({.name = "pow",
       .label = "polynomial at zero",
       .call = [](const TensorList& x) { return TensorList{pow(x[0], 3) + pow(x[0], 1)}; },
       .sample = with_zeros});
}

}  // namespace capsfw::op_table
