#pragma once
// Pictures: PNG and JPEG files, grids of pictures, and other sizes.

#include <cstdint>
#include <filesystem>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Options of load_image.
struct ImageOptions {
  int channels = 0;       ///< 1: grey; 3: red, green, blue; 0: as the file has it
  double background = 0;  ///< grey value in [0, 1] that shows through transparent pixels
};

/// Reads a PNG or JPEG file as f32 [C, H, W] in [0, 1]. Grey from colour is 0.299 R + 0.587 G +
/// 0.114 B (ITU-R BT.601); 16-bit files are read with 8 bits. IoError if the file is missing,
/// truncated, damaged (PNG checksums are verified), of another format, larger than 256 MiB, or has
/// more than 2^26 pixels, or more than its bytes can hold; ValueError on bad options.
Tensor load_image(const std::filesystem::path& path, ImageOptions options = {});

/// The bytes of an 8-bit PNG file of [H, W], [1, H, W] or [3, H, W]; values are clamped to [0, 1].
/// ShapeError on other shapes, empty images or more than 2^26 pixels; DTypeError unless f32 or f64;
/// ValueError on NaN.
std::vector<std::uint8_t> encode_png(const Tensor& image);

/// Writes encode_png() of an image. The file appears complete or not at all (AtomicFile); errors of
/// both.
void save_png(const std::filesystem::path& path, const Tensor& image);

/// Images [N, C, H, W] as one picture [C, rows * (H + gap) - gap, columns * (W + gap) - gap],
/// filled row by row; gaps and missing tiles have the value `fill`. f32. ShapeError unless rank 4
/// and not empty; ValueError if columns < 1 or gap < 0.
Tensor tile_images(const Tensor& images,
                   std::int64_t columns,
                   std::int64_t gap = 2,
                   double fill = 0);

/// Resamples [C, H, W] to [C, height, width], f32, each axis by itself: area averages along an axis
/// that shrinks, linear interpolation between pixel centres along one that grows. ShapeError unless
/// rank 3 and not empty; ValueError if a new length is below 1 or the result has more than 2^26
/// pixels.
Tensor resize_image(const Tensor& image, std::int64_t height, std::int64_t width);

/// How an image of other proportions is brought to a size.
enum class Fit : std::uint8_t {
  crop,    ///< resized to cover the new size, what stands out on two sides is cut off evenly
  stretch  ///< each axis resized by itself
};

/// [C, H, W] as [C, height, width], f32: resize_image, after Fit::crop has chosen how much is
/// kept.   Fit::crop resizes by s = max(height / H, width / W), to round(s H) and round(s W), and
/// takes the centre; where the surplus is odd, one more row or column is cut below or at the right.
/// Errors as resize_image.
Tensor fit_image(const Tensor& image, std::int64_t height, std::int64_t width, Fit fit = Fit::crop);

/// [1 or 3, H, W] with 1 or 3 channels: grey as in load_image, or the grey value three times. The
/// same tensor if nothing changes. ShapeError for other numbers of channels.
Tensor with_channels(const Tensor& image, std::int64_t channels);

/// What images are brought to; 0: as they are.
struct ImageFormat {
  std::int64_t height = 0, width = 0;  ///< both or none
  int channels = 0;                    ///< 1 or 3
  Fit fit = Fit::crop;                 ///< where the shape differs
};

namespace detail {
inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 26;
}  // namespace detail

}  // namespace capsfw
