#pragma once
// Private: tiles of an image, of its kernel or of its outputs, and their values at the points of a
// two-dimensional algorithm (points.hpp, one for each axis). One vector instruction works on as
// many channels; "lanes" below. The values at a pair of complex points are kept as three numbers
// whose products give the complex product (Karatsuba): all that is left between two tiles are
// products of real numbers, one for each of `planes`.

#include <cstdint>

#include "points.hpp"

namespace capsfw::kernels {

/// An algorithm for two axes.
struct Grid {
  Grid(std::int64_t outputs_down,
       std::int64_t taps_down,
       std::int64_t outputs_across,
       std::int64_t taps_across)
      : rows(outputs_down, taps_down), columns(outputs_across, taps_across) {}
  Points rows, columns;
};

/// Numbers per tile for so many values along the two axes.
std::int64_t planes(std::int64_t rows, std::int64_t columns);

/// The part of a tile that lies in memory: `rows` rows from `row` on, and columns alike. Distances
/// are those of neighbours in floats; the lanes of an element are neighbours.
struct Window {
  std::int64_t row, rows, row_stride, column, columns, column_stride;
};

/// Channels that are transformed at a time: those of a vector of this CPU, as in Panels<float>.
std::int64_t tile_lanes();

/// out[f · plane + lane] = the numbers of a tile; what is outside of the window counts as 0.
void tile_to_planes(const Grid& grid,
                    Side side,
                    const Window& window,
                    const float* tile,
                    float* out,
                    std::int64_t plane);

/// The transpose: sums over all numbers, written to the window, or added to it.
void planes_to_tile(const Grid& grid,
                    Side side,
                    const float* planes,
                    std::int64_t plane,
                    const Window& window,
                    float* tile,
                    bool add);

}  // namespace capsfw::kernels
