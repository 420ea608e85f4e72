#include <array>
#include <vector>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "conv.hpp"
#include "panel.hpp"
#include "planes.hpp"
#include "workspace.hpp"

// Patches, a tile of outputs at a time, are multiplied with panels of the filters, from where they
// lie.

namespace capsfw::kernels {
namespace {

/// The filters of a group as panels: [panel][channel, tap row, tap column][filter of the panel].
template <class T>
void pack(const ConvShape& s, const Panels<T>& panels, std::int64_t panel, const T* w, T* packed) {
  const std::int64_t depth = s.taps() * s.channels, width = panels.width(panel),
                     used = panels.used(panel);
  T* to = packed + panels.begin(panel) * depth;
  if (used < width) std::fill(to, to + width * depth, T(0));
  transpose_in(used, depth, w + panels.begin(panel) * depth, depth, to, width);
}

/// Filters [filter, filter_end) of a group, panels [panel, panel_end).
struct Part {
  std::int64_t group, panel, panel_end, filter, filter_end, columns;
};

template <class T>
struct Task {
  const ConvShape& s;
  const Planes& planes;
  const std::int64_t* taps;
  const Panels<T>& panels;
  const T *x, *packed, *bias;
  T* y;
  T *image, *sums;  // workspace

  void run(const Block& b, const Part& part) const {
    planes.load(b, x, s.groups * s.channels, part.group * s.channels, image);
    const Pieces tiles(b.images() * b.rows() * s.columns.out, kRows, kTileRows);
    for (std::int64_t i = 0; i < tiles.count; ++i) tile(b, part, tiles.begin(i), tiles.length(i));
  }

 private:
  void tile(const Block& b, const Part& part, std::int64_t begin, std::int64_t n) const {
    std::array<std::int64_t, kRows> places;
    std::array<const T*, kRows> patches;
    planes.outputs(b, begin, n, places.data());
    const std::int64_t rows = round_up(n, kTileRows), used = part.filter_end - part.filter,
                       all = s.taps() * s.channels;
    for (std::int64_t r = 0; r < rows; ++r)
      patches[static_cast<std::size_t>(r)] =
          image + places[static_cast<std::size_t>(std::min(r, n - 1))];
    const T* first_bias = bias == nullptr ? nullptr : bias + part.group * s.filters + part.filter;
    for (std::int64_t r = 0; r < rows; ++r) {
      T* row = sums + r * part.columns;
      std::fill(row, row + part.columns, T(0));
      if (bias != nullptr) std::copy_n(first_bias, used, row);
    }
    const Pieces chunks(all, kDepth);
    const T* filters = packed + part.group * panels.padded() * all;
    for (std::int64_t c = 0; c < chunks.count; ++c) {
      const std::int64_t first = chunks.begin(c), depth = chunks.length(c);
      for (std::int64_t p = part.panel; p < part.panel_end; ++p) {
        const T* panel = filters + panels.begin(p) * all + first * panels.width(p);
        multiply_panel_gathered(rows, depth, patches.data(), taps + first, panel, panels.width(p),
                                sums + panels.begin(p) - part.filter, part.columns);
      }
    }
    each_image(s, b, begin, begin + n,
               [&](std::int64_t i, std::int64_t place, std::int64_t row, std::int64_t count) {
                 const std::int64_t plane = (i * s.groups + part.group) * s.filters + part.filter;
                 transpose_out(count, used, sums + row * part.columns, part.columns,
                               y + plane * s.positions() + place, s.positions());
               });
  }
};

}  // namespace

template <class T>
void conv_forward(const ConvShape& s, const T* x, const T* w, const T* bias, T* y) {
  const Panels<T> panels(s.filters);
  const std::int64_t depth = s.taps() * s.channels;
  const Blocks blocks(s, kRows, s.tasks(kTasks), s.channels,
                      kBlockBytes / static_cast<std::int64_t>(sizeof(T)));
  // Few blocks: cut the filters as well.
  const std::int64_t cuts = divide_up(s.tasks(kTasks), blocks.count() * s.groups);
  const Pieces parts(panels.count(), divide_up(panels.count(), cuts));

  const Buffer<T> packed(s.groups * panels.padded() * depth);
  parallel_for(s.groups * panels.count(), depth * kWidest / 2,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t g = i / panels.count();
                   pack(s, panels, i % panels.count(), w + g * s.filters * depth,
                        packed.data() + g * panels.padded() * depth);
                 }
               });

  const Planes planes(s, blocks[0], s.channels);
  std::vector<std::int64_t> taps(static_cast<std::size_t>(depth));
  planes.taps(taps.data());
  const std::int64_t most = round_up(std::min(kRows, blocks.outputs(s)), kTileRows),
                     tasks = blocks.count() * s.groups * parts.count;
  Workspaces<T> workspaces(tasks, planes.size() + most * panels.padded() + 128);
  parallel_for(tasks, s.work() / tasks / 64, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    typename Workspaces<T>::Lease lease(workspaces);
    const Task<T> task{s,
                       planes,
                       taps.data(),
                       panels,
                       x,
                       packed.data(),
                       bias,
                       y,
                       lease.take(planes.size()),
                       lease.take(most * panels.padded())};
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = parts.begin(i % parts.count),
                         last = first + parts.length(i % parts.count), filter = panels.begin(first);
      task.run(blocks[i / parts.count / s.groups],
               {i / parts.count % s.groups, first, last, filter,
                std::min(panels.begin(last), s.filters), panels.begin(last) - filter});
    }
  });
}

template void conv_forward(const ConvShape&, const float*, const float*, const float*, float*);
template void conv_forward(const ConvShape&, const double*, const double*, const double*, double*);

}  // namespace capsfw::kernels
