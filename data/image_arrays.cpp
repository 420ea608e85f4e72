#include <capsfw/data/image_arrays.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/csv.hpp>
#include <capsfw/data/npy.hpp>
#include <capsfw/data/split.hpp>

namespace capsfw {
namespace {

constexpr std::int64_t kMaxClasses = 65536;

/// [N, C, H, W] as a view of what image_set() takes.
Tensor channels_first(const Tensor& x) {
  const Shape& s = x.shape();
  const Strides st = x.strides();
  if (s.rank() == 3)
    return strided_view(x, {s[0], 1, s[1], s[2]}, {st[0], 0, st[1], st[2]}, x.offset());
  if (s.rank() == 4 && (s[3] == 1 || s[3] == 3) && (s[1] < 1 || s[1] > 4))
    return strided_view(x, {s[0], s[3], s[1], s[2]}, {st[0], st[3], st[1], st[2]}, x.offset());
  return x;
}

/// The byte of a value; ValueError where it has none.
template <class T>
std::uint8_t byte_of(T v, std::int64_t i) {
  constexpr double kLargest = std::is_floating_point_v<T> ? 1 : 255;
  const auto value = static_cast<double>(v);
  if (!(value >= 0 && value <= kLargest))
    throw ValueError(fmt::format("image_set: {} images must lie in [0, {}]; got {} in image {}",
                                 std::is_floating_point_v<T> ? "f32 and f64" : "i64", kLargest,
                                 value, i));
  return static_cast<std::uint8_t>(std::lround(value * (255 / kLargest)));
}

std::vector<std::int64_t> numbers(const Tensor& labels, std::int64_t n) {
  const Shape& s = labels.shape();
  if (labels.dtype() != DType::i64)
    throw DTypeError(fmt::format("image_set: labels must be i64; got {}", name_of(labels.dtype())));
  if (s != Shape{n} && s != Shape{n, 1})
    throw ShapeError(
        fmt::format("image_set: {} images need as many labels, [N] or [N, 1]; got {}", n, s.str()));
  return labels.to_vector<std::int64_t>();
}

/// The classes that labels ask for; ValueError if that is no sensible number.
std::int64_t classes_of(const std::vector<std::int64_t>& labels) {
  const auto [least, most] = std::minmax_element(labels.begin(), labels.end());
  if (*least < 0 || *most >= kMaxClasses)
    throw ValueError(fmt::format("image_set: labels must lie in [0, {}); got {} to {}", kMaxClasses,
                                 *least, *most));
  return *most + 1;
}

/// `f`, with the name of the file in front of what it finds wrong.
template <class F>
auto in_file(const char* who, const std::filesystem::path& path, const F& f) {
  try {
    return f();
  } catch (const IoError&) {
    throw;
  } catch (const Error& e) {
    throw IoError(fmt::format("{}: '{}': {}", who, path.string(), e.what()));
  }
}

ImageSet part_of(const ImageSet& set, Split split, const ImageArrayOptions& o) {
  const SplitParts parts =
      stratified_hold_out(set.labels().to_vector<std::int64_t>(), o.test_share, o.seed);
  const auto& positions = split == Split::train ? parts.train : parts.test;
  if (positions.empty())
    throw ValueError(fmt::format("none of the {} images is left for the test", set.size()));
  return set.subset(positions);
}

}  // namespace

ImageSet image_set(const Tensor& images, const Tensor& labels, std::int64_t classes) {
  if (images.dtype() == DType::b8)
    throw DTypeError("image_set: images must be i64, f32 or f64; got b8");
  const Shape& given = images.shape();
  if ((given.rank() != 3 && given.rank() != 4) || given.numel() == 0)
    throw ShapeError(fmt::format(
        "image_set: images must be [N, H, W], [N, C, H, W] or [N, H, W, C], not empty; got {}",
        given.str()));
  std::vector<std::int64_t> list = numbers(labels, given[0]);
  if (classes < 0 || classes > kMaxClasses)
    throw ValueError(
        fmt::format("image_set: classes must lie in [0, {}]; got {}", kMaxClasses, classes));
  const std::int64_t needed = classes_of(list);
  if (classes == 0) classes = needed;
  const Tensor x = contiguous_data(channels_first(images));
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(x.numel()));
  const std::int64_t each = x.numel() / x.size(0);
  visit_any(x.dtype(), [&]<class T>() {
    if constexpr (!std::is_same_v<T, bool>) {
      const T* in = x.data<T>();
      for (std::int64_t i = 0; i < x.numel(); ++i)
        pixels[static_cast<std::size_t>(i)] = byte_of(in[i], i / each);
    }
  });
  return ImageSet({x.size(1), x.size(2), x.size(3)}, std::move(pixels), std::move(list),
                  detail::numbered_classes(classes));
}

ImageSet load_npz_images(const std::filesystem::path& path,
                         Split split,
                         const ImageArrayOptions& options) {
  const StateDict arrays = load_npz(path);
  const bool train = split == Split::train;
  return in_file("load_npz_images", path, [&] {
    if (arrays.contains("images") && arrays.contains("labels"))
      return part_of(image_set(arrays.at("images"), arrays.at("labels")), split, options);
    const std::pair<const char*, const char*> names[][2] = {
        {{"train_images", "train_labels"}, {"test_images", "test_labels"}},
        {{"x_train", "y_train"}, {"x_test", "y_test"}}};
    for (const auto& parts : names) {
      if (!std::all_of(std::begin(parts), std::end(parts), [&](const auto& p) {
            return arrays.contains(p.first) && arrays.contains(p.second);
          }))
        continue;
      std::int64_t classes = 0;
      for (const auto& p : parts)
        if (const Tensor& y = arrays.at(p.second); y.dtype() == DType::i64 && y.numel() > 0)
          classes = std::max(classes, classes_of(y.to_vector<std::int64_t>()));
      const auto& mine = parts[train ? 0 : 1];
      return image_set(arrays.at(mine.first), arrays.at(mine.second), classes);
    }
    throw ValueError(
        "must hold the arrays images and labels, or train_images, train_labels, test_images and "
        "test_labels, or x_train, y_train, x_test and y_test");
  });
}

ImageSet load_csv_images(const std::filesystem::path& path,
                         const Shape& image,
                         Split split,
                         const ImageArrayOptions& options) {
  if (image.rank() != 3 || std::any_of(image.begin(), image.end(), [](auto n) { return n < 1; }))
    throw ShapeError(
        fmt::format("load_csv_images: an image is [channels, height, width]; got {}", image.str()));
  const CsvTable table = load_csv(path);
  return in_file("load_csv_images", path, [&] {
    const std::int64_t rows = table.values.size(0), columns = table.values.size(1),
                       each = image.numel();
    if (columns != each + 1)
      throw ValueError(
          fmt::format("images {} need a label and {} values on each line; got {} "
                      "columns",
                      image.str(), each, columns));
    const auto named = std::find(table.names.begin(), table.names.end(), "label");
    const std::int64_t label = named == table.names.end() ? 0 : named - table.names.begin();
    const double* in = table.values.data<double>();
    std::vector<std::uint8_t> pixels;
    pixels.reserve(static_cast<std::size_t>(rows * each));
    std::vector<std::int64_t> labels;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c, ++in) {
        if (*in != std::floor(*in) || !(*in >= 0 && *in < (c == label ? kMaxClasses : 256)))
          throw ValueError(
              fmt::format("row {}, column {}: must be a whole number in [0, {}); got {}", r + 1,
                          c + 1, c == label ? kMaxClasses : 256, *in));
        if (c == label)
          labels.push_back(static_cast<std::int64_t>(*in));
        else
          pixels.push_back(static_cast<std::uint8_t>(*in));
      }
    const std::int64_t classes = classes_of(labels);
    return part_of(
        ImageSet(image, std::move(pixels), std::move(labels), detail::numbered_classes(classes)),
        split, options);
  });
}

}  // namespace capsfw
