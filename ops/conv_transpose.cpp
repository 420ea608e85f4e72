#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/layout.hpp>

#include "kernels/conv_shape.hpp"

namespace capsfw {

Tensor conv_transpose2d(const Tensor& x,
                        const Tensor& weight,
                        const Tensor& bias,
                        const ConvOptions& options,
                        const Dims& output_padding) {
  const char* op = "conv_transpose2d";
  kernels::check_operands(x, "x", weight, "weight", op);
  kernels::check_options(options, op);
  kernels::check_pair(output_padding, "output_padding", op);
  if (x.size(1) != weight.size(0) || x.size(1) % options.groups != 0)
    throw ShapeError(
        fmt::format("{}: x [B, C, H, W] and weight [C, O/groups, kh, kw] must agree in C, which "
                    "groups divides; got x = {}, weight = {}, groups = {}. Hint: the weight of "
                    "conv2d has its axes 0 and 1 the other way round",
                    op, x.shape().str(), weight.shape().str(), options.groups));
  const std::int64_t channels = weight.size(1) * options.groups;
  kernels::check_bias(bias, channels, x.dtype(), op);
  Dims size;
  for (int a = 0; a < 2; ++a) {
    if (output_padding[a] < 0 || output_padding[a] >= options.stride[a])
      throw ValueError(
          fmt::format("{}: output_padding must lie in [0, stride); got {} for a stride of {}", op,
                      output_padding.str(), options.stride.str()));
    size.push_back((x.size(2 + a) - 1) * options.stride[a] - 2 * options.padding[a] +
                   options.dilation[a] * (weight.size(2 + a) - 1) + output_padding[a] + 1);
  }
  if (size[0] < 1 || size[1] < 1)
    throw ShapeError(
        fmt::format("{}: the padding must leave something of the image; got x = {}, "
                    "weight = {}, padding = {}, an image of {}",
                    op, x.shape().str(), weight.shape().str(), options.padding.str(), size.str()));
  const Tensor y = conv2d_input(x, weight, size, options);
  return bias.defined() ? y + reshape(bias, {channels, 1, 1}) : y;
}

}  // namespace capsfw
