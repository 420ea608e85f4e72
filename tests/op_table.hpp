#pragma once
// The table of differentiable ops: one row for every case worth testing. tests/ops_table*.cpp check
// every property on every row, and tests/project_inventory.cpp fails if an op has no row.

#include <functional>
#include <string>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw::op_table {

using Shapes = std::vector<Shape>;
using Call = TensorList (*)(const TensorList&);
/// Values for input number `i`: f64, row-major.
using Sampler = Tensor (*)(const Shape& shape, std::size_t i, Rng& rng);

Tensor normal(const Shape& shape, std::size_t i, Rng& rng);      // standard normal
Tensor positive(const Shape& shape, std::size_t i, Rng& rng);    // in [0.5, 2)
Tensor off_zero(const Shape& shape, std::size_t i, Rng& rng);    // normal, at least 0.1 from 0
Tensor distinct(const Shape& shape, std::size_t i, Rng& rng);    // no two closer than 0.01
Tensor with_zeros(const Shape& shape, std::size_t i, Rng& rng);  // normal, every fifth exactly 0
Tensor definite(const Shape& shape, std::size_t i, Rng& rng);    // positive definite, not symmetric
Tensor triangle(const Shape& shape, std::size_t i, Rng& rng);  // input 0: well-conditioned factors

/// Fixed indices in [0, n), with repetition; a fixed mask, true at every third place.
Tensor indices(const Shape& shape, std::int64_t n);
Tensor mask(const Shape& shape);

inline const Shape kSmall = {2, 3, 4};
inline const Shape kLarge = {41, 40, 50};  // several chunks of a parallel loop

/// One op at work. Every floating input is differentiated.
struct Row {
  std::string name;        // as declared in ops/*.hpp or core/vspace.hpp
  std::string label = "";  // which case of it
  // One of these three is the function.
  Tensor (*unary)(const Tensor&) = nullptr;
  Tensor (*binary)(const Tensor&, const Tensor&) = nullptr;
  Call call = nullptr;
  Call reference = nullptr;  // of a fused op: the same in plain ops
  Sampler sample = normal;   // far from kinks and poles
  Shapes inputs = {kSmall};  // small, for checks against differences
  Shapes outputs = {kSmall};
  Shapes large = {kLarge};    // for the comparison of thread counts
  Shapes none = {{0, 3, 4}};  // without elements; empty list: not defined
  Shapes none_outputs = {{0, 3, 4}};
  bool linear = false;       // in all inputs together
  bool elementwise = false;  // a NaN stays where it is and nowhere else
  bool broadcasts = false;   // an input of length 1 acts as if expanded
  bool flat = false;         // the gradient is 0 everywhere
  bool widens = false;       // the result is f64 for any input
  double f32_error = 2e-6;   // of values and gradients, relative to the largest

  std::string title() const { return label.empty() ? name : name + " (" + label + ")"; }
  TensorList operator()(const TensorList& x) const;
};

/// All rows.
const std::vector<Row>& rows();

/// Plain inputs for a row.
TensorList sample(const Row& row, const Shapes& shapes, DType dtype = DType::f64);
/// The same tensors as leaves that require a gradient.
TensorList leaves(const TensorList& x);
/// Random tensors like `y`.
TensorList random_like(const TensorList& y, std::uint64_t seed = 5);

/// f(x) and the gradient of Σ ⟨c, f(x)⟩ for fixed random c (or those given).
struct Evaluated {
  TensorList values, gradients;
};
Evaluated evaluate(const std::function<TensorList(const TensorList&)>& f,
                   const TensorList& x,
                   TensorList cotangents = {},
                   bool create_graph = false);

/// Runs `check` on every row that `wanted` accepts; it returns what is wrong, "" if nothing.
/// A failure or an exception names the row. At least `expected` rows must be there.
void for_each_row(int expected,
                  const std::function<bool(const Row&)>& wanted,
                  const std::function<std::string(const Row&)>& check);

/// "" if |a − b| ≤ error · largest |b| for every pair, else what differs.
std::string compare(const TensorList& a, const TensorList& b, double error, const char* what);

// The parts of the table, one file each.
void add_elementwise_rows(std::vector<Row>& table);
void add_shape_rows(std::vector<Row>& table);
void add_product_rows(std::vector<Row>& table);
void add_image_rows(std::vector<Row>& table);
void add_pool_rows(std::vector<Row>& table);

}  // namespace capsfw::op_table
