#include "conv_transform.hpp"

#include <algorithm>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "transform_plan.hpp"
#include "workspace.hpp"

namespace capsfw::kernels {
namespace {

/// body(begin, end) over [0, n), in parallel, or by the thread that has memory of its `own`.
template <class Body>
void loop(const float* own, std::int64_t n, std::int64_t cost, const Body& body) {
  if (own != nullptr) return body(0, n);
  parallel_for(n, cost, body);
}

/// c (+)= a · b, or aᵀ · b, in every plane.
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

/// Images [image, image + n) and channels [channel, channel + channels) of x as an operand.
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

/// Images [image, image + n) of gy as a left operand.
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

/// Weights from channel `channel` on as the right operand of the outputs.
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

/// The same, transposed: of the images.
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

/// Images [image, image + n) of y.
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

/// Images [image, image + n) and channels [channel, channel + channels) of gx.
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

/// body(task, memory of `images` numbers, of `outputs` numbers, and for one image of vectors) for
/// all tasks, a thread each.
template <class Body>
void each_apart(const Plan& p,
                std::int64_t tasks,
                std::int64_t images,
                std::int64_t outputs,
                const Body& body) {
  const std::int64_t scratch = std::max(p.s.image(), p.s.positions()) * p.lanes,
                     products = p.s.batch * p.tiles() * p.planes * p.depth(p.channels) * p.filters;
  using Rooms = Workspaces<float>;
  Rooms rooms(tasks, Rooms::padded(images) + Rooms::padded(outputs) + scratch);
  parallel_for(tasks, products / tasks / 32, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    typename Rooms::Lease room(rooms);
    float *of_images = room.take(images), *of_outputs = room.take(outputs),
          *own = room.take(scratch);
    for (std::int64_t t = begin; t < end; ++t) body(t, of_images, of_outputs, own);
  });
}

/// body(first image, images, Rows of images, Rows of outputs, memory of its own) for all blocks of
/// images.
template <class Body>
void each_own_block(const Plan& p, const Body& body) {
  const std::int64_t most = p.rows(p.own_images), depth = p.depth(p.channels);
  each_apart(p, divide_up(p.s.batch, p.own_images), Rows::size(p.planes, most, depth),
             Rows::size(p.planes, most, p.filters),
             [&](std::int64_t b, float* images, float* outputs, float* own) {
               const std::int64_t image = b * p.own_images;
               body(image, std::min(p.own_images, p.s.batch - image), Rows(most, depth, images),
                    Rows(most, p.filters, outputs), own);
             });
}

/// What all threads share: a block of images, its outputs, and weights.
struct Shared {
  Shared(const Plan& p, std::int64_t weight_size)
      : of_images(Rows::size(p.planes, p.rows(p.images), p.depth(p.channels))),
        of_outputs(Rows::size(p.planes, p.rows(p.images), p.filters)),
        of_weights(weight_size),
        images(p.rows(p.images), p.depth(p.channels), of_images.data()),
        outputs(p.rows(p.images), p.filters, of_outputs.data()),
        weights(of_weights.data()) {}
  Buffer<float> of_images, of_outputs, of_weights;
  Rows images, outputs;
  Columns weights;
};

/// Channels [channel, channel + channels) of gw.
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

}  // namespace

void transform_forward(const ConvShape& s,
                       const TileSize& tile,
                       const float* x,
                       const float* w,
                       const float* bias,
                       float* y) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels);
  const auto weight_size = Columns::size(p.planes, most_depth, p.filters);
  if (p.apart) {
    const Buffer<float> of_weights(weight_size);
    Columns weights(of_weights.data());
    put_weights(p, w, 0, s.channels, weights);
    return each_own_block(p, [&](std::int64_t image, std::int64_t n, const Rows& images,
                                 const Rows& outputs, float* own) {
      put_images(p, own, x, image, n, 0, s.channels, images);
      multiply(p, own, n * p.tiles(), images, false, weights, outputs, false);
      take_outputs(p, own, outputs, bias, image, n, y);
    });
  }
  Shared all(p, weight_size);
  for (std::int64_t image = 0; image < s.batch; image += p.images) {
    const std::int64_t n = std::min(p.images, s.batch - image);
    for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
      const std::int64_t channels = std::min(p.channels, s.channels - channel);
      put_images(p, nullptr, x, image, n, channel, channels, all.images);
      if (image == 0 || p.channels < s.channels) put_weights(p, w, channel, channels, all.weights);
      multiply(p, nullptr, n * p.tiles(), all.images, false, all.weights, all.outputs, channel > 0);
    }
    take_outputs(p, nullptr, all.outputs, bias, image, n, y);
  }
}

void transform_input(
    const ConvShape& s, const TileSize& tile, const float* gy, const float* w, float* gx) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels);
  const auto weight_size = Columns::size(p.planes, s.filters, most_depth);
  if (p.apart) {
    const Buffer<float> of_weights(weight_size);
    Columns weights(of_weights.data());
    put_transposed(p, w, 0, s.channels, weights);
    return each_own_block(p, [&](std::int64_t image, std::int64_t n, const Rows& images,
                                 const Rows& outputs, float* own) {
      put_outputs(p, own, gy, image, n, outputs);
      multiply(p, own, n * p.tiles(), outputs, false, weights, images, false);
      take_images(p, own, images, image, n, 0, s.channels, gx);
    });
  }
  Shared all(p, weight_size);
  for (std::int64_t image = 0; image < s.batch; image += p.images) {
    const std::int64_t n = std::min(p.images, s.batch - image);
    put_outputs(p, nullptr, gy, image, n, all.outputs);
    for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
      const std::int64_t channels = std::min(p.channels, s.channels - channel);
      if (image == 0 || p.channels < s.channels)
        put_transposed(p, w, channel, channels, all.weights);
      multiply(p, nullptr, n * p.tiles(), all.outputs, false, all.weights, all.images, false);
      take_images(p, nullptr, all.images, image, n, channel, channels, gx);
    }
  }
}

void transform_weight(
    const ConvShape& s, const TileSize& tile, const float* x, const float* gy, float* gw) {
  const Plan p(s, tile);
  const std::int64_t most_depth = p.depth(p.channels),
                     size = Rows::size(p.planes, p.filters, most_depth);
  if (const std::int64_t groups = p.weight_groups(); groups > 0) {
    const Buffer<float> of_weights(groups * size);
    const std::int64_t most = p.rows(p.own_images);
    each_apart(p, groups, Columns::size(p.planes, most, most_depth),
               Rows::size(p.planes, most, p.filters),
               [&](std::int64_t g, float* of_images, float* of_outputs, float* own) {
                 const Rows outputs(most, p.filters, of_outputs),
                     weights(p.filters, most_depth, of_weights.data() + g * size);
                 Columns images(of_images);
                 const std::int64_t first = g * s.batch / groups, end = (g + 1) * s.batch / groups;
                 for (std::int64_t image = first; image < end; image += p.own_images) {
                   const std::int64_t n = std::min(p.own_images, end - image);
                   put_outputs(p, own, gy, image, n, outputs);
                   images.shape(n * p.tiles(), most_depth);
                   put_images(p, own, x, image, n, 0, s.channels, images);
                   multiply(p, own, s.filters, outputs, true, images, weights, image > first);
                 }
               });
    float* sum = of_weights.data();
    parallel_for(size, groups, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t g = 1; g < groups; ++g)
        for (std::int64_t e = begin; e < end; ++e) sum[e] += sum[g * size + e];
    });
    return take_weights(p, Rows(p.filters, most_depth, sum), 0, s.channels, gw);
  }
  const std::int64_t most = p.rows(p.images);
  const Buffer<float> of_outputs(Rows::size(p.planes, most, p.filters)), of_weights(size),
      of_images(Columns::size(p.planes, most, most_depth));
  const Rows outputs(most, p.filters, of_outputs.data()),
      weights(p.filters, most_depth, of_weights.data());
  Columns images(of_images.data());
  for (std::int64_t channel = 0; channel < s.channels; channel += p.channels) {
    const std::int64_t channels = std::min(p.channels, s.channels - channel);
    for (std::int64_t image = 0; image < s.batch; image += p.images) {
      const std::int64_t n = std::min(p.images, s.batch - image);
      if (channel == 0 || p.images < s.batch) put_outputs(p, nullptr, gy, image, n, outputs);
      images.shape(n * p.tiles(), p.depth(channels));
      put_images(p, nullptr, x, image, n, channel, channels, images);
      multiply(p, nullptr, s.filters, outputs, true, images, weights, image > 0);
    }
    take_weights(p, weights, channel, channels, gw);
  }
}

}  // namespace capsfw::kernels
