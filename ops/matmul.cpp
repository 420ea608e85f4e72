#include <capsfw/ops/matmul.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "../core/blas.hpp"

namespace capsfw {
namespace {

/// A matrix is fast if one of its strides is 1 and the other one reaches over that axis; anything
/// else, such as an expanded one, is copied once.
Tensor with_unit_stride(const Tensor& x) {
  const int r = x.dim() - 2, c = x.dim() - 1;
  const auto fast = [&](int unit, int other) {
    return (x.strides()[unit] == 1 || x.size(unit) == 1) &&
           (x.strides()[other] >= std::max<std::int64_t>(x.size(unit), 1) || x.size(other) == 1);
  };
  return fast(c, r) || fast(r, c) ? x : contiguous_data(x);
}

Tensor matmul_data(const Tensor& a0, const Tensor& b0, const Shape& batch) {
  const Tensor a = with_unit_stride(a0), b = with_unit_stride(b0);
  Shape shape = batch;
  shape.push_back(a.size(-2));
  shape.push_back(b.size(-1));
  Tensor c = empty(shape, a.dtype(), "matmul");
  const auto layout = [&](const Tensor& x) {
    Shape lead = x.shape();
    Strides strides = x.strides();
    for (int k = 0; k < 2; ++k) {
      lead.erase(lead.rank() - 1);
      strides.erase(strides.rank() - 1);
    }
    return detail::MatrixLayout{broadcast_strides(lead, strides, batch), x.strides()[x.dim() - 2],
                                x.strides()[x.dim() - 1]};
  };
  visit_float(a, "matmul", [&]<class T>() {
    detail::batched_gemm<T>(batch, a.size(-2), b.size(-1), a.size(-1), a.data<T>(), layout(a),
                            b.data<T>(), layout(b), c.mutable_data<T>(), layout(c));
  });
  return c;
}

/// a · b with the memory order of `like`: the gradient of a transposed matrix is then the transpose
/// of a row-major one, and whoever it is handed to need not copy it.
Tensor matmul_like(const Tensor& like, const Tensor& a, const Tensor& b) {
  const bool by_columns =
      like.dim() >= 2 && like.strides()[like.dim() - 2] == 1 && like.strides()[like.dim() - 1] != 1;
  return by_columns ? transpose(matmul(transpose(b), transpose(a))) : matmul(a, b);
}

/// y [N, out] = x wᵀ, added to rows of bias.
Tensor linear_data(const Tensor& x0, const Tensor& w0, const Tensor& bias) {
  const Tensor x = with_unit_stride(x0), w = with_unit_stride(w0);
  const std::int64_t n = x.size(0), in = x.size(1), out = w.size(0);
  Tensor y = empty({n, out}, x.dtype(), "linear");
  if (bias.defined()) y.copy_(broadcast_to(bias, {n, out}));
  visit_float(x, "linear", [&]<class T>() {
    detail::batched_gemm<T>({}, n, out, in, x.data<T>(), {{}, x.strides()[0], x.strides()[1]},
                            w.data<T>(), {{}, w.strides()[1], w.strides()[0]}, y.mutable_data<T>(),
                            {{}, out, 1}, bias.defined() ? T(1) : T(0));
  });
  return y;
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_same_type(a, b, "matmul");
  if (a.dim() == 0 || b.dim() == 0)
    throw ShapeError(
        fmt::format("matmul: takes vectors or matrices; got a = {}, b = {}. Hint: a * b",
                    a.shape().str(), b.shape().str()));
  if (a.dim() == 1) return squeeze(matmul(unsqueeze(a, 0), b), b.dim() == 1 ? 0 : -2);
  if (b.dim() == 1) return squeeze(matmul(a, unsqueeze(b, 1)), -1);
  if (a.size(-1) != b.size(-2))
    throw ShapeError(
        fmt::format("matmul: a.shape[-1] must equal b.shape[-2]; got a = {}, b = {} ({} vs {}).{}",
                    a.shape().str(), b.shape().str(), a.size(-1), b.size(-2),
                    a.size(-1) == b.size(-1) ? " Hint: transpose(b)?" : ""));
  Shape ba = a.shape(), bb = b.shape();
  for (int k = 0; k < 2; ++k) {
    ba.erase(ba.rank() - 1);
    bb.erase(bb.rank() - 1);
  }
  // One product over all rows; and the gradient of b is that of one, not a sum over the batch.
  if (a.dim() > 2 && b.dim() == 2) {
    ba.push_back(a.size(-2));
    ba.push_back(b.size(-1));
    return reshape(matmul(flatten(a, 0, -2), b), ba);
  }
  const Shape batch = broadcast_shapes(ba, bb, "matmul");
  return record("matmul", {a, b}, matmul_data(a.detach(), b.detach(), batch), Save::inputs,
                [](const Saved& s, const Tensor& gc) {
                  const Tensor left = s.input(0), right = s.input(1);
                  return TensorList{
                      s.needs(0) ? matmul_like(left, gc, transpose(right)) : Tensor(),
                      s.needs(1) ? matmul_like(right, transpose(left), gc) : Tensor()};
                });
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (weight.dim() != 2 || x.dim() == 0 || x.size(-1) != weight.size(1) ||
      (bias.defined() && bias.shape() != Shape{weight.size(0)}))
    throw ShapeError(fmt::format(
        "linear: x [..., in], weight [out, in], bias [out]; got x = {}, weight = {}, bias = {}",
        x.shape().str(), weight.shape().str(), bias.defined() ? bias.shape().str() : "none"));
  // One product over all rows: a batch of small ones is slower.
  const Tensor rows = x.dim() == 2 ? x : x.dim() == 1 ? unsqueeze(x, 0) : flatten(x, 0, -2);
  check_same_type(rows, weight, "linear");
  if (bias.defined()) check_same_type(rows, bias, "linear");
  const auto rule = [](const Saved& s, const Tensor& gy) {
    TensorList g = {s.needs(0) ? matmul(gy, s.input(1)) : Tensor(),
                    s.needs(1) ? matmul(transpose(gy), s.input(0)) : Tensor()};
    return g;
  };
  Tensor y = linear_data(rows.detach(), weight.detach(), bias.defined() ? bias.detach() : bias);
  y = bias.defined() ? record("linear", {rows, weight, bias}, y, Save::input0 | Save::input1,
                              [rule](const Saved& s, const Tensor& gy) {
                                TensorList g = rule(s, gy);
                                g.push_back(s.needs(2) ? sum(gy, {0}) : Tensor());
                                return g;
                              })
                     : record("linear", {rows, weight}, y, Save::inputs, rule);
  if (x.dim() == 2) return y;
  Shape shape = x.shape();
  shape[shape.rank() - 1] = weight.size(0);
  return reshape(y, shape);
}

}  // namespace capsfw
