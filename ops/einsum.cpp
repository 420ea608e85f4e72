// einsum as one strided, batched matrix product. Letters fall into four groups: batch (in both
// operands and the result), rows (left and result), columns (right and result) and inner (both,
// summed). Where a group's letters lie behind each other in memory they act as one axis, and
// nothing is copied.

#include <array>
#include <string>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>

#include "../core/blas.hpp"

namespace capsfw {
namespace {

/// The letters of a tensor's axes, by value: a rule may capture them.
struct Letters {
  std::array<char, kMaxRank + 1> text{};
  int count = 0;

  void push_back(char x) { text[static_cast<std::size_t>(count++)] = x; }
  const char* begin() const { return text.data(); }
  const char* end() const { return text.data() + count; }
  /// The axis named `x`, or −1.
  int find(char x) const {
    for (int i = 0; i < count; ++i)
      if (text[static_cast<std::size_t>(i)] == x) return i;
    return -1;
  }
  bool has(char x) const { return find(x) >= 0; }
};

struct Equation {
  Letters a, b, c;

  /// Of the node: other parts of the library read there what became of which axis.
  std::string name() const {
    return fmt::format("einsum {},{}->{}", std::string_view(a.begin(), a.end()),
                       std::string_view(b.begin(), b.end()), std::string_view(c.begin(), c.end()));
  }
};

Equation parse(std::string_view text) {
  const auto fail = [&](std::string_view rule) {
    throw ShapeError(fmt::format("einsum: {}; got '{}'", rule, text));
  };
  const std::size_t comma = text.find(','), arrow = text.find("->");
  if (comma == std::string_view::npos || arrow == std::string_view::npos || comma > arrow)
    fail("the equation must look like 'ij,jk->ik'");
  const auto letters = [&](std::string_view part) {
    Letters out;
    if (part.size() > kMaxRank) fail("at most eight letters per operand");
    for (char x : part) {
      if (!((x >= 'a' && x <= 'z') || (x >= 'A' && x <= 'Z'))) fail("axes are named by letters");
      if (out.has(x)) fail("a letter may occur once per operand");
      out.push_back(x);
    }
    return out;
  };
  const Equation e{letters(text.substr(0, comma)),
                   letters(text.substr(comma + 1, arrow - comma - 1)),
                   letters(text.substr(arrow + 2))};
  for (char x : e.c)
    if (!e.a.has(x) && !e.b.has(x))
      fail(fmt::format("letter '{}' of the result occurs in no operand", x));
  return e;
}

/// A tensor with the names of its axes.
struct Named {
  Tensor data;
  Letters letters;

  std::int64_t length(char x) const { return data.shape()[letters.find(x)]; }
  std::int64_t stride(char x) const { return data.strides()[letters.find(x)]; }
  std::int64_t product(const Letters& group) const {
    std::int64_t n = 1;
    for (char x : group) n *= length(x);
    return n;
  }
  /// The stride with which the axes of `group` can be crossed as one; −1 if they cannot, or
  /// backwards only.
  std::int64_t merged_stride(const Letters& group) const {
    std::int64_t stride_of_last = 1, expected = 0;
    bool found = false;
    for (int i = group.count - 1; i >= 0; --i) {
      const char x = group.text[static_cast<std::size_t>(i)];
      if (length(x) == 1) continue;
      if (stride(x) < 0 || (found && stride(x) != expected)) return -1;
      if (!found) stride_of_last = stride(x);
      found = true;
      expected = stride(x) * length(x);
    }
    return stride_of_last;
  }
  /// This tensor as a batch of matrices [first, second], if memory allows it.
  bool as_matrices(const Letters& batch,
                   const Letters& first,
                   const Letters& second,
                   detail::MatrixLayout& out) const {
    out = {{}, merged_stride(first), merged_stride(second)};
    for (char x : batch) out.batch.push_back(stride(x));
    const std::int64_t rows = product(first), cols = product(second);
    return (out.col == 1 && (out.row >= cols || rows == 1)) ||
           (out.row == 1 && (out.col >= rows || cols == 1));
  }
  /// The axes in the order batch, first, second; a view.
  Named ordered(const Letters& batch, const Letters& first, const Letters& second) const {
    Named out;
    Axes order;
    for (const Letters& group : {batch, first, second})
      for (char x : group) {
        order.push_back(letters.find(x));
        out.letters.push_back(x);
      }
    out.data = permute(data, order);
    return out;
  }
};

/// Sums the axes that neither the other operand nor the result has.
Named without_lone_axes(const Tensor& x,
                        const Letters& letters,
                        const Letters& other,
                        const Letters& result) {
  Shape ones = x.shape(), rest;
  Named out;
  for (int i = 0; i < letters.count; ++i) {
    const char l = letters.text[static_cast<std::size_t>(i)];
    if (other.has(l) || result.has(l)) {
      rest.push_back(x.shape()[i]);
      out.letters.push_back(l);
    } else {
      ones[i] = 1;
    }
  }
  out.data = out.letters.count == letters.count ? x : reshape(sum_to(x, ones), rest);
  return out;
}

Tensor contract_data(const Equation& e, const Tensor& a, const Tensor& b) {
  Named left = without_lone_axes(a, e.a, e.b, e.c), right = without_lone_axes(b, e.b, e.a, e.c),
        out{{}, e.c};
  Letters batch, rows, cols, inner;
  Shape shape;
  for (char x : e.c) {
    const bool l = left.letters.has(x), r = right.letters.has(x);
    (l && r ? batch : l ? rows : cols).push_back(x);
    shape.push_back(l ? left.length(x) : right.length(x));
  }
  for (char x : left.letters)
    if (!e.c.has(x)) inner.push_back(x);
  out.data = empty(shape, a.dtype(), "einsum");

  detail::MatrixLayout la, lb, lc;
  const auto arrange = [&](Named& x, const Letters& first, const Letters& second,
                           detail::MatrixLayout& layout) {
    if (x.as_matrices(batch, first, second, layout)) return;
    x = x.ordered(batch, first, second);
    x.data = contiguous_data(x.data);
    x.as_matrices(batch, first, second, layout);
  };
  arrange(left, rows, inner, la);
  arrange(right, inner, cols, lb);
  Named target = out;
  if (!out.as_matrices(batch, rows, cols, lc)) {
    target = out.ordered(batch, rows, cols);
    target.data = empty(target.data.shape(), a.dtype(), "einsum");
    target.as_matrices(batch, rows, cols, lc);
  }
  Shape batch_shape;
  for (char x : batch) batch_shape.push_back(left.length(x));
  visit_float(a, "einsum", [&]<class T>() {
    detail::batched_gemm<T>(batch_shape, left.product(rows), right.product(cols),
                            left.product(inner), left.data.data<T>(), la, right.data.data<T>(), lb,
                            target.data.mutable_data<T>(), lc);
  });
  if (target.data.storage() != out.data.storage()) out.data.copy_(target.ordered(e.c, {}, {}).data);
  return out.data;
}

Tensor contract(const Equation& e, const Tensor& a, const Tensor& b);

/// The gradient of one operand: result and other operand contracted. An axis that this operand had
/// alone was summed, so the gradient is constant along it.
Tensor operand_gradient(const Letters& mine,
                        const Letters& theirs,
                        const Letters& result,
                        const Tensor& gc,
                        const Tensor& other,
                        const Shape& shape) {
  Equation back{result, theirs, {}};
  Shape kept = shape;
  for (int i = 0; i < mine.count; ++i) {
    const char x = mine.text[static_cast<std::size_t>(i)];
    if (result.has(x) || theirs.has(x))
      back.c.push_back(x);
    else
      kept[i] = 1;
  }
  return broadcast_to(reshape(contract(back, gc, other), kept), shape);
}

Tensor contract(const Equation& e, const Tensor& a, const Tensor& b) {
  return record(
      e.name(), {a, b}, contract_data(e, a.detach(), b.detach()), Save::inputs,
      [e](const Saved& s, const Tensor& gc) {
        return TensorList{
            s.needs(0) ? operand_gradient(e.a, e.b, e.c, gc, s.input(1), s.shape(0)) : Tensor(),
            s.needs(1) ? operand_gradient(e.b, e.a, e.c, gc, s.input(0), s.shape(1)) : Tensor()};
      });
}

}  // namespace

Tensor einsum(std::string_view equation, const Tensor& a, const Tensor& b) {
  check_same_type(a, b, "einsum");
  const Equation e = parse(equation);
  if (e.a.count != a.dim() || e.b.count != b.dim())
    throw ShapeError(fmt::format("einsum: one letter per axis; got '{}' for a = {}, b = {}",
                                 equation, a.shape().str(), b.shape().str()));
  for (char x : e.a)
    if (e.b.has(x) && a.shape()[e.a.find(x)] != b.shape()[e.b.find(x)])
      throw ShapeError(fmt::format(
          "einsum: letter '{}' must have one length; got '{}' with a = {}, b = {} ({} vs {})", x,
          equation, a.shape().str(), b.shape().str(), a.shape()[e.a.find(x)],
          b.shape()[e.b.find(x)]));
  return contract(e, a, b);
}

}  // namespace capsfw
