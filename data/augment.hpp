#pragma once
// Random changes of training images, beyond the shifts of DataLoader.

#include <functional>

#include <capsfw/data/loader.hpp>

namespace capsfw {

/// Options of random_affine.
struct AffineOptions {
  double degrees = 0;  ///< rotation, uniform in ±degrees
  double scale = 0;    ///< magnification, uniform in 1 ± scale
  double shear = 0;    ///< shear along the rows, uniform in ±shear (columns per row)
};

/// A LoaderOptions::transform that maps every image of a batch by an affine map of its own about
/// the centre: rotation, then magnification, then shear; linear interpolation, zeros outside. The
/// data augmentation of Simard, Steinkraus, Platt 2003, Best Practices for Convolutional Neural
/// Networks, section 2, without the elastic part.   ValueError for negative options, degrees above
/// 180 or scale ≥ 1.
std::function<void(Batch&, Rng&)> random_affine(const AffineOptions& options);

}  // namespace capsfw
