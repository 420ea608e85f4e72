#pragma once
// Changes of finished batches: random ones of training images, beyond the shifts of DataLoader, and
// fixed ones. All draw from the generator they are given, so that a batch is a function of the
// loader's seed.

#include <cstdint>
#include <functional>
#include <vector>

#include <capsfw/data/loader.hpp>

namespace capsfw {

/// What LoaderOptions::transform takes.
using Transform = std::function<void(Batch&, Rng&)>;

/// Options of random_affine.
struct AffineOptions {
  double degrees = 0;    ///< rotation, uniform in ±degrees
  double scale = 0;      ///< magnification, uniform in 1 ± scale
  double shear = 0;      ///< shear along the rows, uniform in ±shear (columns per row)
  double translate = 0;  ///< shift of rows and of columns, each uniform in ±translate pixels
  double elastic = 0;    ///< α, strength of an elastic distortion (34 in the source); 0: none
  double sigma = 4;      ///< σ, smoothness of the distortion in pixels
};

/// Maps every image of a batch by an affine map of its own about the centre: rotation, then
/// magnification, then shear, then translation; linear interpolation, zeros outside. With `elastic`
/// each pixel p shows the place A(p) + α (G_σ * u)(p) instead of A(p): u are numbers uniform in ±1,
/// two for each pixel, and G_σ is a Gaussian whose weights add up to 1 (zeros outside of the
/// image), so that far from the border a pixel moves by α / (2 σ √(3π)) root mean square in each
/// direction (1.4 for the source's α and σ).   The data augmentation of Simard, Steinkraus, Platt
/// 2003, Best Practices for Convolutional Neural Networks, section 2. ValueError for negative
/// options, degrees above 180, scale ≥ 1 or σ = 0.
Transform random_affine(const AffineOptions& options);

/// Mirrors each image, left to right, with this probability. ValueError unless it lies in [0, 1].
Transform random_flip(double probability = 0.5);

/// Puts `padding` zeros around each image and keeps height x width pixels of it at a random place;
/// 0 x 0: as many as before (He et al. 2016, Deep Residual Learning, section 4.2: padding 4 for
/// CIFAR). ValueError for options that are negative or above 2^20, and for one length of 0 beside
/// another; ShapeError, in the loader, if the padded image is smaller.
Transform random_crop(std::int64_t padding, std::int64_t height = 0, std::int64_t width = 0);

/// Keeps the middle height x width pixels, for evaluation beside random_crop; where the surplus is
/// odd, one more row or column is cut below or at the right. ValueError for lengths below 1,
/// ShapeError, in the loader, if the image is smaller.
Transform center_crop(std::int64_t height, std::int64_t width);

/// Sets a square of `size` pixels to zero, around a pixel drawn uniformly, as far as it lies in the
/// image; for an even size the pixel is the upper left of the four in the middle.   DeVries, Taylor
/// 2017, Improved Regularization of Convolutional Neural Networks with Cutout. ValueError
/// unless 1 <= size <= 2^20.
Transform cutout(std::int64_t size);

/// x -> (x - mean) / std, channel by channel. Nothing is random: for evaluation, too. ValueError
/// unless there are as many means as positive deviations, at least one, all finite; ShapeError, in
/// the loader, unless images have as many channels.
Transform normalize(const std::vector<double>& mean, const std::vector<double>& std);

/// One after the other, with one generator. Empty ones are left out.
Transform compose(std::vector<Transform> transforms);

/// Mean and standard deviation (over N H W values, not N H W - 1) of each channel in [0, 1], for
/// normalize().
struct ChannelStatistics {
  std::vector<double> mean, std;  ///< one a channel
};
/// ValueError if the set is empty.
ChannelStatistics channel_statistics(const ImageSet& set);

}  // namespace capsfw
