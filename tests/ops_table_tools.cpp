// The machinery of the table: inputs, evaluation, comparison.

#include "op_table.hpp"

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>

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
  Tensor y = empty(shape, DType::i64, "indices");
  auto* p = y.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < y.numel(); ++i) p[i] = (i * 7 + i / 5 + 3) % n;
  return y;
}
Tensor mask(const Shape& shape) {
  Tensor y = empty(shape, DType::b8, "mask");
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
    add_pool_rows(t);
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

}  // namespace capsfw::op_table
