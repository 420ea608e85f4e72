#pragma once
// Arithmetic, comparison and selection with NumPy broadcasting. Operands must have the same element
// type (no silent promotion: a stray f32 constant would ruin an f64 gradient check); C++ numbers
// take the type of the tensor. Every function throws ShapeError if the shapes do not broadcast and
// DTypeError if the types differ.

#include <capsfw/core/tensor.hpp>
#include <capsfw/core/vspace.hpp>

namespace capsfw {

// add(a, b) is declared in core/vspace.hpp: the engine itself needs it.

/// y = a − b.   vjp: ga = gy, gb = −gy.   saves: nothing.
Tensor sub(const Tensor& a, const Tensor& b);
/// y = a · b.   vjp: ga = gy · b, gb = gy · a.   saves: a, b.
Tensor mul(const Tensor& a, const Tensor& b);
/// y = a / b.   vjp: ga = gy / b, gb = −gy · a / b².   saves: a, b.   Floating types.
Tensor div(const Tensor& a, const Tensor& b);
/// y = a^b, elementwise.   vjp: ga = gy b a^(b−1), gb = gy a^b ln a (0 where a = 0).   saves: a, b.
Tensor pow(const Tensor& a, const Tensor& b);
/// The larger element.   vjp: gy to the larger; ties give half to each.   saves: a, b.   NaN if
/// either is.
Tensor maximum(const Tensor& a, const Tensor& b);
/// The smaller element.   vjp: gy to the smaller; ties give half to each.   saves: a, b.   NaN if
/// either is.
Tensor minimum(const Tensor& a, const Tensor& b);

/// y = condition ? a : b.   vjp: ga = where(condition, gy, 0), gb = where(condition, 0, gy).
/// saves: condition (b8).   An infinity or NaN in the branch not taken does not reach the result.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
Tensor where(const Tensor& condition, const Tensor& a, double b);
Tensor where(const Tensor& condition, double a, const Tensor& b);

/// Elementwise comparison, as b8. No gradient; comparisons with NaN are false (ne: true).
Tensor eq(const Tensor& a, const Tensor& b);
Tensor ne(const Tensor& a, const Tensor& b);
Tensor lt(const Tensor& a, const Tensor& b);
Tensor le(const Tensor& a, const Tensor& b);
Tensor gt(const Tensor& a, const Tensor& b);
Tensor ge(const Tensor& a, const Tensor& b);
Tensor eq(const Tensor& a, double b);
Tensor ne(const Tensor& a, double b);
Tensor lt(const Tensor& a, double b);
Tensor le(const Tensor& a, double b);
Tensor gt(const Tensor& a, double b);
Tensor ge(const Tensor& a, double b);
/// Elementwise and, or of b8 tensors.
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
/// Elementwise not of a b8 tensor.
Tensor logical_not(const Tensor& a);
/// True where x is NaN; isfinite: where it is neither NaN nor infinite. As b8.
Tensor isnan(const Tensor& x);
Tensor isfinite(const Tensor& x);
/// True if every element is (any element is). Plain C++ results: they end a graph.
bool all(const Tensor& x);
bool any(const Tensor& x);
/// True if |a − b| ≤ atol + rtol |b| everywhere; NaN equals nothing.
bool allclose(const Tensor& a, const Tensor& b, double rtol = 1e-5, double atol = 1e-8);

/// The elements converted.   vjp: gx = to(gy, x.dtype).   saves: nothing.
Tensor to(const Tensor& x, DType dtype);

/// add, sub, mul, div and neg; a number is a tensor of one element of the other's type.
inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator+(const Tensor& a, double b);
Tensor operator+(double a, const Tensor& b);
Tensor operator-(const Tensor& a, double b);
Tensor operator-(double a, const Tensor& b);
Tensor operator*(const Tensor& a, double b);
Tensor operator*(double a, const Tensor& b);
Tensor operator/(const Tensor& a, double b);
Tensor operator/(double a, const Tensor& b);
Tensor operator-(const Tensor& x);
/// With a number for the second tensor.
Tensor pow(const Tensor& a, double exponent);
/// See pow.
Tensor maximum(const Tensor& a, double b);
Tensor minimum(const Tensor& a, double b);

}  // namespace capsfw
