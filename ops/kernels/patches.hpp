#pragma once
// Private: blocks of a batch of images, and the patches that their outputs have read, as rows of a
// matrix.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "conv.hpp"
#include "panel.hpp"

namespace capsfw::kernels {

/// Most outputs of a tile, whose patches and sums stay in the second-level cache.
inline constexpr std::int64_t kRows = 200;
/// Outputs of a block of small images.
inline constexpr std::int64_t kPositions = 160;
/// Bytes of a block in channels-last order.
inline constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20;
/// Blocks wanted, for as many threads.
inline constexpr std::int64_t kTasks = 8;

/// Output rows [row, row_end) of images [image, image_end).
struct Block {
  std::int64_t image, image_end, row, row_end;
  std::int64_t images() const { return image_end - image; }
  std::int64_t rows() const { return row_end - row; }
};

/// All output rows of a batch, cut into blocks: either several whole images or a band of one.
struct Blocks {
  /// About `positions` outputs each where images are small; at least `wanted` blocks where there
  /// is work for so many; at most `limit` elements of channels-last memory with `channels`; bands
  /// of at least `least` rows where that allows it.
  Blocks(const ConvShape& s,
         std::int64_t positions,
         std::int64_t wanted,
         std::int64_t channels,
         std::int64_t limit,
         std::int64_t least = 1);
  std::int64_t count() const { return images.count * bands.count; }
  /// Outputs of the largest block, the first.
  std::int64_t outputs(const ConvShape& s) const {
    return images.step * bands.step * s.columns.out;
  }
  Block operator[](std::int64_t i) const {
    const std::int64_t a = i / bands.count, b = i % bands.count;
    return {images.begin(a), images.begin(a) + images.length(a), bands.begin(b),
            bands.begin(b) + bands.length(b)};
  }
  Pieces images, bands;
};

/// Calls f(image, place of the first in the image's outputs, number in [begin, end), count) for the
/// outputs [begin, end) of a block, counted through its images.
template <class F>
void each_image(
    const ConvShape& s, const Block& b, std::int64_t begin, std::int64_t end, const F& f) {
  const std::int64_t per = b.rows() * s.columns.out;
  for (std::int64_t t = begin; t < end;) {
    const std::int64_t n = std::min(per - t % per, end - t);
    f(b.image + t / per, b.row * s.columns.out + t % per, t - begin, n);
    t += n;
  }
}

/// A piece of a patch row: `length` elements.
struct Segment {
  std::int64_t from, to, length;
};

/// What the outputs of a block read, padding included, in channels-last order. A patch row holds
/// all taps of one output in the order (tap row, tap column, channel); it lies in memory as runs.
class Patches {
 public:
  /// `channels`: of the slice in use.
  Patches(const ConvShape& s, std::int64_t channels)
      : s_(s),
        channels_(channels),
        row_(s.columns.extent(s.columns.out) * channels),
        merged_(s.columns.dilation == 1),
        run_(merged_ ? s.columns.kernel * channels : channels) {}

  /// Elements of a patch row.
  std::int64_t depth() const { return s_.taps() * channels_; }
  /// Elements of one image, and of the block.
  std::int64_t plane(const Block& b) const { return s_.rows.extent(b.rows()) * row_; }
  std::int64_t size(const Block& b) const { return b.images() * plane(b); }

  /// The runs that hold elements [begin, begin + n) of a patch row, which go to [0, n).
  std::int64_t segments(std::int64_t begin, std::int64_t n, Segment* out) const;
  /// Where the patches of outputs [begin, begin + n) of the block start.
  void starts(const Block& b, std::int64_t begin, std::int64_t n, std::int64_t* out) const;

  /// Writes image rows [first, last) of the block's images back to gx [B, all, H, W].
  template <class T>
  void store(const Block& b,
             const T* memory,
             std::int64_t all,
             std::int64_t channel,
             std::int64_t first,
             std::int64_t last,
             T* gx) const;

 private:
  std::int64_t run_offset(std::int64_t i) const {
    if (merged_) return i * s_.rows.dilation * row_;
    const std::int64_t p = i / s_.columns.kernel, q = i % s_.columns.kernel;
    return p * s_.rows.dilation * row_ + q * s_.columns.dilation * channels_;
  }
  ConvShape s_;
  std::int64_t channels_, row_;
  bool merged_;  // neighbouring taps of a row are neighbours in memory: one run
  std::int64_t run_;
};

/// Adds row i of `from` to the segments of the patch that begins at memory + starts[i], in order.
template <class T>
void scatter_add(const T* from,
                 std::int64_t from_row,
                 const std::int64_t* starts,
                 std::int64_t n,
                 const Segment* segments,
                 std::int64_t count,
                 T* memory);

}  // namespace capsfw::kernels
