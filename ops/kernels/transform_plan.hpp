#pragma once
// Private: how a convolution through values at points is cut (conv_transform.hpp), and the operands
// of its products.

#include <algorithm>
#include <cstdint>

#include "conv_transform.hpp"
#include "panel.hpp"
#include "tiles.hpp"

namespace capsfw::kernels {

// Of the weights at points, of images and outputs together where the weights are few, and what
// these may be where the weights are many, in tenths: blocks that stay in the caches, but do not
// read the weights too often.
inline constexpr std::int64_t kWeightBytes = std::int64_t{22} << 20,
                              kRowBytes = std::int64_t{3} << 20, kRowsPerWeights = 16;

// Where the weights at points take no more than kFewWeights and an image with its output no more
// than kRowBytes, a thread takes a block of images from the image to the output, at least one and
// kOwnBytes at most, and there are at least kLeastBlocks: what one core has written is not read by
// another, which may be far away.
inline constexpr std::int64_t kFewWeights = std::int64_t{3} << 20,
                              kOwnBytes = std::int64_t{3} << 18, kLeastBlocks = 8;
// Tiles of a group of images that has sums of weights of its own, and most of such groups.
inline constexpr std::int64_t kGroupRows = 256, kMostGroups = 16;

/// Positions [first, first + count) of a tile lie in memory, the first one at index `at`.
struct Range {
  std::int64_t first, count, at;
};

/// What the three products share: the cut into tiles and phases, and blocks of images and channels.
struct Plan {
  Plan(const ConvShape& shape, const TileSize& tile)
      : s(shape),
        grid(tile.rows, phase_taps(s.rows), tile.columns, phase_taps(s.columns)),
        planes(kernels::planes(grid.rows.count, grid.columns.count)),
        lanes(tile_lanes()),
        tiles_down(divide_up(s.rows.out, tile.rows)),
        tiles_across(divide_up(s.columns.out, tile.columns)),
        phases_across(std::min(s.columns.stride, s.columns.kernel)),
        phases(std::min(s.rows.stride, s.rows.kernel) * phases_across),
        filters(round_up(s.filters, std::max(lanes, kTileRows))) {
    channels = round_up(s.channels, lanes);
    while (filters * depth(channels) * planes > kWeightBytes / kFloat && channels > lanes)
      channels = round_up(divide_up(channels, 2), lanes);
    const std::int64_t most =
        std::max(filters * depth(channels) * kRowsPerWeights / 10, kRowBytes / kFloat / planes);
    images = s.batch;
    while (images > 1 && rows(images) * (depth(channels) + filters) > most)
      images = divide_up(images, 2);
    const auto bytes = [this](std::int64_t n) {
      return rows(n) * (depth(channels) + filters) * planes * kFloat;
    };
    apart = filters * depth(channels) * planes <= kFewWeights / kFloat && channels >= s.channels &&
            s.batch >= kLeastBlocks && bytes(1) <= kRowBytes;
    own_images = divide_up(s.batch, kLeastBlocks);
    while (own_images > 1 && bytes(own_images) > kOwnBytes) own_images = divide_up(own_images, 2);
  }

  std::int64_t tiles() const { return tiles_down * tiles_across; }
  /// Groups of images, at least one in each, whose part of a weight gradient a thread sums up by
  /// itself; 0: none.
  std::int64_t weight_groups() const {
    const std::int64_t groups =
        std::min({s.batch, s.batch * tiles() / kGroupRows, kMostGroups,
                  kWeightBytes / kFloat / (filters * (depth(channels) + kSlack) * planes)});
    return apart && groups >= kLeastBlocks ? groups : 0;
  }
  /// Rows of the products for n images, and what they take in memory.
  std::int64_t rows(std::int64_t n) const { return round_up(n * tiles(), kTileRows); }
  /// Channels and phases of n channels.
  std::int64_t depth(std::int64_t n) const { return round_up(n, lanes) * phases; }
  /// Place of the first of `lanes` channels from `channel` on, within a chunk.
  std::int64_t place(std::int64_t channel, std::int64_t phase) const {
    return channel / lanes * lanes * phases + phase * lanes + channel % lanes;
  }

  static Range image_range(const ConvAxis& a, const Points& p, std::int64_t t, std::int64_t phase) {
    const std::int64_t from = a.stride * t * p.outputs + phase - a.padding,
                       first = from < 0 ? std::min(divide_up(-from, a.stride), p.count) : 0,
                       end = a.size > from ? std::min(divide_up(a.size - from, a.stride), p.count)
                                           : 0;
    return {first, std::max<std::int64_t>(end - first, 0), from + first * a.stride};
  }
  static Range output_range(const ConvAxis& a, const Points& p, std::int64_t t) {
    return {0, std::min(p.outputs, a.out - t * p.outputs), t * p.outputs};
  }
  static Range weight_range(const ConvAxis& a, std::int64_t phase) {
    return {0, divide_up(a.kernel - phase, a.stride), phase};
  }

  /// Calls f(window, where it begins in an image of vectors, tile, phase).
  template <class F>
  void each_image_tile(const F& f) const {
    const std::int64_t width = s.columns.size, down = s.rows.stride * width * lanes,
                       across = s.columns.stride * lanes;
    for (std::int64_t t = 0; t < tiles(); ++t)
      for (std::int64_t phase = 0; phase < phases; ++phase) {
        const Range r = image_range(s.rows, grid.rows, t / tiles_across, phase / phases_across),
                    c = image_range(s.columns, grid.columns, t % tiles_across,
                                    phase % phases_across);
        const bool none = r.count == 0 || c.count == 0;
        f(Window{r.first, r.count, down, c.first, c.count, across},
          none ? 0 : (r.at * width + c.at) * lanes, t, phase);
      }
  }
  /// Calls f(window, where it begins in the outputs, tile).
  template <class F>
  void each_output_tile(const F& f) const {
    const std::int64_t width = s.columns.out;
    for (std::int64_t t = 0; t < tiles(); ++t) {
      const Range r = output_range(s.rows, grid.rows, t / tiles_across),
                  c = output_range(s.columns, grid.columns, t % tiles_across);
      f(Window{0, r.count, width * lanes, 0, c.count, lanes}, (r.at * width + c.at) * lanes, t);
    }
  }
  /// Calls f(window, where it begins in the taps, phase).
  template <class F>
  void each_weight_phase(const F& f) const {
    const std::int64_t width = s.columns.kernel, down = s.rows.stride * width * lanes,
                       across = s.columns.stride * lanes;
    for (std::int64_t phase = 0; phase < phases; ++phase) {
      const Range r = weight_range(s.rows, phase / phases_across),
                  c = weight_range(s.columns, phase % phases_across);
      f(Window{0, r.count, down, 0, c.count, across}, (r.at * width + c.at) * lanes, phase);
    }
  }

  static constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
  ConvShape s;
  Grid grid;
  std::int64_t planes, lanes, tiles_down, tiles_across, phases_across, phases;
  std::int64_t filters;     ///< with those that fill up vectors
  std::int64_t channels;    ///< of a chunk
  std::int64_t images;      ///< of a block
  bool apart;               ///< each thread has blocks of its own
  std::int64_t own_images;  ///< of such a block
};

/// Floats between planes: what belongs to one tile lies in different sets of the caches.
inline constexpr std::int64_t kPlaneGap = 48;

/// A left operand or a result, [plane][row][column], with gaps between the rows as well.
struct Rows {
  Rows(std::int64_t rows, std::int64_t columns, float* memory)
      : row(columns + kSlack), plane(rows * row + kPlaneGap), data(memory) {}
  /// Numbers in memory.
  static std::int64_t size(std::int64_t planes, std::int64_t rows, std::int64_t columns) {
    return planes * Rows(rows, columns, nullptr).plane;
  }
  float* at(std::int64_t i, std::int64_t column) const { return data + i * row + column; }
  std::int64_t row, plane;
  float* data;
};

/// A right operand, [plane][panel][row][column of the panel].
struct Columns {
  explicit Columns(float* memory) : data(memory) {}
  /// Numbers in memory for up to so many rows.
  static std::int64_t size(std::int64_t planes, std::int64_t rows, std::int64_t columns) {
    return planes * (rows * Panels<float>(columns).padded() + kPlaneGap);
  }
  /// Before it is filled: its sizes now.
  void shape(std::int64_t rows, std::int64_t columns) {
    depth = rows;
    panels = Panels<float>(columns);
    plane = depth * panels.padded() + kPlaneGap;
  }
  float* at(std::int64_t i, std::int64_t column) const {
    const std::int64_t p = panels.of(column), begin = panels.begin(p);
    return data + begin * depth + i * panels.width(p) + column - begin;
  }
  float* data;
  Panels<float> panels{1};
  std::int64_t depth = 0, plane = 0;
};

}  // namespace capsfw::kernels
