#pragma once
// The logarithm of the gamma function and its derivatives, elementwise, for x > 0; NaN for x < 0.
// They take f32 or f64, any strides; DTypeError otherwise. Computed in f64 for both.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// y = ln Γ(x); ∞ at 0.   vjp: gx = gy digamma(x).   saves: x.
Tensor lgamma(const Tensor& x);
/// y = ψ(x) = d/dx ln Γ(x); −∞ at 0.   vjp: gx = gy polygamma(1, x).   saves: x.
Tensor digamma(const Tensor& x);
/// y = ψ⁽ⁿ⁾(x), the n-th derivative of digamma; of sign (−1)ⁿ⁺¹ for n ≥ 1, infinite at 0.
/// vjp: gx = gy polygamma(n + 1, x).   saves: x.   Recurrence up to x ≥ 12 + n, there the
/// asymptotic series, Abramowitz, Stegun 1964, (6.4.6), (6.4.11).   ValueError unless 0 ≤
/// n ≤ 1000.
Tensor polygamma(int n, const Tensor& x);

}  // namespace capsfw
