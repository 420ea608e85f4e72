#pragma once
// Private: labels must be classes that there are.

#include <cstdint>
#include <string_view>

#include <fmt/format.h>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// ValueError naming `who` unless all of `labels`, i64, lie in [0, classes).
inline void check_classes(const Tensor& labels, std::int64_t classes, std::string_view who) {
  for (const std::int64_t k : labels.to_vector<std::int64_t>())
    if (k < 0 || k >= classes)
      throw ValueError(fmt::format("{}: classes must lie in [0, {}); got {}", who, classes, k));
}

}  // namespace capsfw::detail
