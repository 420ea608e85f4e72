#include <capsfw/data/augment.hpp>

#include <cmath>
#include <numbers>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw {
namespace {

/// Where the pixel (y, x) of the result comes from, relative to the centre.
struct Map {
  double yy, yx, xy, xx;
};

Map draw(const AffineOptions& o, Rng& rng) {
  const auto uniform = [&](double bound) { return bound * (2 * rng.uniform() - 1); };
  const double angle = uniform(o.degrees) * std::numbers::pi / 180, zoom = 1 + uniform(o.scale),
               shear = uniform(o.shear);
  const double c = std::cos(angle) / zoom, s = std::sin(angle) / zoom;
  return {c + s * shear, s, -s + c * shear, c};
}

void resample(const float* in, std::int64_t height, std::int64_t width, const Map& m, float* out) {
  const double cy = 0.5 * static_cast<double>(height - 1),
               cx = 0.5 * static_cast<double>(width - 1);
  const auto pixel = [&](std::int64_t y, std::int64_t x) {
    return y < 0 || x < 0 || y >= height || x >= width ? 0.0F : in[y * width + x];
  };
  for (std::int64_t y = 0; y < height; ++y)
    for (std::int64_t x = 0; x < width; ++x) {
      const double dy = static_cast<double>(y) - cy, dx = static_cast<double>(x) - cx;
      const double sy = cy + m.yy * dy + m.yx * dx, sx = cx + m.xy * dy + m.xx * dx;
      const double fy = std::floor(sy), fx = std::floor(sx);
      const auto iy = static_cast<std::int64_t>(fy), ix = static_cast<std::int64_t>(fx);
      const auto wy = static_cast<float>(sy - fy), wx = static_cast<float>(sx - fx);
      const float top = (1 - wx) * pixel(iy, ix) + wx * pixel(iy, ix + 1);
      const float bottom = (1 - wx) * pixel(iy + 1, ix) + wx * pixel(iy + 1, ix + 1);
      out[y * width + x] = (1 - wy) * top + wy * bottom;
    }
}

}  // namespace

std::function<void(Batch&, Rng&)> random_affine(const AffineOptions& options) {
  const AffineOptions o = options;
  if (!(o.degrees >= 0 && o.degrees <= 180 && o.scale >= 0 && o.scale < 1 && o.shear >= 0 &&
        std::isfinite(o.shear)))
    throw ValueError(
        fmt::format("random_affine: degrees must lie in [0, 180], scale in [0, 1), shear must not "
                    "be negative; got {}, {} and {}",
                    o.degrees, o.scale, o.shear));
  return [o, before = std::vector<float>()](Batch& batch, Rng& rng) mutable {
    const std::int64_t channels = batch.images.size(1), height = batch.images.size(2),
                       width = batch.images.size(3), area = height * width;
    float* image = batch.images.mutable_data<float>();
    for (std::int64_t i = 0; i < batch.size(); ++i) {
      const Map map = draw(o, rng);
      for (std::int64_t c = 0; c < channels; ++c, image += area) {
        before.assign(image, image + area);
        resample(before.data(), height, width, map, image);
      }
    }
  };
}

}  // namespace capsfw
