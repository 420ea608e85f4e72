#include <array>
#include <vector>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "conv.hpp"
#include "panel.hpp"
#include "planes.hpp"
#include "workspace.hpp"

// gwᵀ = patchesᵀ · gy. A task owns the gradients of some filters and channels and sums over its
// images in order. Where the weight is too small to give work to all threads, the images are cut
// into a number of parts that depends on the shape alone, and the partial sums are added in order.

namespace capsfw::kernels {
namespace {

constexpr std::int64_t kFilters = 256;                          // most filters of a task
constexpr std::int64_t kSumBytes = std::int64_t{3} << 19;       // of a task's sums: they stay in L2
constexpr std::int64_t kImageBytes = std::int64_t{1} << 20;     // of its images, which do, too
constexpr std::int64_t kPartialBytes = std::int64_t{16} << 20;  // of all partial sums
constexpr std::int64_t kOwners = 16;                            // tasks wanted

template <class T>
struct Task {
  const ConvShape& s;
  const Blocks& blocks;
  const T *x, *gy;
  T *image, *packed, *sums;  // workspace

  /// gw of filters [filter, filter + filters) and channels [channel, channel + channels) of a
  /// group from blocks [begin, end).
  void run(std::int64_t begin,
           std::int64_t end,
           std::int64_t group,
           std::int64_t filter,
           std::int64_t filters,
           std::int64_t channel,
           std::int64_t channels,
           T* gw) const {
    const Planes planes(s, blocks[0], channels);
    const Panels<T> panels(filters);
    const std::int64_t depth = s.taps() * channels, rows = round_up(depth, kTileRows);
    std::vector<std::int64_t> taps(static_cast<std::size_t>(rows));
    planes.taps(taps.data());
    std::vector<const T*> patches;
    for (std::int64_t r = 0; r < rows; ++r)
      patches.push_back(image + taps[static_cast<std::size_t>(std::min(r, depth - 1))]);
    std::fill(sums, sums + rows * panels.padded(), T(0));
    for (std::int64_t i = begin; i < end; ++i) {
      const Block b = blocks[i];
      planes.load(b, x, s.groups * s.channels, group * s.channels + channel, image);
      const Pieces chunks(b.images() * b.rows() * s.columns.out, kDepth);
      for (std::int64_t c = 0; c < chunks.count; ++c)
        add(planes, panels, b, chunks.begin(c), chunks.length(c), group * s.filters + filter,
            patches);
    }
    transpose_out(depth, filters, sums, panels.padded(),
                  gw + ((group * s.filters + filter) * s.channels + channel) * s.taps(),
                  s.channels * s.taps());
  }

 private:
  /// Adds the products of outputs [begin, begin + n) of a block.
  void add(const Planes& planes,
           const Panels<T>& panels,
           const Block& b,
           std::int64_t begin,
           std::int64_t n,
           std::int64_t filter,
           const std::vector<const T*>& patches) const {
    std::array<std::int64_t, kDepth> outputs;
    planes.outputs(b, begin, n, outputs.data());
    for (std::int64_t p = 0; p < panels.count(); ++p) {
      const std::int64_t first = panels.begin(p), width = panels.width(p), used = panels.used(p);
      if (used < width) std::fill(packed, packed + n * width, T(0));
      each_image(s, b, begin, begin + n,
                 [&](std::int64_t i, std::int64_t place, std::int64_t at, std::int64_t count) {
                   const std::int64_t plane = i * s.groups * s.filters + filter + first;
                   transpose_in(used, count, gy + plane * s.positions() + place, s.positions(),
                                packed + at * width, width);
                 });
      multiply_panel_gathered(static_cast<std::int64_t>(patches.size()), n, patches.data(),
                              outputs.data(), packed, width, sums + first, panels.padded());
    }
  }
};

}  // namespace

template <class T>
void conv_weight(const ConvShape& s, const T* x, const T* gy, T* gw) {
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(T));
  const Pieces filters(s.filters, kFilters, kTileRows);
  const std::int64_t fit = kSumBytes / (kSize * filters.step * s.taps()) / 16 * 16;
  const Pieces channels(s.channels, std::max<std::int64_t>(fit, 16), s.channels > 16 ? 16 : 1);
  const std::int64_t owners = s.groups * filters.count * channels.count,
                     size = s.groups * s.filters * s.channels * s.taps();
  // Few owners: cut the batch as well, into parts that fill two calls of the product.
  const std::int64_t wanted = std::max<std::int64_t>(s.tasks(kOwners) / owners, 1),
                     most = std::min(kPartialBytes / kSize / size,
                                     divide_up(s.batch * s.positions(), 2 * kDepth));
  const Blocks blocks(s, kDepth, wanted, channels.step, kImageBytes / kSize);
  const std::int64_t cuts = std::clamp<std::int64_t>(std::min(wanted, most), 1, blocks.count());
  const Pieces parts(blocks.count(), divide_up(blocks.count(), cuts));

  const Planes planes(s, blocks[0], channels.step);
  const std::int64_t size_of_sums = round_up(channels.step * s.taps(), kTileRows) *
                                    Panels<T>(filters.step).padded(),
                     tasks = owners * parts.count;
  Workspaces<T> workspaces(tasks, planes.size() + size_of_sums + kDepth * kWidest + 192);
  const Buffer<T> partial(parts.count > 1 ? parts.count * size : 1);
  parallel_for(tasks, s.work() / tasks / 64, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    typename Workspaces<T>::Lease lease(workspaces);
    const Task<T> task{s,
                       blocks,
                       x,
                       gy,
                       lease.take(planes.size()),
                       lease.take(kDepth * kWidest),
                       lease.take(size_of_sums)};
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t c = i % channels.count, f = i / channels.count % filters.count,
                         part = i / owners;
      task.run(parts.begin(part), parts.begin(part) + parts.length(part),
               i % owners / channels.count / filters.count, filters.begin(f), filters.length(f),
               channels.begin(c), channels.length(c),
               parts.count > 1 ? partial.data() + part * size : gw);
    }
  });
  if (parts.count == 1) return;
  parallel_for(size, parts.count, [&](std::int64_t begin, std::int64_t end) {
    const T* from = partial.data();
    const std::int64_t count = parts.count;
    detail::simd([=] {
      for (std::int64_t i = begin; i < end; ++i) gw[i] = from[i];
      for (std::int64_t p = 1; p < count; ++p)
        for (std::int64_t i = begin; i < end; ++i) gw[i] += from[p * size + i];
    });
  });
}

template void conv_weight(const ConvShape&, const float*, const float*, float*);
template void conv_weight(const ConvShape&, const double*, const double*, double*);

}  // namespace capsfw::kernels
