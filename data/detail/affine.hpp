#pragma once
// Private: affine maps and elastic distortions of single images.

#include <cstdint>
#include <vector>

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

/// Displacements of an elastic distortion, [2, height, width], first of rows, then of columns:
/// numbers uniform in ±1, smoothed by a Gaussian of deviation `sigma` (zeros outside), times
/// `alpha`.
std::vector<float> elastic_field(
    double alpha, double sigma, std::int64_t height, std::int64_t width, Rng& rng);

/// One channel: linear interpolation, zeros outside. The centres of both images lie on each other.
/// `field`: what is added to the places that pixels come from, as of elastic_field(); null: none.
void resample_affine(const float* in,
                     std::int64_t in_height,
                     std::int64_t in_width,
                     const AffineMap& map,
                     std::int64_t height,
                     std::int64_t width,
                     float* out,
                     const float* field = nullptr);

}  // namespace capsfw::detail
