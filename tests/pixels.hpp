#pragma once
// For the tests of pictures that programs draw.

#include <cmath>
#include <cstdint>

#include <capsfw/core/tensor.hpp>

#include "common/canvas.hpp"

namespace apps_test {

/// Pixels of about this colour.
inline int count(const capsfw::Tensor& picture, capsfw::apps::Rgb color) {
  const std::int64_t plane = picture.size(1) * picture.size(2);
  const float* p = picture.data<float>();
  int n = 0;
  for (std::int64_t i = 0; i < plane; ++i)
    n += std::abs(p[i] - color.r) < 0.02 && std::abs(p[plane + i] - color.g) < 0.02 &&
         std::abs(p[2 * plane + i] - color.b) < 0.02;
  return n;
}

}  // namespace apps_test
