#pragma once
// Two-dimensional convolution and its adjoints. conv2d is bilinear in (x, weight): conv2d,
// conv2d_input and conv2d_weight are closed under differentiation, each vjp being another of the
// three.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Geometry of a convolution or a pooling; {rows, columns}.
struct ConvOptions {
  Dims stride = {1, 1};
  Dims padding = {0, 0};   ///< zeros on both sides
  Dims dilation = {1, 1};  ///< distance between the taps of the kernel
  std::int64_t groups = 1;
};

/// y[b,o,i,j] = Σ_{c,p,q} w[o,c,p,q] x[b,c, i·s+p·d−pad, j·s+q·d−pad] + bias[o]: cross-correlation.
/// x [B, C, H, W], weight [O, C/groups, kh, kw], bias [O] or undefined -> [B, O, Ho, Wo],
/// Ho = ⌊(H + 2 pad − d (kh − 1) − 1) / s⌋ + 1.   vjp: conv2d_input, conv2d_weight, Σ gy.   saves:
/// x, weight. ShapeError on channels that do not fit, or a kernel larger than the padded image.
Tensor conv2d(const Tensor& x,
              const Tensor& weight,
              const Tensor& bias = {},
              const ConvOptions& options = {});

/// The gradient of conv2d for its input of size {H, W}: a transposed convolution. gy [B, O, Ho, Wo]
/// -> [B, C, H, W].
Tensor conv2d_input(const Tensor& gy,
                    const Tensor& weight,
                    const Dims& input_size,
                    const ConvOptions& options = {});

/// The gradient of conv2d for its weight with kernel {kh, kw}. -> [O, C/groups, kh, kw].
Tensor conv2d_weight(const Tensor& x,
                     const Tensor& gy,
                     const Dims& kernel,
                     const ConvOptions& options = {});

/// Patches as columns: x [B, C, H, W] -> [B, C·kh·kw, Ho·Wo]. vjp: fold.   saves: nothing.
Tensor unfold(const Tensor& x, const Dims& kernel, const ConvOptions& options = {});

/// The adjoint of unfold: adds columns [B, C·kh·kw, Ho·Wo] back into an image of {H, W}. vjp:
/// unfold.
Tensor fold(const Tensor& columns,
            const Dims& output_size,
            const Dims& kernel,
            const ConvOptions& options = {});

}  // namespace capsfw
