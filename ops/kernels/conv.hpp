#pragma once
// Private: the three products of a convolution on plain memory. Images are cut into blocks; a block
// is copied once into channels-last order with its padding, where all that one row of taps reads is
// contiguous, and the product runs over rows gathered from there (patches.hpp, panel.hpp). Cuts and
// orders of summation depend on the shape alone.

#include <algorithm>
#include <cstdint>

namespace capsfw::kernels {

/// One axis of a convolution.
struct ConvAxis {
  std::int64_t size, kernel, out, stride, padding, dilation;
  /// Padded positions that `n` neighbouring outputs read.
  std::int64_t extent(std::int64_t n) const {
    return n == 0 ? 0 : (n - 1) * stride + (kernel - 1) * dilation + 1;
  }
};

/// Taps along an axis that share a phase of the stride: the most of them.
inline std::int64_t phase_taps(const ConvAxis& a) { return (a.kernel + a.stride - 1) / a.stride; }

/// Sizes of a convolution; channels and filters of one group.
struct ConvShape {
  std::int64_t batch, groups, channels, filters;
  ConvAxis rows, columns;
  std::int64_t image() const { return rows.size * columns.size; }
  std::int64_t positions() const { return rows.out * columns.out; }
  std::int64_t taps() const { return rows.kernel * columns.kernel; }
  /// Tasks worth starting, at most `most`: each has half a million multiply-adds.
  std::int64_t tasks(std::int64_t most) const {
    return std::clamp<std::int64_t>(work() >> 19, 1, most);
  }
  /// Multiply-adds.
  std::int64_t work() const { return batch * groups * positions() * filters * channels * taps(); }
};

/// y [B, G·filters, Ho, Wo] = conv(x, w) + bias; bias may be null.
template <class T>
void conv_forward(const ConvShape& s, const T* x, const T* w, const T* bias, T* y);

/// gx [B, G·channels, H, W] = the adjoint for x.
template <class T>
void conv_input(const ConvShape& s, const T* gy, const T* w, T* gx);

/// gw [G·filters, channels, kh, kw] = the adjoint for w.
template <class T>
void conv_weight(const ConvShape& s, const T* x, const T* gy, T* gw);

}  // namespace capsfw::kernels
