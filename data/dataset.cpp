#include <capsfw/data/dataset.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/data/idx.hpp>
#include <capsfw/data/resolve.hpp>

namespace capsfw {
namespace {

std::vector<std::string> class_names_of(std::string_view name) {
  if (name == "fashion-mnist")
    return {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
  return detail::numbered_classes(10);
}

IdxArray read_bytes(const std::filesystem::path& path, const char* what) {
  IdxArray array = read_idx(path);
  if (array.type != IdxType::u8)
    throw IoError(fmt::format("{} '{}': the elements must be bytes (type 8); got type {}", what,
                              path.string(), static_cast<int>(array.type)));
  return array;
}

}  // namespace

void detail::to_unit(const std::uint8_t* bytes, std::int64_t n, float* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = static_cast<float>(bytes[i]) / 255.0f;
}

void detail::to_bytes(const float* in, std::int64_t n, std::uint8_t* bytes) {
  for (std::int64_t i = 0; i < n; ++i)
    bytes[i] = static_cast<std::uint8_t>(std::lround(std::min(std::max(0.0f, in[i]), 1.0f) * 255));
}

std::vector<std::string> detail::numbered_classes(std::int64_t n) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < n; ++i) names.push_back(std::to_string(i));
  return names;
}

ImageSet::ImageSet(const Shape& image,
                   std::vector<std::uint8_t> pixels,
                   std::vector<std::int64_t> labels,
                   std::vector<std::string> class_names)
    : image_(image), class_names_(std::move(class_names)) {
  if (image.rank() != 3 || std::any_of(image.begin(), image.end(), [](auto n) { return n < 1; }))
    throw ShapeError(
        fmt::format("ImageSet: an image is [channels, height, width]; got {}", image.str()));
  const auto each = static_cast<std::size_t>(image.numel());
  if (pixels.size() % each != 0 || pixels.size() / each != labels.size())
    throw ShapeError(
        fmt::format("ImageSet: {} labels with images {} need as many times {} bytes; "
                    "got {}",
                    labels.size(), image.str(), each, pixels.size()));
  for (std::size_t i = 0; i < labels.size(); ++i)
    if (labels[i] < 0 || labels[i] >= classes())
      throw ValueError(fmt::format("ImageSet: labels must lie in [0, {}); got {} for image {}",
                                   classes(), labels[i], i));
  index_.resize(labels.size());
  std::iota(index_.begin(), index_.end(), 0);
  pixels_ = std::make_shared<const std::vector<std::uint8_t>>(std::move(pixels));
  labels_ = std::make_shared<const std::vector<std::int64_t>>(std::move(labels));
}

const std::uint8_t* ImageSet::pixels(std::int64_t i) const {
  return pixels_->data() + index_[static_cast<std::size_t>(i)] * image_.numel();
}

std::int64_t ImageSet::label(std::int64_t i) const {
  return (*labels_)[static_cast<std::size_t>(index_[static_cast<std::size_t>(i)])];
}

void ImageSet::check_range(const char* who, std::int64_t begin, std::int64_t end) const {
  if (begin < 0 || end < begin || end > size())
    throw ValueError(fmt::format("ImageSet::{}: 0 <= begin <= end <= {}; got begin = {}, end = {}",
                                 who, size(), begin, end));
}

Tensor ImageSet::images(std::int64_t begin, std::int64_t end) const {
  check_range("images", begin, end);
  Tensor y = empty({end - begin, image_[0], image_[1], image_[2]});
  float* out = y.mutable_data<float>();
  const std::int64_t each = image_.numel();
  for (std::int64_t i = begin; i < end; ++i, out += each) detail::to_unit(pixels(i), each, out);
  return y;
}

Tensor ImageSet::labels() const {
  std::vector<std::int64_t> all;
  all.reserve(index_.size());
  for (std::int64_t i = 0; i < size(); ++i) all.push_back(label(i));
  return from_vector(all);
}

ImageSet ImageSet::subset(const std::vector<std::int64_t>& positions) const {
  ImageSet out = *this;
  out.index_.clear();
  out.index_.reserve(positions.size());
  for (std::int64_t p : positions) {
    if (p < 0 || p >= size())
      throw ValueError(
          fmt::format("ImageSet::subset: positions must lie in [0, {}); got {}", size(), p));
    out.index_.push_back(index_[static_cast<std::size_t>(p)]);
  }
  return out;
}

ImageSet ImageSet::range(std::int64_t begin, std::int64_t end) const {
  check_range("range", begin, end);
  ImageSet out = *this;
  out.index_.assign(index_.begin() + begin, index_.begin() + end);
  return out;
}

HeldOut hold_out(const ImageSet& set, std::int64_t n, std::optional<std::uint64_t> seed) {
  const std::int64_t size = set.size();
  if (n < 0 || n >= size)
    throw ValueError(fmt::format(
        "hold_out: 0 <= n < {}, so that images to train on remain; got n = {}", size, n));
  if (!seed) return {set.range(0, size - n), set.range(size - n, size)};
  auto order = Rng(*seed).permutation(size).to_vector<std::int64_t>();
  const auto middle = order.begin() + (size - n);
  std::sort(order.begin(), middle);
  std::sort(middle, order.end());
  return {set.subset({order.begin(), middle}), set.subset({middle, order.end()})};
}

ImageSet convert_images(const ImageSet& set, const ImageFormat& f) {
  const Shape& from = set.image_shape();
  if ((f.height == 0) != (f.width == 0) || f.height < 0 || f.width < 0)
    throw ValueError(
        fmt::format("convert_images: height and width must both be at least 1, or both 0; got {} "
                    "and {}",
                    f.height, f.width));
  if (set.size() == 0) return set;
  const Shape to{f.channels == 0 ? from[0] : f.channels, f.height == 0 ? from[1] : f.height,
                 f.width == 0 ? from[2] : f.width};
  if (to == from) return set;
  if (to[0] != from[0] && (std::min(to[0], from[0]) != 1 || std::max(to[0], from[0]) != 3))
    throw ValueError(
        fmt::format("convert_images: images {} cannot have {} channels; only 1 and 3 "
                    "become each other",
                    from.str(), to[0]));
  constexpr std::int64_t kMax = std::int64_t{1} << 40;
  if (to[1] > kMax / to[2] / to[0] / set.size())
    throw ValueError(
        fmt::format("convert_images: {} images {} are more than 2^40 bytes", set.size(), to.str()));
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(set.size() * to.numel()));
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < set.size(); ++i) {
    Tensor x = empty(from);
    detail::to_unit(set.pixels(i), from.numel(), x.mutable_data<float>());
    const Tensor y = fit_image(with_channels(x, to[0]), to[1], to[2], f.fit);
    detail::to_bytes(y.data<float>(), to.numel(), pixels.data() + i * to.numel());
    labels.push_back(set.label(i));
  }
  return ImageSet(to, std::move(pixels), std::move(labels), set.class_names());
}

ImageSet load_idx_images(const std::filesystem::path& images,
                         const std::filesystem::path& labels,
                         std::vector<std::string> class_names) {
  IdxArray x = read_bytes(images, "images");
  const IdxArray y = read_bytes(labels, "labels");
  const int rank = x.shape.rank();
  if ((rank != 3 && rank != 4) || x.shape.numel() == 0)
    throw IoError(
        fmt::format("images '{}': must be [N, H, W] or [N, C, H, W], and not empty; got {}",
                    images.string(), x.shape.str()));
  if (y.shape.rank() != 1)
    throw IoError(fmt::format("labels '{}': must be [N]; got {}", labels.string(), y.shape.str()));
  if (y.shape[0] != x.shape[0])
    throw IoError(fmt::format("images '{}', labels '{}': the counts must be equal; got {} and {}",
                              images.string(), labels.string(), x.shape[0], y.shape[0]));
  for (std::size_t i = 0; i < y.bytes.size(); ++i)
    if (y.bytes[i] >= class_names.size())
      throw IoError(fmt::format("labels '{}': must lie in [0, {}); got {} for image {}",
                                labels.string(), class_names.size(), y.bytes[i], i));
  const Shape image =
      rank == 3 ? Shape{1, x.shape[1], x.shape[2]} : Shape{x.shape[1], x.shape[2], x.shape[3]};
  return ImageSet(image, std::move(x.bytes), {y.bytes.begin(), y.bytes.end()},
                  std::move(class_names));
}

ImageSet load_mnist_like(std::string_view name, Split split) {
  // All four are asked for: a missing test set must not show after the training.
  const std::vector<std::string> files{"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                       "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
  const auto folder = resolve_dataset(name, files);
  const std::size_t first = split == Split::train ? 0 : 2;
  return load_idx_images(find_file(folder, files[first]), find_file(folder, files[first + 1]),
                         class_names_of(name));
}

}  // namespace capsfw
