#pragma once
// Private: affine maps of single images.

#include <cstdint>

#include <capsfw/core/random.hpp>

namespace capsfw::detail {

/// Where the pixel (y, x) of the result comes from, both relative to the centre:
/// (yy y + yx x + y0, xy y + xx x + x0).
struct AffineMap {
  double yy = 1, yx = 0, xy = 0, xx = 1, y0 = 0, x0 = 0;
};

/// A number uniform in ±bound.
inline double uniform_in(double bound, Rng& rng) { return bound * (2 * rng.uniform() - 1); }

/// Rotation by `degrees`, then magnification by `zoom_y` and `zoom_x`, then shear by `shear`
/// columns per row.
AffineMap affine_map(double degrees, double zoom_y, double zoom_x, double shear);

/// One channel: linear interpolation, zeros outside. The centres of both images lie on each other.
void resample_affine(const float* in,
                     std::int64_t in_height,
                     std::int64_t in_width,
                     const AffineMap& map,
                     std::int64_t height,
                     std::int64_t width,
                     float* out);

}  // namespace capsfw::detail
