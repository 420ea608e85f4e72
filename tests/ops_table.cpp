// Properties of the values, for every row of the table of ops.

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/vspace.hpp>

#include "op_table.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::op_table;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;
using capsfw::testing::values;

namespace {

bool every(const Row&) { return true; }

std::string shapes_of(const TensorList& x) {
  std::string s;
  for (const Tensor& t : x) s += t.shape().str() + " ";
  return s;
}

/// "" if `x` has the shapes and the type.
std::string expect(const TensorList& x, const Shapes& shapes, DType dtype, const char* what) {
  bool same = x.size() == shapes.size();
  for (std::size_t k = 0; same && k < x.size(); ++k)
    same = x[k].shape() == shapes[k] && x[k].dtype() == dtype;
  return same ? "" : fmt::format("{} are {}and {}", what, shapes_of(x), name_of(x[0].dtype()));
}

/// Three ways to store the same elements.
enum class Storing { reversed_axes, gaps, backwards };

Tensor stored(const Tensor& x, Storing how) {
  const int rank = x.dim();
  Shape shape = x.shape();
  Strides strides = Dims::filled(rank, 0);
  std::int64_t offset = 0;
  Tensor buffer;
  if (how == Storing::reversed_axes) {
    std::reverse(shape.begin(), shape.end());
    buffer = full(shape, NAN, x.dtype());
    strides = buffer.strides();
    std::reverse(strides.begin(), strides.end());
  } else if (how == Storing::gaps) {  // every second element, from the second on
    shape.push_back(2);
    buffer = full(shape, NAN, x.dtype());
    for (int i = 0; i < rank; ++i) strides[i] = buffer.strides()[i];
    offset = 1;
  } else {
    buffer = full(shape, NAN, x.dtype());
    for (int i = 0; i < rank; ++i) {
      strides[i] = -buffer.strides()[i];
      offset -= strides[i] * std::max<std::int64_t>(shape[i] - 1, 0);
    }
  }
  Tensor view = strided_view(buffer, x.shape(), strides, offset);
  view.copy_(x);
  return view;
}

TensorList stored(const TensorList& x, Storing how) {
  TensorList y;
  for (const Tensor& t : x) y.push_back(stored(t, how));
  return y;
}

}  // namespace

TEST_CASE("op table: results have the announced shapes and the type of the inputs") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    for (const DType t : {DType::f32, DType::f64}) {
      const Evaluated e = evaluate(row, sample(row, row.inputs, t));
      const DType result = row.widens ? DType::f64 : t;
      if (auto s = expect(e.values, row.outputs, result, "values"); !s.empty()) return s;
      if (auto s = expect(e.gradients, row.inputs, t, "gradients"); !s.empty()) return s;
    }
    return "";
  });
}

TEST_CASE("op table: f32 agrees with f64, values and gradients") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    if (row.widens) return "";
    // Both types get the same numbers: those that f32 can hold.
    TensorList x = sample(row, row.inputs, DType::f32), wide;
    for (const Tensor& t : x) wide.push_back(cast_data(t, DType::f64));
    TensorList c = random_like(row(x)), wide_c;
    for (const Tensor& t : c) wide_c.push_back(cast_data(t, DType::f64));
    const Evaluated narrow = evaluate(row, x, c), reference = evaluate(row, wide, wide_c);
    if (auto s = compare(narrow.values, reference.values, row.f32_error, "value"); !s.empty())
      return s;
    return compare(narrow.gradients, reference.gradients, row.f32_error, "gradient");
  });
}

TEST_CASE("op table: inputs and cotangents stored in any order give the same results") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    const TensorList x = sample(row, row.inputs);
    const TensorList c = random_like(row(x));
    const Evaluated plain = evaluate(row, x, c);
    for (const Storing how : {Storing::reversed_axes, Storing::gaps, Storing::backwards}) {
      const std::string which = fmt::format("storing {}: ", static_cast<int>(how));
      const Evaluated other = evaluate(row, stored(x, how), stored(c, how));
      if (auto s = compare(other.values, plain.values, 1e-13, "value"); !s.empty())
        return which + s;
      if (auto s = compare(other.gradients, plain.gradients, 1e-13, "gradient"); !s.empty())
        return which + s;
    }
    return "";
  });
}

TEST_CASE("op table: an input is left as it was, and so is a cotangent") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    const TensorList x = sample(row, row.inputs), c = random_like(row(x));
    std::vector<std::string> before;
    for (const auto* list : {&x, &c})
      for (const Tensor& t : *list) before.push_back(capsfw::testing::bytes_of(t));
    evaluate(row, x, c);
    evaluate(row, x, c, true);
    std::size_t k = 0;
    for (const auto* list : {&x, &c})
      for (const Tensor& t : *list)
        if (capsfw::testing::bytes_of(t) != before[k++]) return "something was overwritten";
    return "";
  });
}

TEST_CASE("op table: broadcasting is the same as expanding first") {
  for_each_row(
      10, [](const Row& row) { return row.broadcasts; },
      [](const Row& row) -> std::string {
        const TensorList x = sample(row, row.inputs);
        const Evaluated plain = evaluate(row, x);
        TensorList wide;
        for (const Tensor& t : x) wide.push_back(contiguous_data(broadcast_to(t, row.outputs[0])));
        Evaluated expanded = evaluate(row, wide);
        for (std::size_t i = 0; i < x.size(); ++i)
          expanded.gradients[i] = sum_to(expanded.gradients[i], x[i].shape());
        if (auto s = compare(expanded.values, plain.values, 0, "value"); !s.empty()) return s;
        return compare(expanded.gradients, plain.gradients, 1e-14, "gradient");
      });
}

TEST_CASE("op table: tensors without elements give results of the right shape, and gradients") {
  for_each_row(
      80, [](const Row& row) { return !row.none.empty(); },
      [](const Row& row) -> std::string {
        for (const bool create_graph : {false, true}) {
          const Evaluated e = evaluate(row, sample(row, row.none), {}, create_graph);
          if (auto s = expect(e.values, row.none_outputs, DType::f64, "values"); !s.empty())
            return s;
          if (auto s = expect(e.gradients, row.none, DType::f64, "gradients"); !s.empty()) return s;
        }
        return "";
      });
}

TEST_CASE("op table: a NaN stays where it is and touches no other element") {
  for_each_row(
      24, [](const Row& row) { return row.elementwise; },
      [](const Row& row) -> std::string {
        for (const DType t : {DType::f32, DType::f64}) {
          Rng rng(4);
          // Long enough for vector loops and their remainders.
          const Tensor x = cast_data(row.sample({41}, 0, rng), t);
          const auto clean = values(row({x})[0]);
          for (const std::int64_t at : {0, 7, 33, 40}) {
            Tensor y = empty_like(x).copy_(x);
            strided_view(y, {1}, {1}, at).fill_(NAN);
            const auto v = values(row({y})[0]);
            for (std::size_t i = 0; i < v.size(); ++i)
              if (i == static_cast<std::size_t>(at) ? !std::isnan(v[i]) : v[i] != clean[i])
                return fmt::format("element {} is {} with a NaN at {} ({})", i, v[i], at,
                                   name_of(t));
          }
        }
        return "";
      });
}

TEST_CASE("op table: an op of a linear row is linear") {
  for_each_row(
      30, [](const Row& row) { return row.linear; },
      [](const Row& row) -> std::string {
        const TensorList x = sample(row, row.inputs), z = random_like(x, 8);
        TensorList mixed, expected;
        for (std::size_t i = 0; i < x.size(); ++i) mixed.push_back(add(x[i], add(z[i], z[i])));
        const TensorList fx = row(x), fz = row(z);
        for (std::size_t k = 0; k < fx.size(); ++k)
          expected.push_back(add(fx[k], add(fz[k], fz[k])));
        return compare(row(mixed), expected, 1e-14, "value");
      });
}
