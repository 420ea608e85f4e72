#include "transform_steps.hpp"

#include <algorithm>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "workspace.hpp"

namespace capsfw::kernels {
namespace {

/// body(begin, end) over [0, n), in parallel, or by the thread that has memory of its `own`.
template <class Body>
void loop(const float* own, std::int64_t n, std::int64_t cost, const Body& body) {
  if (own != nullptr) return body(0, n);
  parallel_for(n, cost, body);
}

/// Runs body(i, memory for `size` vectors), which transforms so many tiles, for i in [0, n): in
/// parallel, or in the memory of `own`.
template <class Body>
void with_memory(const Plan& plan,
                 float* own,
                 std::int64_t n,
                 std::int64_t size,
                 std::int64_t tiles,
                 const Body& body) {
  if (own != nullptr) {
    for (std::int64_t i = 0; i < n; ++i) body(i, own);
    return;
  }
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

}  // namespace

void multiply(const Plan& plan,
              const float* own,
              std::int64_t rows,
              const Rows& a,
              bool transposed,
              const Columns& b,
              const Rows& c,
              bool add) {
  constexpr std::int64_t kMostRows = 256;
  const Pieces parts(rows, kMostRows, kTileRows), pieces(b.depth, kDepth);
  const std::int64_t cost = rows * b.plane / 64 / parts.count;
  loop(own, plan.planes * parts.count, cost, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t f = i / parts.count, first = parts.begin(i % parts.count),
                         n = round_up(parts.length(i % parts.count), kTileRows);
      const float* from = a.data + f * a.plane + first * (transposed ? 1 : a.row);
      float* to = c.data + f * c.plane + first * c.row;
      for (std::int64_t p = 0; p < b.panels.count(); ++p) {
        const std::int64_t column = b.panels.begin(p), width = b.panels.width(p);
        const float* panel = b.data + f * b.plane + column * b.depth;
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

template <class Operand>
void put_images(const Plan& p,
                float* own,
                const float* x,
                std::int64_t image,
                std::int64_t n,
                std::int64_t channel,
                std::int64_t channels,
                const Operand& to) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = divide_up(channels, p.lanes), pixels = s.image();
  with_memory(p, own, n * blocks, pixels, p.tiles() * p.phases, [&](std::int64_t i, float* memory) {
    const std::int64_t b = i / blocks, c = i % blocks * p.lanes;
    load(p, channels - c, pixels, x + ((image + b) * s.channels + channel + c) * pixels, pixels,
         memory);
    p.each_image_tile([&](const Window& w, std::int64_t at, std::int64_t t, std::int64_t phase) {
      tile_to_planes(p.grid, Side::image, w, memory + at,
                     to.at(b * p.tiles() + t, p.place(c, phase)), to.plane);
    });
  });
}

template void put_images(const Plan&,
                         float*,
                         const float*,
                         std::int64_t,
                         std::int64_t,
                         std::int64_t,
                         std::int64_t,
                         const Rows&);
template void put_images(const Plan&,
                         float*,
                         const float*,
                         std::int64_t,
                         std::int64_t,
                         std::int64_t,
                         std::int64_t,
                         const Columns&);

void put_outputs(const Plan& p,
                 float* own,
                 const float* gy,
                 std::int64_t image,
                 std::int64_t n,
                 const Rows& to) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = p.filters / p.lanes, size = s.positions();
  with_memory(p, own, n * blocks, size, p.tiles(), [&](std::int64_t i, float* memory) {
    const std::int64_t b = i / blocks, f = i % blocks * p.lanes;
    load(p, s.filters - f, size, gy + ((image + b) * s.filters + f) * size, size, memory);
    p.each_output_tile([&](const Window& w, std::int64_t at, std::int64_t t) {
      tile_to_planes(p.grid, Side::output, w, memory + at, to.at(b * p.tiles() + t, f), to.plane);
    });
  });
}

void put_weights(
    const Plan& p, const float* w, std::int64_t channel, std::int64_t channels, Columns& to) {
  const ConvShape& s = p.s;
  const std::int64_t padded = round_up(channels, p.lanes);
  to.shape(p.depth(channels), p.filters);
  with_memory(p, nullptr, p.filters / p.lanes * padded, s.taps(), p.phases,
              [&](std::int64_t i, float* memory) {
                const std::int64_t f = i / padded * p.lanes, c = i % padded;
                load(p, c < channels ? s.filters - f : 0, s.taps(),
                     w + (f * s.channels + channel + c) * s.taps(), s.channels * s.taps(), memory);
                p.each_weight_phase([&](const Window& window, std::int64_t at, std::int64_t phase) {
                  tile_to_planes(p.grid, Side::weight, window, memory + at,
                                 to.at(p.place(c, phase), f), to.plane);
                });
              });
}

void put_transposed(
    const Plan& p, const float* w, std::int64_t channel, std::int64_t channels, Columns& to) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = divide_up(channels, p.lanes);
  to.shape(s.filters, p.depth(channels));
  with_memory(p, nullptr, s.filters * blocks, s.taps(), p.phases,
              [&](std::int64_t i, float* memory) {
                const std::int64_t f = i / blocks, c = i % blocks * p.lanes;
                load(p, channels - c, s.taps(), w + (f * s.channels + channel + c) * s.taps(),
                     s.taps(), memory);
                p.each_weight_phase([&](const Window& window, std::int64_t at, std::int64_t phase) {
                  tile_to_planes(p.grid, Side::weight, window, memory + at,
                                 to.at(f, p.place(c, phase)), to.plane);
                });
              });
}

void take_outputs(const Plan& p,
                  float* own,
                  const Rows& outputs,
                  const float* bias,
                  std::int64_t image,
                  std::int64_t n,
                  float* y) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = p.filters / p.lanes, size = s.positions();
  with_memory(p, own, n * blocks, size, p.tiles(), [&](std::int64_t i, float* memory) {
    const std::int64_t b = i / blocks, f = i % blocks * p.lanes;
    for (std::int64_t k = 0; k < p.lanes; ++k)
      memory[k] = bias != nullptr && f + k < s.filters ? bias[f + k] : 0.0F;
    for (std::int64_t at = 1; at < size; ++at) std::copy_n(memory, p.lanes, memory + at * p.lanes);
    p.each_output_tile([&](const Window& window, std::int64_t at, std::int64_t t) {
      planes_to_tile(p.grid, Side::output, outputs.at(b * p.tiles() + t, f), outputs.plane, window,
                     memory + at, true);
    });
    if (f < s.filters)
      store(p, s.filters - f, size, memory, y + ((image + b) * s.filters + f) * size, size);
  });
}

void take_images(const Plan& p,
                 float* own,
                 const Rows& images,
                 std::int64_t image,
                 std::int64_t n,
                 std::int64_t channel,
                 std::int64_t channels,
                 float* gx) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = divide_up(channels, p.lanes), size = s.image();
  with_memory(p, own, n * blocks, size, p.tiles() * p.phases, [&](std::int64_t i, float* memory) {
    const std::int64_t b = i / blocks, c = i % blocks * p.lanes;
    std::fill_n(memory, size * p.lanes, 0.0F);
    p.each_image_tile(
        [&](const Window& window, std::int64_t at, std::int64_t t, std::int64_t phase) {
          planes_to_tile(p.grid, Side::image, images.at(b * p.tiles() + t, p.place(c, phase)),
                         images.plane, window, memory + at, true);
        });
    store(p, channels - c, size, memory, gx + ((image + b) * s.channels + channel + c) * size,
          size);
  });
}

void take_weights(
    const Plan& p, const Rows& weights, std::int64_t channel, std::int64_t channels, float* gw) {
  const ConvShape& s = p.s;
  const std::int64_t blocks = divide_up(channels, p.lanes);
  with_memory(p, nullptr, s.filters * blocks, s.taps(), p.phases,
              [&](std::int64_t i, float* memory) {
                const std::int64_t f = i / blocks, c = i % blocks * p.lanes;
                p.each_weight_phase([&](const Window& window, std::int64_t at, std::int64_t phase) {
                  planes_to_tile(p.grid, Side::weight, weights.at(f, p.place(c, phase)),
                                 weights.plane, window, memory + at, false);
                });
                store(p, channels - c, s.taps(), memory,
                      gw + (f * s.channels + channel + c) * s.taps(), s.taps());
              });
}

}  // namespace capsfw::kernels
