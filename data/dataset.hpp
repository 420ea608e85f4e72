#pragma once
// Labelled images in memory.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <capsfw/core/tensor.hpp>
#include <capsfw/data/image.hpp>

namespace capsfw {

/// N images [C, H, W] with a class each. Pixels are kept as bytes (60,000 MNIST images: 47 MB) and
/// become f32 in [0, 1], byte / 255, when they are asked for. Copies and subsets share the pixels,
/// which never change; so sets are cheap to pass by value.
class ImageSet {
 public:
  ImageSet() = default;
  /// `pixels`: [N, C, H, W] in row-major order; N is the count of `labels`; `image` is [C, H, W].
  /// ShapeError if counts or the rank do not fit; ValueError if a label lies outside
  /// [0, class_names.size()).
  ImageSet(const Shape& image,
           std::vector<std::uint8_t> pixels,
           std::vector<std::int64_t> labels,
           std::vector<std::string> class_names);

  /// Number of images.
  std::int64_t size() const { return static_cast<std::int64_t>(index_.size()); }
  /// [C, H, W].
  const Shape& image_shape() const { return image_; }
  /// Number of classes.
  std::int64_t classes() const { return static_cast<std::int64_t>(class_names_.size()); }
  /// Names by class number.
  const std::vector<std::string>& class_names() const { return class_names_; }

  /// The C * H * W bytes of image `i`; `i` is not checked.
  const std::uint8_t* pixels(std::int64_t i) const;
  /// The class of image `i`; `i` is not checked.
  std::int64_t label(std::int64_t i) const;

  /// Images `begin` to `end` - 1 as f32 [end - begin, C, H, W] in [0, 1]. ValueError out of range.
  Tensor images(std::int64_t begin, std::int64_t end) const;
  /// All images; 4 bytes per pixel.
  Tensor images() const { return images(0, size()); }
  /// All labels, i64 [N].
  Tensor labels() const;

  /// The images at these positions, in this order (repeats are fine). ValueError out of range.
  ImageSet subset(const std::vector<std::int64_t>& positions) const;
  /// Images `begin` to `end` - 1. ValueError out of range.
  ImageSet range(std::int64_t begin, std::int64_t end) const;

 private:
  void check_range(const char* who, std::int64_t begin, std::int64_t end) const;

  Shape image_;
  std::shared_ptr<const std::vector<std::uint8_t>> pixels_;
  std::shared_ptr<const std::vector<std::int64_t>> labels_;
  std::vector<std::int64_t> index_;  // position in this set -> image in pixels_ and labels_
  std::vector<std::string> class_names_;
};

/// Two sets made of one.
struct HeldOut {
  ImageSet train;       ///< what remains, in the order of the original
  ImageSet validation;  ///< the `n` images held out
};

/// Holds out `n` images: the last `n`, always the same; or, with a seed, `n` drawn at random (the
/// same ones for the same seed). ValueError unless 0 <= n < size.
HeldOut hold_out(const ImageSet& set,
                 std::int64_t n,
                 std::optional<std::uint64_t> seed = std::nullopt);

/// The same images in another size or with another number of channels (fit_image, with_channels).
/// The same set if nothing changes. ValueError unless height and width are both given or both 0, at
/// least 1, or for channels that cannot become so many (only 1 to 3 and 3 to 1 can), and if the
/// result would have more than 2^40 bytes.
ImageSet convert_images(const ImageSet& set, const ImageFormat& format);

/// The two halves in which MNIST and its kin come.
enum class Split { train, test };

/// Reads the IDX files {train|t10k}-{images-idx3|labels-idx1}-ubyte[.gz] of the data set `name`
/// ("mnist", "fashion-mnist", or any of the same format) from the folder with all four files that
/// resolve_dataset finds. Ten classes: the names of Fashion-MNIST, or the digits. IoError if the
/// data are missing or bad.
ImageSet load_mnist_like(std::string_view name, Split split);

/// Reads a pair of IDX files: images u8 [N, H, W] or [N, C, H, W], labels u8 [N]. IoError if a file
/// is bad, if the counts differ, if there are none, or if a label has no class name.
ImageSet load_idx_images(const std::filesystem::path& images,
                         const std::filesystem::path& labels,
                         std::vector<std::string> class_names);

namespace detail {
/// `n` bytes to numbers in [0, 1].
void to_unit(const std::uint8_t* bytes, std::int64_t n, float* out);
/// `n` numbers in [0, 1] to the nearest bytes; what lies outside is clamped, NaN is 0.
void to_bytes(const float* in, std::int64_t n, std::uint8_t* bytes);
/// "0" to "n - 1": names of classes that have none.
std::vector<std::string> numbered_classes(std::int64_t n);
}  // namespace detail

}  // namespace capsfw
