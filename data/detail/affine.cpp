#include "affine.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "../../core/simd.hpp"

namespace capsfw::detail {

AffineMap affine_map(double degrees, double zoom_y, double zoom_x, double shear) {
  const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  return {.yy = c / zoom_y + s / zoom_x * shear,
          .yx = s / zoom_x,
          .xy = -s / zoom_y + c / zoom_x * shear,
          .xx = c / zoom_x};
}

std::vector<float> elastic_field(
    double alpha, double sigma, std::int64_t height, std::int64_t width, Rng& rng) {
  // Beyond three deviations a weight is less than 0.0045 times the middle one.
  const auto radius = static_cast<std::int64_t>(
      std::min(std::ceil(3 * sigma), static_cast<double>(std::max(height, width))));
  std::vector<double> weights;
  double total = 0;
  for (std::int64_t k = -radius; k <= radius; ++k) {
    const double d = static_cast<double>(k) / sigma;
    total += weights.emplace_back(std::exp(-d * d / 2));
  }
  std::vector<float> taps;
  for (const double w : weights) taps.push_back(static_cast<float>(w / total));
  const std::int64_t area = height * width;
  std::vector<float> noise(static_cast<std::size_t>(2 * area)), half(noise.size()),
      field(noise.size());
  for (float& v : noise) v = static_cast<float>(uniform_in(alpha, rng));
  const float *tap = taps.data() + radius, *in = noise.data();
  float *mid = half.data(), *out = field.data();
  simd([&] {
    for (std::int64_t part = 0; part < 2; ++part) {
      for (std::int64_t y = 0; y < height; ++y)  // down the columns
        for (std::int64_t k = std::max(-radius, -y); k <= std::min(radius, height - 1 - y); ++k)
          for (std::int64_t x = 0; x < width; ++x)
            mid[y * width + x] += tap[k] * in[(y + k) * width + x];
      for (std::int64_t y = 0; y < height; ++y)  // along the rows
        for (std::int64_t k = std::max(-radius, 1 - width); k <= std::min(radius, width - 1); ++k)
          for (std::int64_t x = std::max<std::int64_t>(0, -k);
               x < width - std::max<std::int64_t>(0, k); ++x)
            out[y * width + x] += tap[k] * mid[y * width + x + k];
      in += area;
      mid += area;
      out += area;
    }
  });
  return field;
}

void resample_affine(const float* in,
                     std::int64_t in_height,
                     std::int64_t in_width,
                     const AffineMap& m,
                     std::int64_t height,
                     std::int64_t width,
                     float* out,
                     const float* field) {
  const auto middle = [](std::int64_t n) { return 0.5 * static_cast<double>(n - 1); };
  const double cy = middle(height), cx = middle(width), in_cy = middle(in_height),
               in_cx = middle(in_width);
  const auto pixel = [&](std::int64_t y, std::int64_t x) {
    return y < 0 || x < 0 || y >= in_height || x >= in_width ? 0.0F : in[y * in_width + x];
  };
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x) {
      const double dy = static_cast<double>(y) - cy, dx = static_cast<double>(x) - cx;
      double sy = in_cy + m.yy * dy + m.yx * dx + m.y0, sx = in_cx + m.xy * dy + m.xx * dx + m.x0;
      if (field != nullptr) {
        sy += static_cast<double>(field[y * width + x]);
        sx += static_cast<double>(field[(height + y) * width + x]);
      }
      const double fy = std::floor(sy), fx = std::floor(sx);
      const auto iy = static_cast<std::int64_t>(fy), ix = static_cast<std::int64_t>(fx);
      const auto wy = static_cast<float>(sy - fy), wx = static_cast<float>(sx - fx);
      const float top = (1 - wx) * pixel(iy, ix) + wx * pixel(iy, ix + 1);
      const float bottom = (1 - wx) * pixel(iy + 1, ix) + wx * pixel(iy + 1, ix + 1);
      out[y * width + x] = (1 - wy) * top + wy * bottom;
    }
}

}  // namespace capsfw::detail
