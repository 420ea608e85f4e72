#pragma once
// Private: what the normalising ops share.

#include <string_view>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// ShapeError unless t, if defined, has the shape `want`.
void check_shape(const Tensor& t,
                 const Shape& want,
                 std::string_view op,
                 std::string_view name,
                 const Tensor& x);

/// The same for gamma and beta, which must be of the type of x: else DTypeError.
void check_scale(const Tensor& t,
                 const Shape& want,
                 std::string_view op,
                 std::string_view name,
                 const Tensor& x);

/// ValueError for a negative eps.
void check_eps(double eps, std::string_view op);

/// x · gamma + beta, both as `shape` or undefined.
Tensor scale_and_shift(const Tensor& x,
                       const Tensor& gamma,
                       const Tensor& beta,
                       const Shape& shape);

}  // namespace capsfw::detail
