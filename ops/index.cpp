#include <capsfw/ops/index.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>

#include "../core/strided.hpp"

namespace capsfw {
namespace {

void check_index(const Tensor& index,
                 std::int64_t length,
                 std::string_view op,
                 std::string_view of) {
  if (index.dtype() != DType::i64)
    throw DTypeError(fmt::format("{}: indices must be i64; got {} {}. Hint: to(index, DType::i64)",
                                 op, name_of(index.dtype()), index.shape().str()));
  const Tensor flat = contiguous_data(index);
  const std::int64_t* p = flat.data<std::int64_t>();
  for (std::int64_t i = 0, n = flat.numel(); i < n; ++i)
    if (p[i] < 0 || p[i] >= length)
      throw ValueError(
          fmt::format("{}: indices must lie in [0, {}), {}; got {} at position {} of {}", op,
                      length, of, p[i], i, index.shape().str()));
}

std::string axis_of(int axis, const Shape& shape) {
  return fmt::format("the length of axis {} of {}", axis, shape.str());
}

/// `index` [n] read as if it had `shape`, with its axis at `axis`.
Tensor along(const Tensor& index, int axis, const Shape& shape) {
  Strides strides = Dims::filled(shape.rank(), 0);
  strides[axis] = index.strides()[0];
  return strided_view(index, shape, strides, index.offset());
}

/// y[.., k, ..] = x[.., index[.., k, ..], ..]; the indices are in range.
Tensor gather_data(const Tensor& x, int axis, const Tensor& index) {
  Tensor y = empty(index.shape(), x.dtype(), "gather");
  const std::int64_t step = x.strides()[axis];
  Strides line = x.strides();  // of the first element on the line that the index chooses from
  line[axis] = 0;
  visit_any(x.dtype(), [&]<class T>() {
    const T* xs = x.data<T>();
    const std::int64_t* is = index.data<std::int64_t>();
    T* ys = y.mutable_data<T>();
    detail::StridedLoop(y.shape(), {y.strides(), index.strides(), line})
        .run(2, [&](const auto* o, std::int64_t n, const auto* s) {
          const T* xp = xs + o[2];
          const std::int64_t *ip = is + o[1], sy = s[0], si = s[1], sx = s[2];
          T* yp = ys + o[0];
          if (si == 0) xp += *ip * step;  // one index for the whole row: rows are copied
          if (si == 0 && sx == 1 && sy == 1)
            std::copy(xp, xp + n, yp);
          else if (si == 0)
            for (std::int64_t i = 0; i < n; ++i) yp[i * sy] = xp[i * sx];
          else
            for (std::int64_t i = 0; i < n; ++i) yp[i * sy] = xp[i * sx + ip[i * si] * step];
        });
  });
  return y;
}

/// The adjoint of gather_data. Lines along `axis` are disjoint in the result, and so run in
/// parallel; on a line the additions keep the order of the indices.
Tensor scatter_data(const Shape& shape, int axis, const Tensor& index, const Tensor& src) {
  Tensor y = zeros(shape, src.dtype(), "scatter_add");
  Shape lines = index.shape();
  const std::int64_t length = lines[axis];
  lines.erase(axis);
  std::array<Strides, 3> strides = {y.strides(), index.strides(), src.strides()};
  std::array<std::int64_t, 3> step{};
  for (std::size_t k = 0; k < 3; ++k) {
    step[k] = strides[k][axis];
    strides[k].erase(axis);
  }
  visit_any(src.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bool>) {
      const T* xs = src.data<T>();
      const std::int64_t* is = index.data<std::int64_t>();
      T* ys = y.mutable_data<T>();
      detail::StridedLoop(lines, strides)
          .run(2 * length, [&](const auto* o, std::int64_t n, const auto* s) {
            const std::int64_t sy = s[0], si = s[1], sx = s[2];
            for (std::int64_t k = 0; k < length; ++k) {
              const std::int64_t* ip = is + o[1] + k * step[1];
              const T* xp = xs + o[2] + k * step[2];
              T* yp = ys + o[0];
              if (si == 0) {
                yp += *ip * step[0];
                for (std::int64_t i = 0; i < n; ++i) yp[i * sy] += xp[i * sx];
              } else {
                for (std::int64_t i = 0; i < n; ++i)
                  yp[i * sy + ip[i * si] * step[0]] += xp[i * sx];
              }
            }
          });
    }
  });
  return y;
}

void check_numbers(const Tensor& src, std::string_view op) {
  if (src.dtype() == DType::b8)
    throw DTypeError(fmt::format("{}: adds numbers; got b8. Hint: to(src, DType::i64)", op));
}

void check_vector(const Tensor& index, std::string_view op) {
  if (index.dim() != 1)
    throw ShapeError(fmt::format("{}: the index must have one axis; got {}. Hint: flatten(index)",
                                 op, index.shape().str()));
}

/// The checks that gather and scatter_add share; `full` is what the index points into.
int check_lines(const Shape& full, int axis, const Tensor& index, std::string_view op) {
  const int a = normalize_axis(axis, full.rank(), op);
  bool fits = index.dim() == full.rank();
  for (int i = 0; fits && i < full.rank(); ++i) fits = i == a || index.shape()[i] <= full[i];
  if (!fits)
    throw ShapeError(fmt::format(
        "{}: the index must have the rank of x and be no longer on the axes other than {}; got x = "
        "{}, index = {}. Hint: index_select takes one index for whole rows",
        op, a, full.str(), index.shape().str()));
  check_index(index, full[a], op, axis_of(a, full));
  return a;
}

/// A row of `classes` for each of `rows`, with ones at its `count` labels.
Tensor set_ones(const Tensor& labels,
                Shape rows,
                std::int64_t count,
                std::int64_t classes,
                DType dtype,
                const char* op) {
  if (classes < 1) throw ValueError(fmt::format("{}: at least one class; got {}", op, classes));
  check_index(labels, classes, op, "the number of classes");
  rows.push_back(classes);
  Tensor y = zeros(rows, dtype, op);
  const Tensor flat = contiguous_data(labels);
  const std::int64_t* p = flat.data<std::int64_t>();
  visit_any(dtype, [&]<class T>() {
    T* ys = y.mutable_data<T>();
    for (std::int64_t i = 0, n = flat.numel(); i < n; ++i) ys[i / count * classes + p[i]] = T{1};
  });
  return y;
}

}  // namespace

Tensor gather(const Tensor& x, int axis, const Tensor& index) {
  const int a = check_lines(x.shape(), axis, index, "gather");
  const Shape shape = x.shape();
  return record("gather", {x, index}, gather_data(x, a, index), Save::input1,
                [a, shape](const Saved& s, const Tensor& gy) {
                  return TensorList{scatter_add(shape, a, s.input(1), gy), Tensor()};
                });
}

Tensor scatter_add(const Shape& shape, int axis, const Tensor& index, const Tensor& src) {
  check_numbers(src, "scatter_add");
  if (index.shape() != src.shape())
    throw ShapeError(
        fmt::format("scatter_add: index and src must have the same shape; got index = {}, src = {}",
                    index.shape().str(), src.shape().str()));
  const int a = check_lines(shape, axis, index, "scatter_add");
  return record("scatter_add", {index, src}, scatter_data(shape, a, index, src), Save::input0,
                [a](const Saved& s, const Tensor& gy) {
                  return TensorList{Tensor(), gather(gy, a, s.input(0))};
                });
}

Tensor index_select(const Tensor& x, int axis, const Tensor& index) {
  const int a = normalize_axis(axis, x.dim(), "index_select");
  check_vector(index, "index_select");
  const std::int64_t rows = x.shape()[a];
  check_index(index, rows, "index_select", axis_of(a, x.shape()));
  Shape shape = x.shape();
  shape[a] = index.numel();
  return record("index_select", {x, index}, gather_data(x, a, along(index, a, shape)), Save::input1,
                [a, rows](const Saved& s, const Tensor& gy) {
                  return TensorList{index_add(rows, a, s.input(1), gy), Tensor()};
                });
}

Tensor index_add(std::int64_t rows, int axis, const Tensor& index, const Tensor& src) {
  check_numbers(src, "index_add");
  const int a = normalize_axis(axis, src.dim(), "index_add");
  check_vector(index, "index_add");
  if (rows < 0) throw ValueError(fmt::format("index_add: rows must not be negative; got {}", rows));
  if (index.numel() != src.shape()[a])
    throw ShapeError(
        fmt::format("index_add: one index per position of axis {} of src; got index = {}, src = {}",
                    a, index.shape().str(), src.shape().str()));
  check_index(index, rows, "index_add", "the number of rows");
  Shape shape = src.shape();
  shape[a] = rows;
  return record("index_add", {index, src},
                scatter_data(shape, a, along(index, a, src.shape()), src), Save::input0,
                [a](const Saved& s, const Tensor& gy) {
                  return TensorList{Tensor(), index_select(gy, a, s.input(0))};
                });
}

Tensor embedding(const Tensor& table, const Tensor& ids) {
  if (table.dim() != 2)
    throw ShapeError(
        fmt::format("embedding: the table must be [V, E]; got {}", table.shape().str()));
  check_index(ids, table.shape()[0], "embedding", "the rows of the table");
  Shape shape = ids.shape();
  shape.push_back(table.shape()[1]);
  return reshape(index_select(table, 0, reshape(ids, {ids.numel()})), shape);
}

Tensor one_hot(const Tensor& labels, std::int64_t classes, DType dtype) {
  return set_ones(labels, labels.shape(), 1, classes, dtype, "one_hot");
}

Tensor multi_hot(const Tensor& labels, std::int64_t classes, DType dtype) {
  if (labels.dim() < 1)
    throw ShapeError("multi_hot: takes labels [..., K]; got []. Hint: one_hot, for one label each");
  Shape rows = labels.shape();
  rows.erase(rows.rank() - 1);
  return set_ones(labels, rows, labels.size(-1), classes, dtype, "multi_hot");
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  if (mask.dtype() != DType::b8)
    throw DTypeError(fmt::format("masked_fill: the mask must be b8; got {}. Hint: ne(mask, 0)",
                                 name_of(mask.dtype())));
  if (!broadcastable_to(mask.shape(), x.shape()))
    throw ShapeError(fmt::format("masked_fill: the mask must broadcast to x; got x = {}, mask = {}",
                                 x.shape().str(), mask.shape().str()));
  return where(mask, value, x);
}

}  // namespace capsfw
