#pragma once
// Private: what the outputs of a block read, as planes of pixels, padding included. An element is
// named by two places that add up, that of an output and that of a tap: so patches are the operand
// of a product as they lie (multiply_panel_gathered in panel.hpp). Where rows of several channels
// are read in turn, no processor guesses what comes next: a copy, made from end to end, has them
// near.

#include <algorithm>
#include <cstdint>

#include "patches.hpp"

namespace capsfw::kernels {

class Planes {
 public:
  /// Of `channels` channels; no block is larger than `largest`.
  Planes(const ConvShape& s, const Block& largest, std::int64_t channels)
      : s_(s),
        channels_(channels),
        row_(s.columns.extent(s.columns.out)),
        plane_(s.rows.extent(largest.rows()) * row_),
        image_(plane_ * channels),
        size_(image_ * largest.images()) {}

  /// Elements of a block.
  std::int64_t size() const { return size_; }

  /// Fills `memory` from channels [channel, channel + channels) of x [B, all, H, W].
  template <class T>
  void load(const Block& b, const T* x, std::int64_t all, std::int64_t channel, T* memory) const {
    const std::int64_t width = s_.columns.size, left = s_.columns.padding,
                       used = std::clamp<std::int64_t>(row_ - left, 0, width),
                       rows = s_.rows.extent(b.rows()),
                       above = b.row * s_.rows.stride - s_.rows.padding;
    const bool whole =
        left == 0 && used == row_ && used == width && above >= 0 && above + rows <= s_.rows.size;
    for (std::int64_t i = 0; i < b.images(); ++i)
      for (std::int64_t c = 0; c < channels_; ++c) {
        const T* from = x + ((b.image + i) * all + channel + c) * s_.image() + above * width;
        T* to = memory + i * image_ + c * plane_;
        if (whole) {
          std::copy_n(from, rows * row_, to);
          continue;
        }
        for (std::int64_t r = 0; r < rows; ++r, from += width, to += row_) {
          const bool there = above + r >= 0 && above + r < s_.rows.size;
          const std::int64_t n = there ? used : 0, begin = std::min(left, row_);
          std::fill_n(to, begin, T(0));
          std::copy_n(from, n, to + begin);
          std::fill_n(to + begin + n, row_ - begin - n, T(0));
        }
      }
  }

  /// Places of the outputs [begin, begin + n) of a block.
  void outputs(const Block& b, std::int64_t begin, std::int64_t n, std::int64_t* out) const {
    const std::int64_t columns = s_.columns.out, per = b.rows() * columns;
    std::int64_t image = begin / per, i = begin % per / columns, j = begin % columns;
    for (std::int64_t t = 0; t < n; ++t) {
      out[t] = image * image_ + i * s_.rows.stride * row_ + j * s_.columns.stride;
      if (++j < columns) continue;
      j = 0;
      if (++i < b.rows()) continue;
      i = 0;
      ++image;
    }
  }

  /// Places of all taps, in the order (channel, tap row, tap column).
  void taps(std::int64_t* out) const {
    for (std::int64_t c = 0; c < channels_; ++c)
      for (std::int64_t p = 0; p < s_.rows.kernel; ++p)
        for (std::int64_t q = 0; q < s_.columns.kernel; ++q)
          *out++ = c * plane_ + p * s_.rows.dilation * row_ + q * s_.columns.dilation;
  }

 private:
  const ConvShape& s_;
  std::int64_t channels_, row_, plane_, image_, size_;
};

}  // namespace capsfw::kernels
