#include "affine.hpp"

#include <cmath>
#include <numbers>

namespace capsfw::detail {

AffineMap affine_map(double degrees, double zoom_y, double zoom_x, double shear) {
  const double angle = degrees * std::numbers::pi / 180, c = std::cos(angle), s = std::sin(angle);
  return {.yy = c / zoom_y + s / zoom_x * shear,
          .yx = s / zoom_x,
          .xy = -s / zoom_y + c / zoom_x * shear,
          .xx = c / zoom_x};
}

void resample_affine(const float* in,
                     std::int64_t in_height,
                     std::int64_t in_width,
                     const AffineMap& m,
                     std::int64_t height,
                     std::int64_t width,
                     float* out) {
  const auto middle = [](std::int64_t n) { return 0.5 * static_cast<double>(n - 1); };
  const double cy = middle(height), cx = middle(width), in_cy = middle(in_height),
               in_cx = middle(in_width);
  const auto pixel = [&](std::int64_t y, std::int64_t x) {
    return y < 0 || x < 0 || y >= in_height || x >= in_width ? 0.0F : in[y * in_width + x];
  };
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x) {
      const double dy = static_cast<double>(y) - cy, dx = static_cast<double>(x) - cx;
      const double sy = in_cy + m.yy * dy + m.yx * dx + m.y0,
                   sx = in_cx + m.xy * dy + m.xx * dx + m.x0;
      const double fy = std::floor(sy), fx = std::floor(sx);
      const auto iy = static_cast<std::int64_t>(fy), ix = static_cast<std::int64_t>(fx);
      const auto wy = static_cast<float>(sy - fy), wx = static_cast<float>(sx - fx);
      const float top = (1 - wx) * pixel(iy, ix) + wx * pixel(iy, ix + 1);
      const float bottom = (1 - wx) * pixel(iy + 1, ix) + wx * pixel(iy + 1, ix + 1);
      out[y * width + x] = (1 - wy) * top + wy * bottom;
    }
}

}  // namespace capsfw::detail
