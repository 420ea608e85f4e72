#include <capsfw/ops/arithmetic.hpp>

#include <cmath>
#include <type_traits>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/strided.hpp"

namespace capsfw {
namespace {

/// y = f(a, b) with broadcasting, in the common type.
template <class F>
Tensor binary(const Tensor& a, const Tensor& b, std::string_view op, F f) {
  check_same_type(a, b, op);
  if (a.dtype() == DType::b8)
    throw DTypeError(fmt::format("{}: takes numbers; got b8. Hint: to(x, DType::f32)", op));
  Tensor y = empty(broadcast_shapes(a.shape(), b.shape(), op), a.dtype(), op);
  visit_any(a.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bool>) detail::map2<T, T>(a, b, y, f);
  });
  return y;
}

template <class F>
Tensor compare(const Tensor& a, const Tensor& b, std::string_view op, F f) {
  check_same_type(a, b, op);
  Tensor y = empty(broadcast_shapes(a.shape(), b.shape(), op), DType::b8, op);
  visit_any(a.dtype(), [&]<class T>() { detail::map2<bool, T>(a, b, y, f); });
  return y;
}

/// A number in the type of `x`; one that this type cannot hold would silently become another.
Tensor like(double v, const Tensor& x, std::string_view op) {
  if (!holds(x.dtype(), v))
    throw DTypeError(fmt::format(
        "{}: the number {} has no value in the type of the other operand; got {} {}. Hint: to(x, "
        "DType::f32)",
        op, v, name_of(x.dtype()), x.shape().str()));
  return scalar(v, x.dtype());
}

/// gy where a wins, gy/2 on ties, 0 elsewhere: the share of `a` in maximum(a, b). Selected and not
/// multiplied, since gy may be infinite where it does not count.
Tensor share(const Tensor& gy, const Tensor& wins, const Tensor& ties) {
  return where(wins, gy, where(ties, gy * 0.5, 0.0));
}

}  // namespace

Tensor sub(const Tensor& a, const Tensor& b) {
  const Tensor y = binary(a, b, "sub", [](auto p, auto q) { return p - q; });
  return record("sub", {a, b}, y, Save::none, [](const Saved& s, const Tensor& gy) {
    return TensorList{gy, s.needs(1) ? neg(gy) : Tensor()};
  });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  const Tensor y = binary(a, b, "mul", [](auto p, auto q) { return p * q; });
  return record("mul", {a, b}, y, Save::inputs, [](const Saved& s, const Tensor& gy) {
    return TensorList{s.needs(0) ? gy * s.input(1) : Tensor(),
                      s.needs(1) ? gy * s.input(0) : Tensor()};
  });
}

Tensor div(const Tensor& a, const Tensor& b) {
  check_floating(a, "div");
  check_same_type(a, b, "div");
  Tensor y = empty(broadcast_shapes(a.shape(), b.shape(), "div"), a.dtype(), "div");
  visit_float(a, "div",
              [&]<class T>() { detail::map2<T, T>(a, b, y, [](T p, T q) { return p / q; }); });
  return record("div", {a, b}, y, Save::inputs, [](const Saved& s, const Tensor& gy) {
    const Tensor ga = gy / s.input(1);
    return TensorList{ga, s.needs(1) ? -(ga * s.input(0) / s.input(1)) : Tensor()};
  });
}

Tensor pow(const Tensor& a, const Tensor& b) {
  check_floating(a, "pow");
  check_same_type(a, b, "pow");
  Tensor y = empty(broadcast_shapes(a.shape(), b.shape(), "pow"), a.dtype(), "pow");
  visit_float(a, "pow", [&]<class T>() {
    detail::map2<T, T>(
        a, b, y, [](T p, T q) { return std::pow(p, q); }, 16);
  });
  return record("pow", {a, b}, y, Save::inputs, [](const Saved& s, const Tensor& gy) {
    const Tensor x = s.input(0), e = s.input(1);
    TensorList g(2);
    // Branches not taken are computed at a = 1: they must be finite to every order.
    if (s.needs(0)) {
      // b a^(b−1) is 0 for b = 0, also where a^(b−1) is infinite.
      const Tensor none =
          logical_and(eq(e, 0.0), logical_not(isfinite(pow(x.detach(), e.detach() - 1.0))));
      g[0] = gy * where(none, 0.0, e * pow(where(none, 1.0, x), e - 1.0));
    }
    if (s.needs(1)) {
      const Tensor zero = eq(x, 0.0), safe = where(zero, 1.0, x);
      g[1] = gy * where(zero, 0.0, pow(safe, e) * log(safe));
    }
    return g;
  });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  const Tensor y =
      binary(a, b, "maximum", [](auto p, auto q) { return p != p ? p : (p > q ? p : q); });
  return record("maximum", {a, b}, y, Save::inputs, [](const Saved& s, const Tensor& gy) {
    const Tensor p = s.input(0).detach(), q = s.input(1).detach(), ties = eq(p, q);
    return TensorList{share(gy, gt(p, q), ties), share(gy, lt(p, q), ties)};
  });
}

Tensor minimum(const Tensor& a, const Tensor& b) {
  const Tensor y =
      binary(a, b, "minimum", [](auto p, auto q) { return p != p ? p : (p < q ? p : q); });
  return record("minimum", {a, b}, y, Save::inputs, [](const Saved& s, const Tensor& gy) {
    const Tensor p = s.input(0).detach(), q = s.input(1).detach(), ties = eq(p, q);
    return TensorList{share(gy, lt(p, q), ties), share(gy, gt(p, q), ties)};
  });
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  if (condition.dtype() != DType::b8)
    throw DTypeError(fmt::format("where: the condition must be b8; got {}. Hint: ne(x, 0)",
                                 name_of(condition.dtype())));
  check_same_type(a, b, "where");
  const Shape shape =
      broadcast_shapes(condition.shape(), broadcast_shapes(a.shape(), b.shape(), "where"), "where");
  Tensor y = empty(shape, a.dtype(), "where");
  visit_any(a.dtype(), [&]<class T>() {
    const bool* cs = condition.data<bool>();
    const T *as = a.data<T>(), *bs = b.data<T>();
    T* ys = y.mutable_data<T>();
    detail::StridedLoop(y, {&condition, &a, &b})
        .run(1, [&](const auto* o, std::int64_t n, const auto* s) {
          for (std::int64_t i = 0; i < n; ++i) {
            const T p = as[o[2] + i * s[2]], q = bs[o[3] + i * s[3]];
            ys[o[0] + i * s[0]] = cs[o[1] + i * s[1]] ? p : q;
          }
        });
  });
  return record("where", {condition, a, b}, y, Save::input0, [](const Saved& s, const Tensor& gy) {
    const Tensor c = s.input(0);
    return TensorList{Tensor(), s.needs(1) ? where(c, gy, 0.0) : Tensor(),
                      s.needs(2) ? where(c, 0.0, gy) : Tensor()};
  });
}

Tensor where(const Tensor& condition, const Tensor& a, double b) {
  return where(condition, a, like(b, a, "where"));
}
Tensor where(const Tensor& condition, double a, const Tensor& b) {
  return where(condition, like(a, b, "where"), b);
}

Tensor eq(const Tensor& a, const Tensor& b) {
  return compare(a, b, "eq", [](auto p, auto q) { return p == q; });
}
Tensor ne(const Tensor& a, const Tensor& b) {
  return compare(a, b, "ne", [](auto p, auto q) { return p != q; });
}
Tensor lt(const Tensor& a, const Tensor& b) {
  return compare(a, b, "lt", [](auto p, auto q) { return p < q; });
}
Tensor le(const Tensor& a, const Tensor& b) {
  return compare(a, b, "le", [](auto p, auto q) { return p <= q; });
}
Tensor gt(const Tensor& a, const Tensor& b) {
  return compare(a, b, "gt", [](auto p, auto q) { return p > q; });
}
Tensor ge(const Tensor& a, const Tensor& b) {
  return compare(a, b, "ge", [](auto p, auto q) { return p >= q; });
}
Tensor eq(const Tensor& a, double b) { return eq(a, like(b, a, "eq")); }
Tensor ne(const Tensor& a, double b) { return ne(a, like(b, a, "ne")); }
Tensor lt(const Tensor& a, double b) { return lt(a, like(b, a, "lt")); }
Tensor le(const Tensor& a, double b) { return le(a, like(b, a, "le")); }
Tensor gt(const Tensor& a, double b) { return gt(a, like(b, a, "gt")); }
Tensor ge(const Tensor& a, double b) { return ge(a, like(b, a, "ge")); }

namespace {
template <class F>
Tensor logic(const Tensor& a, const Tensor& b, std::string_view op, F f) {
  if (a.dtype() != DType::b8 || b.dtype() != DType::b8)
    throw DTypeError(
        fmt::format("{}: takes b8; got {} and {}", op, name_of(a.dtype()), name_of(b.dtype())));
  Tensor y = empty(broadcast_shapes(a.shape(), b.shape(), op), DType::b8, op);
  detail::map2<bool, bool>(a, b, y, f);
  return y;
}
}  // namespace

Tensor logical_and(const Tensor& a, const Tensor& b) {
  return logic(a, b, "logical_and", [](bool p, bool q) { return p && q; });
}
Tensor logical_or(const Tensor& a, const Tensor& b) {
  return logic(a, b, "logical_or", [](bool p, bool q) { return p || q; });
}
Tensor logical_not(const Tensor& a) {
  return logic(a, a, "logical_not", [](bool p, bool) { return !p; });
}

Tensor isnan(const Tensor& x) { return ne(x, x); }
Tensor isfinite(const Tensor& x) {
  if (!is_floating(x.dtype())) return ones(x.shape(), DType::b8).fill_(1);
  return eq(x.detach() - x.detach(), 0.0);
}

bool any(const Tensor& x) {
  Shape shape = x.shape();  // what is expanded is looked at once
  for (int k = 0; k < x.dim(); ++k)
    if (x.strides()[k] == 0 && shape[k] > 1) shape[k] = 1;
  return visit_any(x.dtype(), [&]<class T>() {
    const Tensor c = contiguous_data(strided_view(x, shape, x.strides(), x.offset()));
    const T* p = c.data<T>();
    return std::any_of(p, p + c.numel(), [](T v) { return v != T(0); });
  });
}
bool all(const Tensor& x) { return !any(eq(x, 0.0)); }
bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol) {
  check_same_type(a, b, "allclose");
  const Tensor p = cast_data(a.detach(), DType::f64), q = cast_data(b.detach(), DType::f64);
  const Tensor near = logical_and(isfinite(q), le(abs(p - q), abs(q) * rtol + atol));
  return all(logical_or(eq(p, q), near));
}

Tensor to(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  const DType from = x.dtype();
  return record("to", {x}, cast_data(x.detach(), dtype), Save::none,
                [from](const Saved&, const Tensor& gy) { return to(gy, from); });
}

Tensor operator+(const Tensor& a, double b) { return add(a, like(b, a, "add")); }
Tensor operator+(double a, const Tensor& b) { return add(like(a, b, "add"), b); }
Tensor operator-(const Tensor& a, double b) { return sub(a, like(b, a, "sub")); }
Tensor operator-(double a, const Tensor& b) { return sub(like(a, b, "sub"), b); }
Tensor operator*(const Tensor& a, double b) { return mul(a, like(b, a, "mul")); }
Tensor operator*(double a, const Tensor& b) { return mul(like(a, b, "mul"), b); }
Tensor operator/(const Tensor& a, double b) { return div(a, like(b, a, "div")); }
Tensor operator/(double a, const Tensor& b) { return div(like(a, b, "div"), b); }
Tensor operator-(const Tensor& x) { return neg(x); }
Tensor pow(const Tensor& a, double exponent) { return pow(a, like(exponent, a, "pow")); }
Tensor maximum(const Tensor& a, double b) { return maximum(a, like(b, a, "maximum")); }
Tensor minimum(const Tensor& a, double b) { return minimum(a, like(b, a, "minimum")); }

}  // namespace capsfw
