#pragma once
// Private: does OpenBLAS use what the CPU has?

#include <string>
#include <string_view>
#include <vector>

#include "simd.hpp"

namespace capsfw::detail {

/// What holds OpenBLAS below the CPU, each with its cure: `core` names the kernels that it chose,
/// `cpu` is what the CPU can do, `coretype` and `l2_size` are the values of OPENBLAS_CORETYPE and
/// OPENBLAS_L2_SIZE ("" if not set).
std::vector<std::string> blas_warnings(std::string_view core,
                                       Isa cpu,
                                       std::string_view coretype,
                                       std::string_view l2_size);

}  // namespace capsfw::detail
