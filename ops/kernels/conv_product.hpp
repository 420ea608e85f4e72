#pragma once
// Private: convolutions that are matrix products, of channels and pixels or of images and filters.

#include <cstdint>

#include <capsfw/core/parallel.hpp>

#include "../../core/blas.hpp"
#include "../../core/denormals.hpp"
#include "../../core/simd.hpp"
#include "conv.hpp"

namespace capsfw::kernels {

/// A convolution that is a matrix product per image, channels by pixels, and large enough for it.
inline bool pointwise(const ConvShape& s) {
  constexpr std::int64_t kPixels = 64;
  const auto plain = [](const ConvAxis& a) {
    return a.kernel == 1 && a.stride == 1 && a.padding == 0;
  };
  return plain(s.rows) && plain(s.columns) && s.image() >= kPixels;
}

/// y[b, g] += w[g] x[b, g] (or wᵀ) with w [rows, inner].
template <class T>
void multiply_pixels(const ConvShape& s, bool transposed, const T* w, const T* x, T* y) {
  const std::int64_t pixels = s.image(), in = transposed ? s.filters : s.channels,
                     out = transposed ? s.channels : s.filters;
  detail::batched_gemm<T>(
      {s.batch, s.groups}, out, pixels, in, w,
      {{0, s.filters * s.channels}, transposed ? 1 : s.channels, transposed ? s.channels : 1}, x,
      {{s.groups * in * pixels, in * pixels}, pixels, 1}, y,
      {{s.groups * out * pixels, out * pixels}, pixels, 1}, T(1));
}

/// A kernel that covers the image, with one output for each filter: a matrix product per group.
inline bool covers_image(const ConvShape& s) {
  const auto covers = [](const ConvAxis& a) { return a.kernel == a.size && a.padding == 0; };
  return covers(s.rows) && covers(s.columns);
}

/// Calls f(index of an image's channel group, its pixels in x, the weights' in w) for `rows` of
/// them. Products with one filter are too small for BLAS.
template <class F>
void each_row(std::int64_t rows, std::int64_t groups, std::int64_t pixels, const F& f) {
  parallel_for(rows, pixels / 8 + 1, [&](std::int64_t begin, std::int64_t end) {
    const detail::FlushDenormals flush;
    detail::simd([=] {
      for (std::int64_t i = begin; i < end; ++i) f(i, i * pixels, i % groups * pixels);
    });
  });
}

/// Images x and gx [B, G, pixels], weights w and gw [G, filters, pixels], outputs y and gy [B, G,
/// filters].
struct WholeImages {
  explicit WholeImages(const ConvShape& s)
      : groups({s.groups}),
        batch(s.batch),
        filters(s.filters),
        pixels(s.channels * s.taps()),
        images{{pixels}, s.groups * pixels, 1},
        weights{{filters * pixels}, pixels, 1},
        outputs{{filters}, s.groups * filters, 1} {}
  /// y += x · wᵀ
  template <class T>
  void forward(const T* x, const T* w, T* y) const {
    if (filters == 1)
      return each_row(batch * groups[0], groups[0], pixels,
                      [=, n = pixels](std::int64_t i, std::int64_t image, std::int64_t kernel) {
                        constexpr std::int64_t kLanes = 16;
                        T lanes[kLanes] = {}, sum = y[i];
                        std::int64_t p = 0;
                        for (; p + kLanes <= n; p += kLanes)
                          for (std::int64_t k = 0; k < kLanes; ++k)
                            lanes[k] += x[image + p + k] * w[kernel + p + k];
                        for (; p < n; ++p) sum += x[image + p] * w[kernel + p];
                        for (const T lane : lanes) sum += lane;
                        y[i] = sum;
                      });
    detail::batched_gemm<T>(groups, batch, filters, pixels, x, images, w, transposed(weights), y,
                            outputs, T(1));
  }
  /// gx = gy · w
  template <class T>
  void input(const T* gy, const T* w, T* gx) const {
    if (filters == 1)
      return each_row(batch * groups[0], groups[0], pixels,
                      [=, n = pixels](std::int64_t i, std::int64_t image, std::int64_t kernel) {
                        const T g = gy[i];
                        for (std::int64_t p = 0; p < n; ++p) gx[image + p] = g * w[kernel + p];
                      });
    detail::batched_gemm<T>(groups, batch, pixels, filters, gy, outputs, w, weights, gx, images);
  }
  /// gw = gyᵀ · x
  template <class T>
  void weight(const T* x, const T* gy, T* gw) const {
    detail::batched_gemm<T>(groups, filters, pixels, batch, gy, transposed(outputs), x, images, gw,
                            weights);
  }
  static detail::MatrixLayout transposed(const detail::MatrixLayout& m) {
    return {m.batch, m.col, m.row};
  }
  Shape groups;
  std::int64_t batch, filters, pixels;
  detail::MatrixLayout images, weights, outputs;
};

}  // namespace capsfw::kernels
