#include <capsfw/data/synthetic.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>

#include "detail/affine.hpp"

namespace capsfw {
namespace {

/// Far from the small stream numbers that programs use with the same seed.
constexpr std::uint64_t kOverlap = 0x0ee1'a900'0000'0000, kAffine = 0xaff1'4e00'0000'0000;

void require(bool good, const char* who, const std::string& rule) {
  if (!good) throw ValueError(fmt::format("{}: {}", who, rule));
}

std::uint64_t stream(std::uint64_t base, std::int64_t i) {
  return base + static_cast<std::uint64_t>(i);
}

/// Copies the planes of an image to (top, left) of larger, black ones.
void paste(const float* in,
           const Shape& from,
           std::int64_t top,
           std::int64_t left,
           const Shape& to,
           float* out) {
  for (std::int64_t c = 0; c < from[0]; ++c)
    for (std::int64_t y = 0; y < from[1]; ++y, in += from[2])
      std::copy_n(in, from[2], out + (c * to[1] + top + y) * to[2] + left);
}

/// First and last row or column with ink, of all channels.
struct Ink {
  std::int64_t top, bottom, left, right;
};

Ink ink_of(const std::vector<std::uint8_t>& image, const Shape& shape) {
  Ink box{shape[1], -1, shape[2], -1};
  const std::uint8_t* p = image.data();
  for (std::int64_t c = 0; c < shape[0]; ++c)
    for (std::int64_t y = 0; y < shape[1]; ++y)
      for (std::int64_t x = 0; x < shape[2]; ++x)
        if (*p++ != 0)
          box = {std::min(box.top, y), std::max(box.bottom, y), std::min(box.left, x),
                 std::max(box.right, x)};
  return box;
}

/// A random shift that keeps [first, last] within [0, n).
std::int64_t shift_within(std::int64_t first, std::int64_t last, std::int64_t n, Rng& rng) {
  return last < first ? 0 : rng.below(n - (last - first)) - first;
}

/// Moves an image, filling with zeros.
std::vector<std::uint8_t> moved(const std::vector<std::uint8_t>& image,
                                const Shape& shape,
                                std::int64_t dy,
                                std::int64_t dx) {
  std::vector<std::uint8_t> out(image.size(), 0);
  std::size_t at = 0;
  for (std::int64_t c = 0; c < shape[0]; ++c)
    for (std::int64_t y = 0; y < shape[1]; ++y)
      for (std::int64_t x = 0; x < shape[2]; ++x, ++at) {
        const std::int64_t from_y = y - dy, from_x = x - dx;
        if (from_y >= 0 && from_y < shape[1] && from_x >= 0 && from_x < shape[2])
          out[at] = image[static_cast<std::size_t>((c * shape[1] + from_y) * shape[2] + from_x)];
      }
  return out;
}

/// images = the sum of both, at most 1.
void add_up(PairBatch& batch) {
  const float *a = batch.first.data<float>(), *b = batch.second.data<float>();
  float* both = batch.images.mutable_data<float>();
  for (std::int64_t j = 0; j < batch.images.numel(); ++j) both[j] = std::min(a[j] + b[j], 1.0f);
}

}  // namespace

OverlappedPairs::OverlappedPairs(ImageSet set, OverlapOptions options)
    : set_(std::move(set)), options_(options) {
  require(options.max_shift >= 0 && options.max_shift < 1 << 20 && options.per_image >= 1,
          "OverlappedPairs",
          fmt::format("max_shift must not be negative, per_image at least 1; got {} and {}",
                      options.max_shift, options.per_image));
  bool two = false;
  for (std::int64_t i = 1; i < set_.size() && !two; ++i) two = set_.label(i) != set_.label(0);
  require(two, "OverlappedPairs", "the set must hold images of at least two classes");
  require(options.per_image <= (std::int64_t{1} << 48) / set_.size(), "OverlappedPairs",
          fmt::format("at most 2^48 pairs; got {} of each of {} images", options.per_image,
                      set_.size()));
  const Shape& image = set_.image_shape();
  image_ = {image[0], image[1] + 2 * options.max_shift, image[2] + 2 * options.max_shift};
}

PairBatch OverlappedPairs::at(const std::vector<std::int64_t>& positions) const {
  const auto n = static_cast<std::int64_t>(positions.size());
  const Shape& small = set_.image_shape();
  const auto canvas = [&] { return zeros({n, image_[0], image_[1], image_[2]}); };
  PairBatch batch{canvas(), empty({n, 2}, DType::i64), canvas(), canvas()};
  auto* labels = batch.labels.mutable_data<std::int64_t>();
  std::vector<float> pixels(static_cast<std::size_t>(small.numel()));
  for (std::int64_t k = 0; k < n; ++k) {
    const std::int64_t i = positions[static_cast<std::size_t>(k)];
    require(i >= 0 && i < size(), "OverlappedPairs::at",
            fmt::format("positions must lie in [0, {}); got {}", size(), i));
    Rng rng(options_.seed, stream(kOverlap, i));
    std::int64_t image[2] = {i % set_.size(), 0};
    do image[1] = rng.below(set_.size());
    while (set_.label(image[1]) == set_.label(image[0]));
    for (int side = 0; side < 2; ++side) {
      Tensor& alone = side == 0 ? batch.first : batch.second;
      const auto place = [&] { return rng.below(2 * options_.max_shift + 1); };
      const std::int64_t top = place(), left = place();
      detail::to_unit(set_.pixels(image[side]), small.numel(), pixels.data());
      paste(pixels.data(), small, top, left, image_,
            alone.mutable_data<float>() + k * image_.numel());
      labels[2 * k + side] = set_.label(image[side]);
    }
  }
  add_up(batch);
  return batch;
}

PairBatch OverlappedPairs::range(std::int64_t begin, std::int64_t end) const {
  require(begin >= 0 && begin <= end && end <= size(), "OverlappedPairs::range",
          fmt::format("0 <= begin <= end <= {}; got {} and {}", size(), begin, end));
  std::vector<std::int64_t> positions(static_cast<std::size_t>(end - begin));
  std::iota(positions.begin(), positions.end(), begin);
  return at(positions);
}

PairBatch overlap(const Tensor& images, const Tensor& labels) {
  if (images.dtype() != DType::f32 || images.dim() != 4 || labels.dtype() != DType::i64 ||
      labels.shape() != Shape{images.size(0)})
    throw ShapeError(fmt::format(
        "overlap: must be images f32 [B, C, H, W] and labels i64 [B]; got {} {} and {} {}",
        name_of(images.dtype()), images.shape().str(), name_of(labels.dtype()),
        labels.shape().str()));
  const std::int64_t n = images.size(0), area = n > 0 ? images.numel() / n : 0;
  const auto classes = labels.to_vector<std::int64_t>();
  const auto of = [&](std::int64_t i) { return classes[static_cast<std::size_t>(i % n)]; };
  PairBatch batch{empty(images.shape()), empty({n, 2}, DType::i64), contiguous_data(images),
                  empty(images.shape())};
  const float* from = batch.first.data<float>();
  float* second = batch.second.mutable_data<float>();
  auto* pairs = batch.labels.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < n; ++i) {
    std::int64_t other = i + 1;
    while (other < i + n && of(other) == of(i)) ++other;
    require(other < i + n, "overlap",
            fmt::format("all {} images are of class {}. Hint: a larger batch", n, of(i)));
    std::copy_n(from + other % n * area, area, second + i * area);
    pairs[2 * i] = of(i);
    pairs[2 * i + 1] = of(other);
  }
  add_up(batch);
  return batch;
}

DigitPairs::DigitPairs(const ImageSet& set, bool horizontal, std::uint64_t seed)
    : horizontal_(horizontal) {
  Rng rng(seed);
  const auto order = rng.permutation(set.size()).to_vector<std::int64_t>();
  std::vector<std::int64_t> first, second;
  for (std::int64_t i = 0; i < set.size(); ++i) {
    const std::int64_t j = order[static_cast<std::size_t>(i)];
    if (set.label(i) == set.label(j)) continue;
    first.push_back(i);
    second.push_back(j);
  }
  first_ = set.subset(first);
  second_ = set.subset(second);
}

Tensor DigitPairs::images(std::int64_t begin, std::int64_t end) const {
  const Shape& image = first_.image_shape();
  const Shape both = horizontal_ ? Shape{image[0], image[1], 2 * image[2]}
                                 : Shape{image[0], 2 * image[1], image[2]};
  const Tensor a = first_.images(begin, end), b = second_.images(begin, end);
  Tensor y = empty({end - begin, both[0], both[1], both[2]});
  float* out = y.mutable_data<float>();
  for (std::int64_t i = 0; i < end - begin; ++i, out += both.numel()) {
    paste(a.data<float>() + i * image.numel(), image, 0, 0, both, out);
    paste(b.data<float>() + i * image.numel(), image, horizontal_ ? 0 : image[1],
          horizontal_ ? image[2] : 0, both, out);
  }
  return y;
}

Tensor DigitPairs::labels(std::int64_t begin, std::int64_t end) const {
  const Tensor a = first_.range(begin, end).labels(), b = second_.range(begin, end).labels();
  Tensor y = empty({end - begin, 2}, DType::i64);
  auto* out = y.mutable_data<std::int64_t>();
  for (std::int64_t i = 0; i < end - begin; ++i) {
    out[2 * i] = a.data<std::int64_t>()[i];
    out[2 * i + 1] = b.data<std::int64_t>()[i];
  }
  return y;
}

ImageSet affine_digits(const ImageSet& set, const AffineDigitsOptions& o) {
  require(o.height >= 1 && o.width >= 1 && o.height < 1 << 20 && o.width < 1 << 20 &&
              o.per_image >= 1 && o.degrees >= 0 && o.degrees <= 180 && o.scale >= 0 &&
              o.scale < 1 && o.shear >= 0 && std::isfinite(o.shear),
          "affine_digits",
          fmt::format("sizes and per_image at least 1, degrees in [0, 180], scale in [0, 1), shear "
                      "not negative; got {} x {}, {}, {}, {} and {}",
                      o.height, o.width, o.per_image, o.degrees, o.scale, o.shear));
  const Shape& from = set.image_shape();
  const std::int64_t channels = set.size() > 0 ? from[0] : 1, area = o.height * o.width;
  require(
      set.size() == 0 || o.per_image <= (std::int64_t{1} << 40) / (set.size() * channels * area),
      "affine_digits", "the result must not have more than 2^40 bytes");
  const Shape to{channels, o.height, o.width};
  std::vector<std::uint8_t> pixels, one(static_cast<std::size_t>(to.numel()));
  std::vector<std::int64_t> labels;
  std::vector<float> in(static_cast<std::size_t>(from.numel())), out(one.size());
  for (std::int64_t i = 0; i < set.size() * o.per_image; ++i) {
    Rng rng(o.seed, stream(kAffine, i));
    const std::int64_t image = i % set.size();
    const double degrees = detail::uniform_in(o.degrees, rng),
                 zoom_y = 1 + detail::uniform_in(o.scale, rng),
                 zoom_x = 1 + detail::uniform_in(o.scale, rng),
                 shear = detail::uniform_in(o.shear, rng);
    const auto map = detail::affine_map(degrees, zoom_y, zoom_x, shear);
    detail::to_unit(set.pixels(image), from.numel(), in.data());
    for (std::int64_t c = 0; c < channels; ++c)
      detail::resample_affine(in.data() + c * from[1] * from[2], from[1], from[2], map, o.height,
                              o.width, out.data() + c * area);
    detail::to_bytes(out.data(), to.numel(), one.data());
    if (o.translate) {
      const Ink ink = ink_of(one, to);
      const std::int64_t dy = shift_within(ink.top, ink.bottom, o.height, rng);
      one = moved(one, to, dy, shift_within(ink.left, ink.right, o.width, rng));
    }
    pixels.insert(pixels.end(), one.begin(), one.end());
    labels.push_back(set.label(image));
  }
  return ImageSet(to, std::move(pixels), std::move(labels), set.class_names());
}

ImageSet noise_images(std::int64_t n, const Shape& image, std::uint64_t seed) {
  require(n >= 1, "noise_images", fmt::format("at least one image; got {}", n));
  require(
      image.rank() == 3 && image.numel() >= 1 && n <= (std::int64_t{1} << 40) / image.numel(),
      "noise_images",
      fmt::format("images [C, H, W], not empty, at most 2^40 bytes; got {} of {}", n, image.str()));
  Rng rng(seed);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(n * image.numel()));
  for (std::uint8_t& p : pixels) p = static_cast<std::uint8_t>(rng.next());
  return ImageSet(image, std::move(pixels), std::vector<std::int64_t>(static_cast<std::size_t>(n)),
                  {"noise"});
}

}  // namespace capsfw
