// Tiles and their numbers (ops/kernels/tiles.hpp), against the sum that they stand for.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <capsfw/core/random.hpp>

#include "../ops/kernels/tiles.hpp"

using namespace capsfw;
using namespace capsfw::kernels;

namespace {

/// Memory for vectors: a tile, or the numbers of one.
struct Vectors {
  explicit Vectors(std::int64_t n) : memory(static_cast<std::size_t>(n * tile_lanes() + 16)) {
    void* p = memory.data();
    std::size_t space = memory.size() * sizeof(float);
    data = static_cast<float*>(std::align(64, sizeof(float), p, space));
  }
  std::vector<float> memory;
  float* data;
};

/// A tile of normal numbers in every lane: where they are missing, the window leaves them out.
struct Tile {
  Tile(const Grid& grid, Side side_, Rng& rng)
      : side(side_),
        rows(grid.rows.size(side)),
        columns(grid.columns.size(side)),
        vectors(rows * columns) {
    for (std::int64_t i = 0; i < rows * columns * tile_lanes(); ++i)
      vectors.data[i] = static_cast<float>(rng.uniform() - 0.5);
  }
  double at(std::int64_t r, std::int64_t c, std::int64_t lane) const {
    return vectors.data[(r * columns + c) * tile_lanes() + lane];
  }
  Window window() const { return {0, rows, columns * tile_lanes(), 0, columns, tile_lanes()}; }
  /// Without the first row and the last column, as at the border of an image.
  Window inner() const {
    return {1, rows - 1, columns * tile_lanes(), 0, columns - 1, tile_lanes()};
  }
  Side side;
  std::int64_t rows, columns;
  Vectors vectors;
};

}  // namespace

TEST_CASE(
    "the sum over the numbers of three tiles is the correlation, and each side has its transpose") {
  Rng rng(7);
  const std::int64_t lanes = tile_lanes();
  int checked = 0;
  for (std::int64_t down = 1; down <= Points::kMost; ++down)
    for (const std::int64_t across : {std::int64_t{1}, down, std::int64_t{6}})
      for (const std::int64_t taps : {1, 2, 3, 5, 12}) {
        if (down < taps) continue;
        const std::int64_t wide = std::min(taps, across);
        const Grid grid(down + 1 - taps, taps, across + 1 - wide, wide);
        const std::int64_t n = planes(down, across);
        Tile x(grid, Side::image, rng), w(grid, Side::weight, rng), g(grid, Side::output, rng);
        CAPTURE(down);
        CAPTURE(across);
        CAPTURE(taps);
        ++checked;
        Vectors numbers[3] = {Vectors(n), Vectors(n), Vectors(n)};
        const Tile* const tiles[3] = {&x, &w, &g};
        for (int i = 0; i < 3; ++i)
          tile_to_planes(grid, tiles[i]->side, tiles[i]->window(), tiles[i]->vectors.data,
                         numbers[i].data, lanes);
        for (const std::int64_t lane : {std::int64_t{0}, lanes - 1}) {
          double sum = 0, want = 0, size = 0;
          for (std::int64_t f = 0; f < n; ++f) {
            const double term = static_cast<double>(numbers[0].data[f * lanes + lane]) *
                                numbers[1].data[f * lanes + lane] *
                                numbers[2].data[f * lanes + lane];
            sum += term;
            size += std::abs(term);
          }
          for (std::int64_t i = 0; i < g.rows; ++i)
            for (std::int64_t j = 0; j < g.columns; ++j)
              for (std::int64_t p = 0; p < w.rows; ++p)
                for (std::int64_t q = 0; q < w.columns; ++q)
                  want += g.at(i, j, lane) * w.at(p, q, lane) * x.at(i + p, j + q, lane);
          CHECK(std::abs(sum - want) <= 4e-7 * size);
        }
        // <T a, b> = <a, Tᵀ b>, also for a part of the tile, and added to what is there.
        for (const Tile* const a : tiles) {
          if (a->rows < 2 || a->columns < 2) continue;
          Vectors forward(n), back(a->rows * a->columns);
          const float* const from = a->vectors.data + a->columns * lanes;
          std::fill_n(back.data, a->rows * a->columns * lanes, 1.0F);
          tile_to_planes(grid, a->side, a->inner(), from, forward.data, lanes);
          planes_to_tile(grid, a->side, numbers[0].data, lanes, a->inner(),
                         back.data + a->columns * lanes, true);
          double left = 0, right = 0, size = 0;
          for (std::int64_t f = 0; f < n * lanes; f += lanes) {
            left += static_cast<double>(forward.data[f]) * numbers[0].data[f];
            size += std::abs(static_cast<double>(forward.data[f]) * numbers[0].data[f]);
          }
          for (std::int64_t r = 0; r < a->rows; ++r)
            for (std::int64_t c = 0; c < a->columns; ++c) {
              const double more = back.data[(r * a->columns + c) * lanes] - 1.0;
              if (r > 0 && c + 1 < a->columns)
                right += a->at(r, c, 0) * more;
              else
                CHECK(more == 0);  // not touched
            }
          CHECK(std::abs(left - right) <= 1e-6 * size);
        }
      }
  CHECK(checked > 80);
}
