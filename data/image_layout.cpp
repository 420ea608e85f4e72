// Grids of images and images of other sizes: arithmetic only, no files.

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/image.hpp>

namespace capsfw {
namespace {

/// One pixel of the result: weights of the neighbouring source pixels `first`, `first` + 1, ...
struct Tap {
  std::int64_t first;
  std::vector<float> weights;
};

std::vector<Tap> taps(std::int64_t from, std::int64_t to) {
  std::vector<Tap> out(static_cast<std::size_t>(to));
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  for (std::int64_t i = 0; i < to; ++i) {
    Tap& tap = out[static_cast<std::size_t>(i)];
    if (to >= from) {  // linear between pixel centres; the border pixel continues outside
      const double x = std::clamp((static_cast<double>(i) + 0.5) * scale - 0.5, 0.0,
                                  static_cast<double>(from - 1));
      tap.first = static_cast<std::int64_t>(x);
      const double part = x - static_cast<double>(tap.first);
      tap.weights = {static_cast<float>(1 - part)};
      if (part > 0) tap.weights.push_back(static_cast<float>(part));
    } else {  // the share of [begin, end) that each source pixel covers
      const double begin = static_cast<double>(i) * scale, end = begin + scale;
      tap.first = static_cast<std::int64_t>(begin);
      for (std::int64_t k = tap.first; k < from && static_cast<double>(k) < end; ++k) {
        const double low = std::max(begin, static_cast<double>(k));
        const double high = std::min(end, static_cast<double>(k + 1));
        tap.weights.push_back(static_cast<float>((high - low) / scale));
      }
    }
  }
  return out;
}

/// Resamples the middle axis of [outer, from, inner].
void resample(const float* in,
              std::int64_t outer,
              std::int64_t from,
              std::int64_t inner,
              const std::vector<Tap>& to,
              float* out) {
  for (std::int64_t o = 0; o < outer; ++o, in += from * inner)
    for (const Tap& tap : to) {
      std::fill_n(out, inner, 0.0f);
      const float* row = in + tap.first * inner;
      for (float w : tap.weights) {
        for (std::int64_t k = 0; k < inner; ++k) out[k] += w * row[k];
        row += inner;
      }
      out += inner;
    }
}

void check_rank(const char* who, const Tensor& x, int rank, const char* layout) {
  check_floating(x, who);
  if (x.dim() != rank || x.numel() == 0)
    throw ShapeError(fmt::format("{}: takes {}, not empty; got {}", who, layout, x.shape().str()));
}

}  // namespace

Tensor tile_images(const Tensor& images, std::int64_t columns, std::int64_t gap, double fill) {
  check_rank("tile_images", images, 4, "[N, C, H, W]");
  const std::int64_t n = images.size(0), channels = images.size(1), height = images.size(2),
                     width = images.size(3);
  constexpr std::int64_t kMax = detail::kMaxPixels;
  if (columns < 1 || columns > kMax || gap < 0 || gap > kMax)
    throw ValueError(
        fmt::format("tile_images: columns must lie in [1, {}], gap in [0, {}]; got {} "
                    "and {}",
                    kMax, kMax, columns, gap));
  const std::int64_t rows = (n + columns - 1) / columns;
  const std::int64_t full_height = rows * (height + gap) - gap;
  const std::int64_t full_width = columns * (width + gap) - gap;
  Tensor y = full({channels, full_height, full_width}, fill);
  const Tensor x = cast_data(images, DType::f32);
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < channels; ++c)
      for (std::int64_t r = 0; r < height; ++r, in += width)
        std::copy_n(in, width,
                    out + (c * full_height + i / columns * (height + gap) + r) * full_width +
                        i % columns * (width + gap));
  return y;
}

Tensor resize_image(const Tensor& image, std::int64_t height, std::int64_t width) {
  check_rank("resize_image", image, 3, "[C, H, W]");
  if (height < 1 || width < 1 || height > detail::kMaxPixels / width)
    throw ValueError(
        fmt::format("resize_image: lengths of at least 1 and at most {} pixels; got "
                    "{} x {}",
                    detail::kMaxPixels, height, width));
  const std::int64_t channels = image.size(0), h = image.size(1), w = image.size(2);
  const Tensor x = cast_data(image, DType::f32);
  Tensor rows = empty({channels, height, w}), y = empty({channels, height, width});
  resample(x.data<float>(), channels, h, w, taps(h, height), rows.mutable_data<float>());
  resample(rows.data<float>(), channels * height, w, 1, taps(w, width), y.mutable_data<float>());
  return y;
}

Tensor fit_image(const Tensor& image, std::int64_t height, std::int64_t width, Fit fit) {
  check_rank("fit_image", image, 3, "[C, H, W]");
  const std::int64_t h = image.size(1), w = image.size(2);
  if (fit == Fit::stretch || height < 1 || width < 1) return resize_image(image, height, width);
  const double scale = std::max(static_cast<double>(height) / static_cast<double>(h),
                                static_cast<double>(width) / static_cast<double>(w));
  const auto scaled = [&](std::int64_t n, std::int64_t least) {
    return std::max<std::int64_t>(std::llround(scale * static_cast<double>(n)), least);
  };
  const Tensor large = resize_image(image, scaled(h, height), scaled(w, width));
  const Strides strides = large.strides();
  const std::int64_t top = (large.size(1) - height) / 2, left = (large.size(2) - width) / 2;
  return contiguous_data(strided_view(large, {image.size(0), height, width}, strides,
                                      large.offset() + top * strides[1] + left));
}

Tensor with_channels(const Tensor& image, std::int64_t channels) {
  check_rank("with_channels", image, 3, "[C, H, W]");
  const std::int64_t have = image.size(0), area = image.size(1) * image.size(2);
  if (have == channels) return image;
  if ((have != 1 && have != 3) || (channels != 1 && channels != 3))
    throw ShapeError(
        fmt::format("with_channels: from 1 to 3 channels, or from 3 to 1; got {} to {}",
                    image.shape().str(), channels));
  const Tensor x = cast_data(image, DType::f32);
  const float* in = x.data<float>();
  Tensor y = empty({channels, image.size(1), image.size(2)});
  float* out = y.mutable_data<float>();
  for (std::int64_t i = 0; i < area; ++i)
    if (channels == 1)
      out[i] = 0.299f * in[i] + 0.587f * in[area + i] + 0.114f * in[2 * area + i];
    else
      out[i] = out[area + i] = out[2 * area + i] = in[i];
  return y;
}

}  // namespace capsfw
