#pragma once
// Private: the checks of ops/conv.hpp, and the sizes that follow from the operands.

#include <string>
#include <string_view>
#include <utility>

#include <capsfw/ops/conv.hpp>

#include "conv.hpp"

namespace capsfw::kernels {

/// "stride = [1, 1], padding = [0, 0], dilation = [1, 1], groups = 1".
std::string str(const ConvOptions& o);

/// ShapeError or ValueError naming `op`.
void check_options(const ConvOptions& o, std::string_view op);

/// ShapeError unless `d` has two entries.
void check_pair(const Dims& d, std::string_view name, std::string_view op);

/// Two floating tensors of one type and of rank 4, else DTypeError or ShapeError.
void check_operands(const Tensor& a,
                    std::string_view name_a,
                    const Tensor& b,
                    std::string_view name_b,
                    std::string_view op);

/// A bias [channels] of this type or none, else DTypeError or ShapeError.
void check_bias(const Tensor& bias, std::int64_t channels, DType dtype, std::string_view op);

/// Rows and columns, with the size of the output. `what` lists the operands for the ShapeError.
std::pair<ConvAxis, ConvAxis> axes_of(const Dims& size,
                                      const Dims& kernel,
                                      const ConvOptions& o,
                                      std::string_view op,
                                      std::string_view what);

/// The sizes of conv2d(x, weight); ShapeError or ValueError where they do not fit together.
ConvShape shape_of(const Shape& x, const Shape& weight, const ConvOptions& o, std::string_view op);

}  // namespace capsfw::kernels
