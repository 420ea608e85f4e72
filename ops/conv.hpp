#pragma once
// Two-dimensional convolution and its adjoints. conv2d is bilinear in (x, weight): conv2d,
// conv2d_input and conv2d_weight are closed under differentiation, each vjp being another of the
// three, and so gradients exist to any order.
//
// All take f32 or f64, DTypeError for other or mixed types. ShapeError where shapes do not fit
// together; ValueError for a stride, dilation or number of groups below 1, or a negative padding,
// and for the transform where it cannot be: types other than f32, groups, dilation, large taps.

#include <string>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// How a convolution is computed.
enum class ConvAlgorithm {
  automatic,  ///< what conv2d_algorithm names
  direct,     ///< the sums of the definition: the reference
  transform,  ///< fewer multiplications for f32: tiles of the image and of the kernel are taken to
              ///< values at points, where a correlation is a product (Toom and Cook, Winograd;
              ///< with roots of unity a Fourier transform). Errors are up to 1e-5 of the largest
              ///< result of an image; a NaN or an infinity spreads over the tiles that hold it
};

/// Geometry of a convolution; {rows, columns}.
struct ConvOptions {
  Dims stride = {1, 1};     ///< height, width
  Dims padding = {0, 0};    ///< zeros on both sides
  Dims dilation = {1, 1};   ///< distance between the taps of the kernel
  std::int64_t groups = 1;  ///< output channels of a group see the input channels of that group
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;  ///< of conv2d and of its gradients
};

/// What conv2d and its gradients run: "direct", "matrix product" (1x1 taps, or as many as
/// the image has pixels), or "transform 6x6" with the outputs of a tile. A function of the
/// arguments and of the vector instructions of this CPU; nothing is timed. Errors: those of conv2d.
std::string conv2d_algorithm(const Shape& x,
                             const Shape& weight,
                             const ConvOptions& options = {},
                             DType dtype = DType::f32);

/// y[b,o,i,j] = Σ_{c,p,q} w[o,c,p,q] x[b,c, i·s+p·d−pad, j·s+q·d−pad] + bias[o]: cross-correlation.
/// x [B, C, H, W], weight [O, C/groups, kh, kw], bias [O] or undefined -> [B, O, Ho, Wo],
/// Ho = ⌊(H + 2 pad − d (kh − 1) − 1) / s⌋ + 1.   vjp: gx = conv2d_input(gy, weight), gw =
/// conv2d_weight(x, gy), gb = Σ gy.   saves: x, weight.   Memory besides the result: direct, about
/// that of the weight and some MB per thread; transform, at most about 64 MiB and a few MB per
/// thread.
Tensor conv2d(const Tensor& x,
              const Tensor& weight,
              const Tensor& bias = {},
              const ConvOptions& options = {});

/// The gradient of conv2d for its input of size {H, W}: a transposed convolution. gy [B, O, Ho, Wo]
/// -> [B, C, H, W].   vjp: ggy = conv2d(g, weight), gw = conv2d_weight(g, gy).   saves: gy, weight.
Tensor conv2d_input(const Tensor& gy,
                    const Tensor& weight,
                    const Dims& input_size,
                    const ConvOptions& options = {});

/// The gradient of conv2d for its weight with kernel {kh, kw}. -> [O, C/groups, kh, kw].
/// vjp: gx = conv2d_input(gy, g), ggy = conv2d(x, g).   saves: x, gy.
Tensor conv2d_weight(const Tensor& x,
                     const Tensor& gy,
                     const Dims& kernel,
                     const ConvOptions& options = {});

/// Transposed convolution with PyTorch's arguments: conv2d_input(x, weight) into an image of
/// H = (Hi − 1) s − 2 pad + d (kh − 1) + output_padding + 1 rows, plus bias[o]. x [B, C, Hi, Wi],
/// weight [C, O/groups, kh, kw], bias [O] or undefined -> [B, O, H, W]. output_padding adds rows
/// below and columns at the right that only the larger of the images with Hi outputs have.
/// Composed of conv2d_input and a sum.   ShapeError if nothing is left of the image; ValueError
/// unless 0 ≤ output_padding < stride.
Tensor conv_transpose2d(const Tensor& x,
                        const Tensor& weight,
                        const Tensor& bias = {},
                        const ConvOptions& options = {},
                        const Dims& output_padding = {0, 0});

/// Patches as columns: x [B, C, H, W] -> [B, C·kh·kw, Ho·Wo], row (c·kh + p)·kw + q holding tap
/// (p, q) of channel c. `groups` has no meaning here.   vjp: fold.   saves: nothing.
Tensor unfold(const Tensor& x, const Dims& kernel, const ConvOptions& options = {});

/// The adjoint of unfold: adds columns [B, C·kh·kw, Ho·Wo] back into an image of {H, W}.
/// vjp: unfold.   saves: nothing.
Tensor fold(const Tensor& columns,
            const Dims& output_size,
            const Dims& kernel,
            const ConvOptions& options = {});

}  // namespace capsfw
