#include "conv_shape.hpp"

#include <fmt/format.h>

namespace capsfw::kernels {

std::string str(const ConvOptions& o) {
  return fmt::format("stride = {}, padding = {}, dilation = {}, groups = {}", o.stride.str(),
                     o.padding.str(), o.dilation.str(), o.groups);
}

void check_options(const ConvOptions& o, std::string_view op) {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;  // keeps all products below in 63 bits
  for (const Dims& d : {o.stride, o.padding, o.dilation})
    if (d.rank() != 2)
      throw ShapeError(fmt::format("{}: stride, padding and dilation are {{rows, columns}}; got {}",
                                   op, str(o)));
  for (int a = 0; a < 2; ++a)
    if (o.stride[a] < 1 || o.dilation[a] < 1 || o.padding[a] < 0 || o.stride[a] > kMost ||
        o.dilation[a] > kMost || o.padding[a] > kMost)
      throw ValueError(fmt::format(
          "{}: stride and dilation must be at least 1, padding at least 0, all at most {}; got {}",
          op, kMost, str(o)));
  if (o.groups < 1)
    throw ValueError(fmt::format("{}: groups must be at least 1; got {}", op, str(o)));
}

/// Both axes of a convolution. `what` lists the operands for the message.
std::pair<ConvAxis, ConvAxis> axes_of(const Dims& size,
                                      const Dims& kernel,
                                      const ConvOptions& o,
                                      std::string_view op,
                                      std::string_view what) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 32;  // of an axis: products stay in 63 bits
  ConvAxis axes[2];
  for (int a = 0; a < 2; ++a) {
    if (size[a] < 0 || size[a] > kLargest || kernel[a] < 1 || kernel[a] > kLargest)
      throw ShapeError(
          fmt::format("{}: rows and columns of the kernel must be at least 1, of the image at "
                      "least 0, all at most 2^32; got {}, {}",
                      op, what, str(o)));
    const std::int64_t padded = size[a] + 2 * o.padding[a],
                       reach = o.dilation[a] * (kernel[a] - 1) + 1;
    if (reach > padded)
      throw ShapeError(fmt::format(
          "{}: the kernel must fit into the padded image; got {}, {} (it reaches over {} of {} "
          "{}). Hint: more padding, or a smaller kernel",
          op, what, str(o), reach, padded, a == 0 ? "rows" : "columns"));
    axes[a] = {size[a],     kernel[a],    (padded - reach) / o.stride[a] + 1,
               o.stride[a], o.padding[a], o.dilation[a]};
  }
  return {axes[0], axes[1]};
}

void check_pair(const Dims& d, std::string_view name, std::string_view op) {
  if (d.rank() != 2)
    throw ShapeError(fmt::format("{}: {} is {{rows, columns}}; got {}", op, name, d.str()));
}

void check_bias(const Tensor& bias, std::int64_t channels, DType dtype, std::string_view op) {
  if (!bias.defined()) return;
  if (bias.dtype() != dtype)
    throw DTypeError(fmt::format("{}: bias must be of the type of x, {}; got {}", op,
                                 name_of(dtype), name_of(bias.dtype())));
  if (bias.shape() != Shape{channels})
    throw ShapeError(
        fmt::format("{}: bias must be {}; got {}", op, Shape{channels}.str(), bias.shape().str()));
}

void check_operands(const Tensor& a,
                    std::string_view name_a,
                    const Tensor& b,
                    std::string_view name_b,
                    std::string_view op) {
  const std::string what =
      fmt::format("{} = {} {}, {} = {} {}", name_a, name_of(a.dtype()), a.shape().str(), name_b,
                  name_of(b.dtype()), b.shape().str());
  check_floating(a, op);
  if (a.dtype() != b.dtype())
    throw DTypeError(
        fmt::format("{}: element types must be equal; got {}. Hint: to(x, dtype)", op, what));
  if (a.dim() != 4 || b.dim() != 4)
    throw ShapeError(fmt::format(
        "{}: takes images [B, C, H, W] and weights [O, C/groups, kh, kw]; got {}. Hint: "
        "unsqueeze(x, 0) makes a batch of one image",
        op, what));
}

/// Checks the three shapes of a convolution against each other.
ConvShape shape_of(const Shape& x, const Shape& weight, const ConvOptions& o, std::string_view op) {
  check_options(o, op);
  const std::string what = fmt::format("x = {}, weight = {}", x.str(), weight.str());
  if (x[1] != weight[1] * o.groups || weight[0] % o.groups != 0)
    throw ShapeError(fmt::format(
        "{}: x must have weight.size(1) * groups channels, and groups must divide weight.size(0); "
        "got {}, {} ({} channels, {} * {} wanted). Hint: weight is [out, in / groups, rows, "
        "columns]",
        op, what, str(o), x[1], weight[1], o.groups));
  const auto [rows, columns] = axes_of({x[2], x[3]}, {weight[2], weight[3]}, o, op, what);
  return {x[0], o.groups, weight[1], weight[0] / o.groups, rows, columns};
}

}  // namespace capsfw::kernels
