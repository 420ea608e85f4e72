#pragma once

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// p = e^(x − max) / Σ e^(x − max) along an axis. Entries of −∞ have probability 0 and gradient 0;
/// a row of only −∞ gives NaN.   vjp: gx = p (gy − Σ gy p).   saves: p.   Fused; reference:
/// softmax_reference.
Tensor softmax(const Tensor& x, int axis = -1);

/// x − logsumexp(x) along an axis.   vjp: gx = gy − softmax(x) Σ gy.   saves: y.
/// Fused; reference: log_softmax_reference.
Tensor log_softmax(const Tensor& x, int axis = -1);

/// y = x / Σ x along an axis: weights made shares. ±∞ or NaN where Σ x is 0.
/// vjp: gx = (gy − Σ gy y) / Σ x.   saves: x, y. An entry that is alone on the axis gives 1 and
/// gradients of 0, exactly, of any order; those of x / sum(x) leave rounding.
Tensor shares(const Tensor& x, int axis = -1);

/// The same as softmax and log_softmax in plain ops.
Tensor softmax_reference(const Tensor& x, int axis = -1);
Tensor log_softmax_reference(const Tensor& x, int axis = -1);

}  // namespace capsfw
