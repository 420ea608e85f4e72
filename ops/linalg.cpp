#include <capsfw/ops/linalg.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/strided.hpp"

namespace capsfw {
namespace {

/// The axes before the last two.
Dims batch_of(const Dims& d) {
  Dims batch = d;
  batch.erase(batch.rank() - 1);
  batch.erase(batch.rank() - 1);
  return batch;
}

void check_matrix(const Tensor& x, std::string_view op, bool square) {
  if (x.dim() < 2 || (square && x.size(-1) != x.size(-2)))
    throw ShapeError(fmt::format("{}: takes {} matrices on the last two axes; got {}", op,
                                 square ? "square" : "any", x.shape().str()));
}

/// x where keep(column − row), zeros elsewhere.
template <class Keep>
Tensor triangle(const Tensor& x, std::string_view op, Keep keep) {
  const Tensor in = contiguous_data(x);
  Tensor y = empty(x.shape(), x.dtype(), op);
  const std::int64_t rows = x.size(-2), columns = x.size(-1);
  visit_any(x.dtype(), [&]<class T>() {
    const T* xs = in.data<T>();
    T* ys = y.mutable_data<T>();
    parallel_for(columns == 0 ? 0 : x.numel() / columns, columns,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r)
                     for (std::int64_t c = 0; c < columns; ++c)
                       ys[r * columns + c] = keep(c - r % rows) ? xs[r * columns + c] : T{};
                 });
  });
  return y;
}

/// Factors the symmetric part of a [n, n] into l (zeroed). The first pivot that is not positive, or
/// −1.
template <class T>
std::int64_t factor(const T* a, T* l, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j <= i; ++j) {
      double rest = 0.5 * (static_cast<double>(a[i * n + j]) + static_cast<double>(a[j * n + i]));
      for (std::int64_t k = 0; k < j; ++k)
        rest -= static_cast<double>(l[i * n + k]) * static_cast<double>(l[j * n + k]);
      if (i != j)
        l[i * n + j] = static_cast<T>(rest / static_cast<double>(l[j * n + j]));
      else if (rest > 0 && rest <= std::numeric_limits<double>::max())
        l[i * n + i] = static_cast<T>(std::sqrt(rest));
      else
        return i;
    }
  return -1;
}

/// x ← m⁻¹ x for x [n, k] row-major; m upper or lower with any strides.
template <class T>
void solve(const T* m,
           std::int64_t row,
           std::int64_t column,
           bool upper,
           T* x,
           std::int64_t n,
           std::int64_t k) {
  for (std::int64_t step = 0; step < n; ++step) {
    const std::int64_t i = upper ? n - 1 - step : step;
    for (std::int64_t s = 0; s < step; ++s) {
      const std::int64_t j = upper ? n - 1 - s : s;
      const T f = m[i * row + j * column];
      for (std::int64_t c = 0; c < k; ++c) x[i * k + c] -= f * x[j * k + c];
    }
    const T d = m[i * row + i * column];
    for (std::int64_t c = 0; c < k; ++c) x[i * k + c] /= d;
  }
}

}  // namespace

Tensor tril(const Tensor& x, std::int64_t offset) {
  check_matrix(x, "tril", false);
  return record("tril", {x}, triangle(x, "tril", [offset](std::int64_t d) { return d <= offset; }),
                Save::none, [offset](const Saved&, const Tensor& gy) { return tril(gy, offset); });
}

Tensor triu(const Tensor& x, std::int64_t offset) {
  check_matrix(x, "triu", false);
  return record("triu", {x}, triangle(x, "triu", [offset](std::int64_t d) { return d >= offset; }),
                Save::none, [offset](const Saved&, const Tensor& gy) { return triu(gy, offset); });
}

Tensor cholesky(const Tensor& a) {
  check_matrix(a, "cholesky", true);
  const std::int64_t n = a.size(-1), count = batch_of(a.shape()).numel();
  const Tensor in = contiguous_data(a);
  Tensor l = zeros(a.shape(), a.dtype(), "cholesky");
  std::vector<std::int64_t> failed(static_cast<std::size_t>(count), -1);
  std::int64_t* fails = failed.data();
  visit_float(a, "cholesky", [&]<class T>() {
    const T* as = in.data<T>();
    T* ls = l.mutable_data<T>();
    parallel_for(count, n * n * n / 3 + 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b)
        fails[b] = factor(as + b * n * n, ls + b * n * n, n);
    });
  });
  for (std::int64_t b = 0; b < count; ++b)
    if (fails[b] >= 0)
      throw ValueError(fmt::format(
          "cholesky: every matrix must be positive definite; matrix {} of the {} in {} fails at "
          "row {}. Hint: add a small multiple of eye(n)",
          b, count, a.shape().str(), fails[b]));
  return record("cholesky", {a}, l, Save::output, [](const Saved& s, const Tensor& gl) {
    const Tensor factor_l = s.output(), p = matmul(transpose(factor_l), gl);
    const Tensor phi = (tril(p) + tril(p, -1)) * 0.5;
    const Tensor left = triangular_solve(factor_l, phi, {.transpose = true});  // L⁻ᵀ Φ
    const Tensor st = triangular_solve(factor_l, transpose(left), {.transpose = true});
    return (st + transpose(st)) * 0.5;
  });
}

Tensor triangular_solve(const Tensor& l, const Tensor& b, SolveOptions options) {
  check_matrix(l, "triangular_solve", true);
  if (b.dim() < 2 || b.size(-2) != l.size(-1))
    throw ShapeError(fmt::format(
        "triangular_solve: b must be [..., n, k] with the n of L; got L = {}, b = {}. Hint: "
        "unsqueeze(b, -1) makes a vector a column",
        l.shape().str(), b.shape().str()));
  check_same_type(l, b, "triangular_solve");
  const std::int64_t n = b.size(-2), k = b.size(-1);
  const Shape lbatch = batch_of(l.shape()), bbatch = batch_of(b.shape());
  const Shape batch = broadcast_shapes(lbatch, bbatch, "triangular_solve");
  Shape shape = batch;
  shape.push_back(n);
  shape.push_back(k);
  Tensor x = empty(shape, b.dtype(), "triangular_solve");
  x.copy_(strided_view(b, shape, broadcast_strides(b.shape(), b.strides(), shape), b.offset()));
  // The transpose of a matrix is itself with exchanged strides and the other triangle.
  std::int64_t row = l.strides()[l.dim() - 2], column = l.strides()[l.dim() - 1];
  if (options.transpose) std::swap(row, column);
  const bool upper = options.upper != options.transpose;
  visit_float(b, "triangular_solve", [&]<class T>() {
    const T* ls = l.data<T>();
    T* xs = x.mutable_data<T>();
    const detail::StridedLoop loop(
        batch, {batch_of(x.strides()), broadcast_strides(lbatch, batch_of(l.strides()), batch)});
    loop.run(n * n * k / 2 + 1, [&](const auto* o, std::int64_t count, const auto* s) {
      for (std::int64_t i = 0; i < count; ++i)
        solve(ls + o[1] + i * s[1], row, column, upper, xs + o[0] + i * s[0], n, k);
    });
  });
  return record("triangular_solve", {l, b}, x, Save::input0 | Save::output,
                [options](const Saved& s, const Tensor& gx) {
                  const Tensor m = s.input(0);
                  const Tensor gb = triangular_solve(
                      m, gx, {.upper = options.upper, .transpose = !options.transpose});
                  if (!s.needs(0)) return TensorList{Tensor(), gb};
                  const Tensor y = s.output();
                  const Tensor gm =
                      options.transpose ? matmul(y, transpose(gb)) : matmul(gb, transpose(y));
                  return TensorList{neg(options.upper ? triu(gm) : tril(gm)), gb};
                });
}

}  // namespace capsfw
