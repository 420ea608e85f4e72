#pragma once
// Private: telling a number that is too large for its type from a bug.

#include <string_view>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// ValueError, naming `who` and the largest input, if a result is not finite although all inputs
/// are, and they are so large that products of them overflow. Anything else passes: what was NaN
/// before stays so. Undefined tensors are left out. Costs a pass over the results.
void check_overflow(std::string_view who, const TensorList& results, const TensorList& inputs);

}  // namespace capsfw::detail
