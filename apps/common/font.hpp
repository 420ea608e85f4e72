#pragma once
// A stroke font of our own, so that pictures look the same on every machine.

#include <string_view>
#include <vector>

#include "canvas.hpp"

namespace capsfw::apps {

/// Strokes of one character: x to the right, y up, baseline at 0, capital letters 10 high.
struct Glyph {
  double advance = 0;
  std::vector<std::vector<Point>> strokes;
};

/// The glyph of an ASCII character; a small box for any other.
const Glyph& glyph_of(char c);

}  // namespace capsfw::apps
