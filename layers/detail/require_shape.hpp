#pragma once
// Private: what goes into a routing beside the votes must fit them.

#include <string_view>

#include <fmt/format.h>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// ShapeError unless `t`, where there is one, has this shape. `who` is the op, `what` the operand.
inline void require_shape(std::string_view who,
                          const Tensor& t,
                          const Shape& shape,
                          const char* what,
                          const Shape& votes) {
  if (t.defined() && t.shape() != shape)
    throw ShapeError(fmt::format("{}: {} must be {} for votes {}; got {}", who, what, shape.str(),
                                 votes.str(), t.shape().str()));
}

}  // namespace capsfw::detail
