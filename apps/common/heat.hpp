#pragma once
// Tables of numbers as coloured cells.

#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

#include "common/canvas.hpp"

namespace capsfw::apps {

/// White for 0, towards blue for `value` = 1 and towards orange for −1; clamped, NaN is 0.
Rgb heat_color(double value);

/// Words around and in a heat map.
struct HeatWords {
  std::string title = {};
  std::string note = {};  ///< below the cells
  std::vector<std::string> rows = {}, columns = {};
  std::vector<std::string> cells = {};  ///< row by row; may be empty
};

/// values [R, C], coloured by value / scale (0: the largest magnitude). [3, height, width], f32, in
/// [0, 1], ready for save_png(). ShapeError unless values are a matrix that is not empty and
/// suits the words; ValueError with more than 4096 rows or columns.
Tensor heat_map(const Tensor& values, const HeatWords& words, double scale = 0);

}  // namespace capsfw::apps
