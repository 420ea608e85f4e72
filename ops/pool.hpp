#pragma once
// Pooling over the windows of an image x [B, C, H, W] -> [B, C, Ho, Wo],
// Ho = ⌊(H + 2 padding − kernel) / stride⌋ + 1. ShapeError if the padded image is smaller than the
// window; ValueError unless kernel and stride are at least 1 and 0 ≤ padding ≤ kernel / 2, so that
// no window lies in the padding alone.
//
// The adaptive ones take the size of the result instead: window i of n covers the rows ⌊i H / n⌋ to
// ⌈(i + 1) H / n⌉ − 1, the same for columns; windows overlap by one where n does not divide H.
// {1, 1} is global pooling. ShapeError for an image without pixels; ValueError for a size below 1.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Geometry of a pooling; {rows, columns}.
struct PoolOptions {
  Dims stride = {};               ///< empty: the kernel, windows side by side
  Dims padding = {0, 0};          ///< on both sides: zeros for the average, −∞ for the maximum
  bool count_include_pad = true;  ///< avg_pool2d: the padding counts in the denominator
};

/// Largest element of each window {rows, columns}; NaN if there is one.   vjp: gy to the first
/// maximiser in row-major order (gather at its position).   saves: the positions.
Tensor max_pool2d(const Tensor& x, const Dims& kernel, const PoolOptions& options = {});

/// Mean of each window.   vjp: gx = avg_pool2d_input(gy, {H, W}, kernel, options).   saves:
/// nothing.
Tensor avg_pool2d(const Tensor& x, const Dims& kernel, const PoolOptions& options = {});

/// The adjoint of avg_pool2d: gy [B, C, Ho, Wo] spread over the windows of an image of size {H, W}.
/// vjp: avg_pool2d.   saves: nothing.
Tensor avg_pool2d_input(const Tensor& gy,
                        const Dims& input_size,
                        const Dims& kernel,
                        const PoolOptions& options = {});

/// Largest element of each adaptive window; NaN and vjp as for max_pool2d.   saves: the positions.
Tensor adaptive_max_pool2d(const Tensor& x, const Dims& output_size);

/// Mean of each adaptive window; sums of f32 in double.   vjp: gx = adaptive_avg_pool2d_input(gy,
/// {H, W}).   saves: nothing.
Tensor adaptive_avg_pool2d(const Tensor& x, const Dims& output_size);

/// The adjoint of adaptive_avg_pool2d: gy [B, C, Ho, Wo] spread over an image of size {H, W}.
/// vjp: adaptive_avg_pool2d.   saves: nothing.
Tensor adaptive_avg_pool2d_input(const Tensor& gy, const Dims& input_size);

}  // namespace capsfw
