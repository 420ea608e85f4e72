#include "conv_transform.hpp"

#include <algorithm>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "panel.hpp"
#include "tiles.hpp"
#include "workspace.hpp"

namespace capsfw::kernels {
namespace {

// Of the weights at points, of images and outputs together where the weights are few, and what
// these may be where the weights are many, in tenths: blocks that stay in the caches, but do not
// read the weights too often.
constexpr std::int64_t kWeightBytes = std::int64_t{22} << 20, kRowBytes = std::int64_t{3} << 20,
                       kRowsPerWeights = 16;

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
    constexpr auto kFloat = static_cast<std::int64_t>(sizeof(float));
    channels = round_up(s.channels, lanes);
    while (filters * depth(channels) * planes > kWeightBytes / kFloat && channels > lanes)
      channels = round_up(divide_up(channels, 2), lanes);
    const std::int64_t most =
        std::max(filters * depth(channels) * kRowsPerWeights / 10, kRowBytes / kFloat / planes);
    images = s.batch;
    while (images > 1 && rows(images) * (depth(channels) + filters) > most)
      images = divide_up(images, 2);
  }

  std::int64_t tiles() const { return tiles_down * tiles_across; }
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

  ConvShape s;
  Grid grid;
  std::int64_t planes, lanes, tiles_down, tiles_across, phases_across, phases;
  std::int64_t filters;   ///< with those that fill up vectors
  std::int64_t channels;  ///< of a chunk
  std::int64_t images;    ///< of a block
};

/// Floats between planes: what belongs to one tile lies in different sets of the caches.
constexpr std::int64_t kPlaneGap = 48;

/// A left operand or a result, [plane][row][column], with gaps between the rows as well.
struct Rows {
  Rows(std::int64_t planes, std::int64_t rows, std::int64_t columns)
      : row(columns + kSlack), plane(rows * row + kPlaneGap), memory(planes * plane) {}
  float* at(std::int64_t i, std::int64_t column) const { return memory.data() + i * row + column; }
  std::int64_t row, plane;
  Buffer<float> memory;
};

/// A right operand, [plane][panel][row][column of the panel].
struct Columns {
  Columns(std::int64_t planes, std::int64_t most_rows, std::int64_t columns)
      : memory(planes * (most_rows * Panels<float>(columns).padded() + kPlaneGap)) {}
  /// Before it is filled: its sizes now.
  void shape(std::int64_t rows, std::int64_t columns) {
    depth = rows;
    panels = Panels<float>(columns);
    plane = depth * panels.padded() + kPlaneGap;
  }
  float* at(std::int64_t i, std::int64_t column) const {
    const std::int64_t p = panels.of(column), begin = panels.begin(p);
    return memory.data() + begin * depth + i * panels.width(p) + column - begin;
  }
  Buffer<float> memory;
  Panels<float> panels{1};
  std::int64_t depth = 0, plane = 0;
};

/// c (+)= a · b, or aᵀ · b, in every plane.
void multiply(const Plan& plan,
              std::int64_t rows,
              const Rows& a,
              bool transposed,
              const Columns& b,
              const Rows& c,
              bool add) {
  constexpr std::int64_t kMostRows = 256;
  const Pieces parts(rows, kMostRows, kTileRows), pieces(b.depth, kDepth);
  const std::int64_t cost = rows * b.plane / 64 / parts.count;
  parallel_for(plan.planes * parts.count, cost, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t f = i / parts.count, first = parts.begin(i % parts.count),
                         n = round_up(parts.length(i % parts.count), kTileRows);
      const float* from = a.memory.data() + f * a.plane + first * (transposed ? 1 : a.row);
      float* to = c.memory.data() + f * c.plane + first * c.row;
      for (std::int64_t p = 0; p < b.panels.count(); ++p) {
        const std::int64_t column = b.panels.begin(p), width = b.panels.width(p);
        const float* panel = b.memory.data() + f * b.plane + column * b.depth;
        for (std::int64_t d = 0; d < pieces.count; ++d) {
          const std::int64_t k = pieces.begin(d), depth = pieces.length(d);
          const float* w = panel + k * width;
          if (transposed)
            multiply_panel_transposed(n, depth, from + k * a.row, a.row, w, width, to + column,
                                      c.row, add || d > 0);
          else
            multiply_panel(n, depth, from + k, a.row, w, width, to + column, c.row, add || d > 0);
        }
      }
    }
  });
}

/// Runs body(i, memory for `size` vectors), which transforms so many tiles, for i in [0, n).
template <class Body>
void with_memory(
    const Plan& plan, std::int64_t n, std::int64_t size, std::int64_t tiles, const Body& body) {
  Workspaces<float> workspaces(n, size * plan.lanes);
  parallel_for(n, 4 * size + 6 * tiles * plan.planes, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    typename Workspaces<float>::Lease lease(workspaces);
    float* memory = lease.take(size * plan.lanes);
    for (std::int64_t i = begin; i < end; ++i) body(i, memory);
  });
}

/// `count` planes of `size` elements, at most lanes, as vectors; the missing ones are zeros.
void load(const Plan& plan,
          std::int64_t count,
          std::int64_t size,
          const float* from,
          std::int64_t from_row,
          float* to) {
  if (count < plan.lanes) std::fill_n(to, size * plan.lanes, 0.0F);
  if (count > 0) transpose_in(std::min(count, plan.lanes), size, from, from_row, to, plan.lanes);
}

void store(const Plan& plan,
           std::int64_t count,
           std::int64_t size,
           const float* from,
           float* to,
           std::int64_t to_row) {
  transpose_out(size, std::min(count, plan.lanes), from, plan.lanes, to, to_row);
}

/// Images [image, image + n) and channels [channel, channel + channels) of x as an operand.
template <class Operand>
void put_images(const Plan& p,
                const float* x,
                std::int64_t image,
                std::int64_t n,
                std::int64_t channel,
                std::int64_t channels,
                const Operand& to) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = divide_up(channels, p.lanes), pixels = s.image();
  with_memory(p, n * blocks, pixels, p.tiles() * p.phases, [&](std::int64_t i, float* memory) {
    const std::int64_t b = i / blocks, c = i % blocks * p.lanes;
    load(p, channels - c, pixels, x + ((image + b) * s.channels + channel + c) * pixels, pixels,
         memory);
    p.each_image_tile([&](const Window& w, std::int64_t at, std::int64_t t, std::int64_t phase) {
      tile_to_planes(p.grid, Side::image, w, memory + at,
                     to.at(b * p.tiles() + t, p.place(c, phase)), to.plane);
    });
  });
}

/// Images [image, image + n) of gy as a left operand.
void put_outputs(
    const Plan& p, const float* gy, std::int64_t image, std::int64_t n, const Rows& to) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = p.filters / p.lanes, size = s.positions();
  with_memory(p, n * blocks, size, p.tiles(), [&](std::int64_t i, float* memory) {
    const std::int64_t b = i / blocks, f = i % blocks * p.lanes;
    load(p, s.filters - f, size, gy + ((image + b) * s.filters + f) * size, size, memory);
    p.each_output_tile([&](const Window& w, std::int64_t at, std::int64_t t) {
      tile_to_planes(p.grid, Side::output, w, memory + at, to.at(b * p.tiles() + t, f), to.plane);
    });
  });
}

}  // namespace

void transform_forward(const ConvShape& s,
                       const TileSize& tile,
                       const float* x,
                       const float* w,
                       const float* bias,
                       float* y) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels), blocks = p.filters / p.lanes;
  const Rows images(p.planes, p.rows(p.images), most_depth),
      outputs(p.planes, p.rows(p.images), p.filters);
  Columns weights(p.planes, most_depth, p.filters);
  for (std::int64_t image = 0; image < s.batch; image += p.images) {
    const std::int64_t n = std::min(p.images, s.batch - image), rows = n * p.tiles();
    for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
      const std::int64_t channels = std::min(p.channels, s.channels - channel),
                         padded = round_up(channels, p.lanes);
      put_images(p, x, image, n, channel, channels, images);
      if (image == 0 || p.channels < s.channels) {
        weights.shape(p.depth(channels), p.filters);
        with_memory(p, blocks * padded, s.taps(), p.phases, [&](std::int64_t i, float* memory) {
          const std::int64_t f = i / padded * p.lanes, c = i % padded;
          load(p, c < channels ? s.filters - f : 0, s.taps(),
               w + (f * s.channels + channel + c) * s.taps(), s.channels * s.taps(), memory);
          p.each_weight_phase([&](const Window& window, std::int64_t at, std::int64_t phase) {
            tile_to_planes(p.grid, Side::weight, window, memory + at,
                           weights.at(p.place(c, phase), f), weights.plane);
          });
        });
      }
      multiply(p, rows, images, false, weights, outputs, channel > 0);
    }
    with_memory(p, n * blocks, s.positions(), p.tiles(), [&](std::int64_t i, float* memory) {
      const std::int64_t b = i / blocks, f = i % blocks * p.lanes;
      for (std::int64_t k = 0; k < p.lanes; ++k)
        memory[k] = bias != nullptr && f + k < s.filters ? bias[f + k] : 0.0F;
      for (std::int64_t at = 1; at < s.positions(); ++at)
        std::copy_n(memory, p.lanes, memory + at * p.lanes);
      p.each_output_tile([&](const Window& window, std::int64_t at, std::int64_t t) {
        planes_to_tile(p.grid, Side::output, outputs.at(b * p.tiles() + t, f), outputs.plane,
                       window, memory + at, true);
      });
      if (f < s.filters)
        store(p, s.filters - f, s.positions(), memory,
              y + ((image + b) * s.filters + f) * s.positions(), s.positions());
    });
  }
}

void transform_input(
    const ConvShape& s, const TileSize& tile, const float* gy, const float* w, float* gx) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels);
  const Rows outputs(p.planes, p.rows(p.images), p.filters),
      images(p.planes, p.rows(p.images), most_depth);
  Columns weights(p.planes, s.filters, most_depth);
  for (std::int64_t image = 0; image < s.batch; image += p.images) {
    const std::int64_t n = std::min(p.images, s.batch - image), rows = n * p.tiles();
    put_outputs(p, gy, image, n, outputs);
    for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
      const std::int64_t channels = std::min(p.channels, s.channels - channel),
                         blocks = divide_up(channels, p.lanes);
      if (image == 0 || p.channels < s.channels) {
        weights.shape(s.filters, p.depth(channels));
        with_memory(p, s.filters * blocks, s.taps(), p.phases, [&](std::int64_t i, float* memory) {
          const std::int64_t f = i / blocks, c = i % blocks * p.lanes;
          load(p, channels - c, s.taps(), w + (f * s.channels + channel + c) * s.taps(), s.taps(),
               memory);
          p.each_weight_phase([&](const Window& window, std::int64_t at, std::int64_t phase) {
            tile_to_planes(p.grid, Side::weight, window, memory + at,
                           weights.at(f, p.place(c, phase)), weights.plane);
          });
        });
      }
      multiply(p, rows, outputs, false, weights, images, false);
      with_memory(
          p, n * blocks, s.image(), p.tiles() * p.phases, [&](std::int64_t i, float* memory) {
            const std::int64_t b = i / blocks, c = i % blocks * p.lanes;
            std::fill_n(memory, s.image() * p.lanes, 0.0F);
            p.each_image_tile([&](const Window& window, std::int64_t at, std::int64_t t,
                                  std::int64_t phase) {
              planes_to_tile(p.grid, Side::image, images.at(b * p.tiles() + t, p.place(c, phase)),
                             images.plane, window, memory + at, true);
            });
            store(p, channels - c, s.image(), memory,
                  gx + ((image + b) * s.channels + channel + c) * s.image(), s.image());
          });
    }
  }
}

void transform_weight(
    const ConvShape& s, const TileSize& tile, const float* x, const float* gy, float* gw) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels);
  const Rows outputs(p.planes, p.rows(p.images), p.filters),
      weights(p.planes, p.filters, most_depth);
  Columns images(p.planes, p.rows(p.images), most_depth);
  for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
    const std::int64_t channels = std::min(p.channels, s.channels - channel),
                       blocks = divide_up(channels, p.lanes);
    for (std::int64_t image = 0; image < s.batch; image += p.images) {
      const std::int64_t n = std::min(p.images, s.batch - image);
      if (channel == 0 || p.images < s.batch) put_outputs(p, gy, image, n, outputs);
      images.shape(n * p.tiles(), p.depth(channels));
      put_images(p, x, image, n, channel, channels, images);
      multiply(p, s.filters, outputs, true, images, weights, image > 0);
    }
    with_memory(p, s.filters * blocks, s.taps(), p.phases, [&](std::int64_t i, float* memory) {
      const std::int64_t f = i / blocks, c = i % blocks * p.lanes;
      p.each_weight_phase([&](const Window& window, std::int64_t at, std::int64_t phase) {
        planes_to_tile(p.grid, Side::weight, weights.at(f, p.place(c, phase)), weights.plane,
                       window, memory + at, false);
      });
      store(p, channels - c, s.taps(), memory, gw + (f * s.channels + channel + c) * s.taps(),
            s.taps());
    });
  }
}

}  // namespace capsfw::kernels
