#pragma once
// Normalisation and dropout. Gradients of any order.

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// y = (x − m) / √(v + eps) · gamma + beta per channel of x [B, C, ...]; gamma, beta [C] or
/// undefined (1 and 0).
/// training: m and v are the mean and the biased variance of the batch; running_mean and
/// running_var [C] (undefined: none) move to (1 − momentum) old + momentum new, in place and
/// outside any graph, where the new variance is unbiased (n − 1); a channel whose new moment is not
/// finite leaves them as they are. ValueError if a channel has one
/// element, for a negative or NaN eps, or a momentum outside of [0, 1]. evaluation: m and v are the
/// running ones, constants to the gradient; ValueError if undefined. `relu_first`: of max(x, 0), in
/// the same passes. Fused in training; reference: mean, square, rsqrt and products.   Ioffe,
/// Szegedy 2015, Batch Normalization, algorithms 1 and 2.
Tensor batch_norm(const Tensor& x,
                  const Tensor& gamma,
                  const Tensor& beta,
                  Tensor running_mean,
                  Tensor running_var,
                  bool training,
                  double momentum = 0.1,
                  double eps = 1e-5,
                  bool relu_first = false);

/// y = (x − m) / √(v + eps) · gamma + beta with mean and biased variance over the last `axes` axes;
/// gamma, beta have the shape of these axes or are undefined.   Ba, Kiros, Hinton 2016, Layer
/// Normalization, eq (4).   Composed of mean, square, rsqrt and products.   ShapeError unless
/// 1 ≤ axes ≤ rank and gamma, beta fit; ValueError for a negative or NaN eps.
Tensor layer_norm(const Tensor& x,
                  int axes = 1,
                  const Tensor& gamma = {},
                  const Tensor& beta = {},
                  double eps = 1e-5);

/// y = (x − m) / √(v + eps) · gamma + beta with mean and biased variance of each of `groups` equal
/// stretches of the channels of x [B, C, ...], over all its positions; gamma, beta [C] or
/// undefined. One group normalises each sample as a whole; C groups are instance normalisation. Wu,
/// He 2018, Group Normalization, eq (1)-(7).   Composed of mean, square, rsqrt and products.
/// ShapeError unless x has a channel axis that `groups` divides and gamma, beta fit; ValueError for
/// groups < 1, and for a negative or NaN eps.
Tensor group_norm(const Tensor& x,
                  std::int64_t groups,
                  const Tensor& gamma = {},
                  const Tensor& beta = {},
                  double eps = 1e-5);

/// Training: x / (1 − p) where a draw of probability 1 − p keeps it, else 0; x itself otherwise or
/// for p = 0 (then nothing is drawn).   vjp: the same mask.   ValueError unless 0 ≤ p ≤ 1.
/// Srivastava et al. 2014, Dropout, inverted form.
Tensor dropout(const Tensor& x, double p, Rng& rng, bool training = true);

}  // namespace capsfw
