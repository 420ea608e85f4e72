#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "conv.hpp"
#include "panel.hpp"
#include "patches.hpp"
#include "workspace.hpp"

// Each row of gy, a vector over the filters, is multiplied with all taps at once; the products are
// added to the pixels that the taps read. No tap outside the image's outputs is ever computed,
// whatever the stride. A task owns its pixels, so that the order of the additions is fixed.

namespace capsfw::kernels {
namespace {

/// Cuts the pixels, not the outputs, into blocks. What reaches over the edge of a band is computed
/// twice: bands are several kernels high.
Blocks pixel_blocks(const ConvShape& s, std::int64_t limit) {
  ConvShape pixels = s;
  pixels.rows = {s.rows.size, 1, s.rows.size, 1, 0, 1};
  pixels.columns = {s.columns.size, 1, s.columns.size, 1, 0, 1};
  return {pixels,          kPositions * s.image() / s.positions(),
          s.tasks(kTasks), s.channels,
          limit,           4 * s.rows.extent(1)};
}

/// The outputs that read the pixels of a block.
Block outputs_of(const ConvShape& s, const Block& pixels) {
  const ConvAxis& r = s.rows;
  const std::int64_t reach = (r.kernel - 1) * r.dilation,
                     first = std::max<std::int64_t>(pixels.row + r.padding - reach, 0),
                     begin = divide_up(first, r.stride),
                     end = std::min((pixels.row_end - 1 + r.padding) / r.stride + 1, r.out);
  return {pixels.image, pixels.image_end, begin, std::max(begin, end)};
}

/// One group's slice of the channels.
template <class T>
struct Slice {
  Slice(const ConvShape& s, std::int64_t group_, const Pieces& slices, std::int64_t i)
      : group(group_),
        channel(slices.begin(i)),
        channels(slices.length(i)),
        patches(s, channels),
        panels(patches.depth()) {}
  std::int64_t group, channel, channels;
  Patches patches;
  Panels<T> panels;  // of all taps and channels
};

/// One filter as a row of each panel: [panel][filter][tap, channel of the panel].
template <class T>
void pack(
    const ConvShape& s, const Slice<T>& slice, std::int64_t filter, const T* w, T* row, T* packed) {
  transpose_in(slice.channels, s.taps(),
               w + ((slice.group * s.filters + filter) * s.channels + slice.channel) * s.taps(),
               s.taps(), row, slice.channels);
  for (std::int64_t p = 0; p < slice.panels.count(); ++p) {
    const std::int64_t begin = slice.panels.begin(p), width = slice.panels.width(p),
                       used = slice.panels.used(p);
    T* to = packed + begin * s.filters + filter * width;
    std::copy_n(row + begin, used, to);
    std::fill(to + used, to + width, T(0));
  }
}

template <class T>
struct Task {
  const ConvShape& s;
  const T* gy;
  const T* packed;
  T* gx;
  T *image, *a, *sums;  // workspace
  std::int64_t most;    // rows of `a` per chunk of filters

  void run(const Slice<T>& slice, const Block& pixels) const {
    const Block b = outputs_of(s, pixels);
    const std::int64_t outputs = b.images() * b.rows() * s.columns.out;
    std::fill(image, image + slice.patches.size(b), T(0));
    const Pieces tiles(outputs, kRows, kTileRows);
    for (std::int64_t i = 0; i < tiles.count; ++i) tile(slice, b, tiles.begin(i), tiles.length(i));
    slice.patches.store(b, image, s.groups * s.channels, slice.group * s.channels + slice.channel,
                        pixels.row, pixels.row_end, gx);
  }

 private:
  void tile(const Slice<T>& slice, const Block& b, std::int64_t begin, std::int64_t n) const {
    std::array<std::int64_t, kRows> starts;
    slice.patches.starts(b, begin, n, starts.data());
    const Pieces chunks(s.filters, kDepth);
    const std::int64_t rows = round_up(n, kTileRows), chunk_size = most * kRowStride;
    for (std::int64_t c = 0; c < chunks.count; ++c) {
      T* to = a + c * chunk_size;
      each_image(s, b, begin, begin + n,
                 [&](std::int64_t i, std::int64_t place, std::int64_t row, std::int64_t count) {
                   const std::int64_t plane =
                       (i * s.groups + slice.group) * s.filters + chunks.begin(c);
                   transpose_in(chunks.length(c), count, gy + plane * s.positions() + place,
                                s.positions(), to + row * kRowStride, kRowStride);
                 });
      std::fill(to + n * kRowStride, to + rows * kRowStride, T(0));
    }
    for (std::int64_t p = 0; p < slice.panels.count(); ++p) {
      const std::int64_t first = slice.panels.begin(p), width = slice.panels.width(p);
      std::fill(sums, sums + rows * width, T(0));
      for (std::int64_t c = 0; c < chunks.count; ++c) {
        const T* panel = packed + first * s.filters + chunks.begin(c) * width;
        multiply_panel(rows, chunks.length(c), a + c * chunk_size, kRowStride, panel, width, sums,
                       width);
      }
      std::array<Segment, kWidest> segments;
      const std::int64_t count =
          slice.patches.segments(first, slice.panels.used(p), segments.data());
      scatter_add(sums, width, starts.data(), n, segments.data(), count, image);
    }
  }
};

}  // namespace

template <class T>
void conv_input(const ConvShape& s, const T* gy, const T* w, T* gx) {
  const Blocks blocks = pixel_blocks(s, kBlockBytes / static_cast<std::int64_t>(sizeof(T)));
  // Few blocks: cut the channels as well.
  const std::int64_t cuts = std::clamp<std::int64_t>(
      divide_up(s.tasks(kTasks), blocks.count() * s.groups), 1, divide_up(s.channels, 32));
  const Pieces slices(s.channels, divide_up(s.channels, cuts), cuts == 1 ? 1 : 16);
  const Slice<T> largest(s, 0, slices, 0);
  const std::int64_t packed_size = largest.panels.padded() * s.filters,
                     row = s.taps() * slices.step;
  const Buffer<T> packed(s.groups * slices.count * packed_size);
  {
    const std::int64_t tasks = s.groups * slices.count * s.filters;
    Workspaces<T> rows(tasks, row);
    parallel_for(tasks, row, [&](std::int64_t begin, std::int64_t end) {
      const detail::FlushDenormals flush;
      typename Workspaces<T>::Lease lease(rows);
      T* const memory = lease.take(row);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t part = task / s.filters;
        const Slice<T> slice(s, part / slices.count, slices, part % slices.count);
        pack(s, slice, task % s.filters, w, memory, packed.data() + part * packed_size);
      }
    });
  }

  std::int64_t image = 0, outputs = 0;
  for (std::int64_t i = 0; i < blocks.bands.count; ++i) {  // bands of the first, largest images
    const Block b = outputs_of(s, blocks[i]);
    image = std::max(image, largest.patches.size(b));
    outputs = std::max(outputs, b.images() * b.rows() * s.columns.out);
  }
  const std::int64_t most = round_up(std::min(kRows, outputs), kTileRows),
                     a_size = divide_up(s.filters, kDepth) * most * kRowStride;
  const std::int64_t parts = s.groups * slices.count, tasks = blocks.count() * parts;
  Workspaces<T> workspaces(tasks, image + a_size + most * kWidest + 192);
  parallel_for(tasks, s.work() / tasks / 64, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    typename Workspaces<T>::Lease lease(workspaces);
    Task<T> task{
        s,   gy, nullptr, gx, lease.take(image), lease.take(a_size), lease.take(most * kWidest),
        most};
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t part = i % parts;
      task.packed = packed.data() + part * packed_size;
      task.run(Slice<T>(s, part / slices.count, slices, part % slices.count), blocks[i / parts]);
    }
  });
}

template void conv_input(const ConvShape&, const float*, const float*, float*);
template void conv_input(const ConvShape&, const double*, const double*, double*);

}  // namespace capsfw::kernels
