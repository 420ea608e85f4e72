#pragma once
// Image sets made of others: two digits overlapped, two side by side, digits in new poses, noise.

#include <cstdint>
#include <vector>

#include <capsfw/core/tensor.hpp>
#include <capsfw/data/dataset.hpp>

namespace capsfw {

/// Images that show two classes each.
struct PairBatch {
  Tensor images;         ///< f32 [B, C, H, W] in [0, 1]
  Tensor labels;         ///< i64 [B, 2]: the classes of the first and of the second
  Tensor first, second;  ///< each alone, as `images`: two targets of a reconstruction
  std::int64_t size() const { return labels.size(0); }  ///< number of images
};

/// Options of OverlappedPairs.
struct OverlapOptions {
  std::int64_t max_shift = 4;  ///< of each of the two, in pixels
  std::int64_t per_image = 1;  ///< pairs that each image of the set is the first of
  std::uint64_t seed = 0;      ///< of partners and shifts
};

/// Every image of a set with another one, of another class, on top of it (MultiMNIST: Sabour et al.
/// 2017, section 6, with per_image = 1000). Both lie on a canvas of H + 2 max_shift by
/// W + 2 max_shift pixels, shifted from its centre by up to max_shift pixels in each direction,
/// uniformly; a pixel is the sum of both, at most 1. Pair i is a function of the set, i and the
/// seed, and is made when it is asked for.   ValueError for a set of fewer than two classes (images
/// of at least two), negative shifts, or fewer than one pair per image.
class OverlappedPairs {
 public:
  explicit OverlappedPairs(ImageSet set, OverlapOptions options = {});
  /// Images of the set times per_image; pair i begins with image i % images.
  std::int64_t size() const { return set_.size() * options_.per_image; }
  /// [C, H + 2 max_shift, W + 2 max_shift].
  const Shape& image_shape() const { return image_; }
  std::int64_t classes() const { return set_.classes(); }  ///< of the set

  /// The pairs at these positions. ValueError out of range.
  PairBatch at(const std::vector<std::int64_t>& positions) const;
  /// Pairs `begin` to `end` - 1. ValueError out of range.
  PairBatch range(std::int64_t begin, std::int64_t end) const;

 private:
  ImageSet set_;
  OverlapOptions options_;
  Shape image_;
};

/// Pairs made of a batch of a DataLoader, whose shifts place both: every image [B, C, H, W] with
/// the next one of another class, in a circle, on top of it. labels i64 [B]. ShapeError unless they
/// fit; ValueError if all are of one class.
PairBatch overlap(const Tensor& images, const Tensor& labels);

/// Every image of a set beside one of a random permutation of it; pairs of one class are left
/// out.   Su 2018, From K-Means to Capsule, experiments.
class DigitPairs {
 public:
  /// `horizontal`: side by side; otherwise the first above the second.
  DigitPairs(const ImageSet& set, bool horizontal, std::uint64_t seed);
  std::int64_t size() const { return first_.size(); }  ///< number of pairs
  /// Pairs `begin` to `end` - 1: images [n, C, 2H, W] or [n, C, H, 2W], classes i64 [n, 2].
  /// ValueError out of range.
  Tensor images(std::int64_t begin, std::int64_t end) const;
  Tensor labels(std::int64_t begin, std::int64_t end) const;

 private:
  ImageSet first_, second_;
  bool horizontal_;
};

/// Options of affine_digits: what affNIST has (Tieleman 2013, "affNIST").
struct AffineDigitsOptions {
  std::int64_t height = 40, width = 40;  ///< of the canvas
  std::int64_t per_image = 1;            ///< results for each image
  double degrees = 20;                   ///< rotation, uniform in ±degrees
  double scale = 0.2;      ///< magnification of rows and of columns, each uniform in 1 ± scale
  double shear = 0.2;      ///< shear along the rows, uniform in ±shear (columns per row)
  bool translate = true;   ///< to a random place at which all of it is seen; else at the centre
  std::uint64_t seed = 0;  ///< of all of it
};

/// Images of a set, each mapped by an affine map of its own onto a larger black canvas. With
/// degrees, scale and shear 0: images at random places, on which Sabour et al. 2017, section 5.2,
/// train what affNIST tests. What does not fit on the canvas stays at its centre and is cut. Image
/// i of the result is a function of image i % images, i and the seed.   ValueError for negative
/// options, degrees above 180, scale ≥ 1, or sizes below 1.
ImageSet affine_digits(const ImageSet& set, const AffineDigitsOptions& options = {});

/// `n` images [C, H, W] of one class, "noise": every byte uniform. A set from no distribution that
/// a network learned. ValueError if n < 1; ShapeError as ImageSet.
ImageSet noise_images(std::int64_t n, const Shape& image, std::uint64_t seed = 0);

}  // namespace capsfw
