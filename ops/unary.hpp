#pragma once
// Elementwise functions of one tensor. All take f32 or f64 (abs, neg, sign, square, clamp also
// i64), any strides, and return a row-major tensor; DTypeError otherwise. In f32, exp and what is
// built on it use a polynomial of our own that vectorises: exp is at most 1 float away from the
// correctly rounded value, sigmoid at most 2 (measured on every float).

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// y = −x.   vjp: gx = −gy.   saves: nothing.
Tensor neg(const Tensor& x);
/// y = e^x.   vjp: gx = gy · y.   saves: y.
Tensor exp(const Tensor& x);
/// y = e^x − 1, exact near 0.   vjp: gx = gy (y + 1).   saves: y.
Tensor expm1(const Tensor& x);
/// y = ln x (−∞ at 0, NaN below).   vjp: gx = gy / x.   saves: x.
Tensor log(const Tensor& x);
/// y = ln(1 + x), exact near 0.   vjp: gx = gy / (1 + x).   saves: x.
Tensor log1p(const Tensor& x);
/// y = √x.   vjp: gx = gy / (2 y), infinite at 0 (see safe_norm).   saves: y.
Tensor sqrt(const Tensor& x);
/// y = 1 / √x.   vjp: gx = −gy y³ / 2.   saves: y.
Tensor rsqrt(const Tensor& x);
/// y = 1 / x.   vjp: gx = −gy y².   saves: y.
Tensor reciprocal(const Tensor& x);
/// y = x².   vjp: gx = 2 gy x.   saves: x.
Tensor square(const Tensor& x);
/// y = sin x.   vjp: gx = gy cos x.   saves: x.
Tensor sin(const Tensor& x);
/// y = cos x.   vjp: gx = −gy sin x.   saves: x.
Tensor cos(const Tensor& x);
/// y = arctan x.   vjp: gx = gy / (1 + x²).   saves: x.
Tensor atan(const Tensor& x);
/// y = erf x.   vjp: gx = gy 2/√π e^(−x²).   saves: x.
Tensor erf(const Tensor& x);
/// y = tanh x.   vjp: gx = gy (1 − y²).   saves: y.
Tensor tanh(const Tensor& x);
/// y = 1 / (1 + e^(−x)), finite for any x.   vjp: gx = gy y (1 − y).   saves: y.
Tensor sigmoid(const Tensor& x);
/// y = ln sigmoid(x) = −softplus(−x).   vjp: gx = gy sigmoid(−x).   saves: x.
Tensor logsigmoid(const Tensor& x);
/// y = ln(1 + e^x) = max(x, 0) + ln(1 + e^(−|x|)).   vjp: gx = gy sigmoid(x).   saves: x.
Tensor softplus(const Tensor& x);
/// y = max(x, 0).   vjp: gx = gy where x > 0, else 0.   saves: y.   NaN stays NaN.
Tensor relu(const Tensor& x);
/// y = x where x > 0, else slope · x.   vjp: gx = gy or slope · gy.   saves: x.
Tensor leaky_relu(const Tensor& x, double slope = 0.01);
/// y = x where x > 0, else α (e^x − 1).   vjp: gx = gy, or gy α e^x.   saves: x.
Tensor elu(const Tensor& x, double alpha = 1.0);
/// y = x Φ(x) with the normal distribution function Φ (Hendrycks, Gimpel 2016, exact form).
/// vjp: gx = gy (Φ(x) + x φ(x)).   saves: x.
Tensor gelu(const Tensor& x);
/// y = |x|.   vjp: gx = gy sign(x), 0 at 0.   saves: x.
Tensor abs(const Tensor& x);
/// y = −1, 0 or 1 (NaN for NaN).   vjp: 0.   saves: nothing.
Tensor sign(const Tensor& x);
/// y = min(max(x, low), high).   vjp: gx = gy where low ≤ x ≤ high, else 0.   saves: x.
/// ValueError if low > high; DTypeError for bounds that i64 does not have.   NaN stays NaN.
Tensor clamp(const Tensor& x, double low, double high);

}  // namespace capsfw
