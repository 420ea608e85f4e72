#pragma once
// Image sets from arrays: NPZ files of NumPy, and tables of pixels.

#include <cstdint>
#include <filesystem>

#include <capsfw/core/tensor.hpp>
#include <capsfw/data/dataset.hpp>

namespace capsfw {

/// An image set from tensors. Images: [N, H, W], [N, C, H, W] or, if the last length is 1 or 3 and
/// the second is not 1, 2, 3 or 4, [N, H, W, C]. i64 are bytes, 0 to 255; f32 and f64 are numbers
/// in [0, 1], of which the nearest byte is kept. Labels: i64 [N] or [N, 1], from 0 on. There are
/// `classes` classes, or as many as the largest label asks for (0), named by their numbers.
/// ShapeError for other shapes, unequal counts, nothing at all; DTypeError; ValueError for values
/// outside these ranges and for more than 65,536 classes.
ImageSet image_set(const Tensor& images, const Tensor& labels, std::int64_t classes = 0);

/// Options of load_npz_images and load_csv_images.
struct ImageArrayOptions {
  double test_share = 0.2;  ///< of every class, where the file has no test part of its own
  std::uint64_t seed = 0;   ///< of that choice
};

/// One part of an NPZ file. Names of the arrays, of which the first pair that is there counts:
///   images, labels         stratified_hold_out chooses the test part
///   train_images, train_labels, test_images, test_labels
///   x_train, y_train, x_test, y_test
/// What they hold is said at image_set(); both parts have the classes of both. IoError naming the
/// file if it cannot be read, has no such pair, or an array is not as it should be. Reading takes
/// up to nine bytes of memory for each byte of an image.
ImageSet load_npz_images(const std::filesystem::path& path,
                         Split split,
                         const ImageArrayOptions& options = {});

/// One part of a CSV file: on each line a label and the C * H * W values of an image [C, H, W],
/// bytes 0 to 255. The label is the column named "label", or the first one. IoError as load_csv,
/// and for another number of columns or values outside their ranges; ShapeError unless `image` is
/// [C, H, W] with no length below 1.
ImageSet load_csv_images(const std::filesystem::path& path,
                         const Shape& image,
                         Split split,
                         const ImageArrayOptions& options = {});

}  // namespace capsfw
