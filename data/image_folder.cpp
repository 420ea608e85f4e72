#include <capsfw/data/image_folder.hpp>

#include <algorithm>
#include <cctype>
#include <optional>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/split.hpp>
#include <capsfw/data/text.hpp>

namespace capsfw {
namespace {

namespace fs = std::filesystem;

/// The files of a folder with their classes; nothing is read yet.
struct Listing {
  std::vector<std::string> classes;
  std::vector<fs::path> files;
  std::vector<std::int64_t> labels;
};

[[noreturn]] void fail(const fs::path& path, const std::string& rule) {
  throw IoError(fmt::format("load_image_folder: '{}': {}", path.string(), rule));
}

bool hidden(const fs::path& path) { return path.filename().string().starts_with('.'); }

bool has_extension(const fs::path& path, const std::vector<std::string>& extensions) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return std::find(extensions.begin(), extensions.end(), extension) != extensions.end();
}

/// Entries of a folder that are not hidden, by name.
std::vector<fs::path> entries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> out;
  fs::directory_iterator it(folder, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    if (hidden(it->path())) continue;
    out.push_back(it->path());
    // Names become names of classes and parts of messages.
    if (const std::string name = out.back().filename().string(); !is_printable(name))
      fail(folder, fmt::format("names must be UTF-8 without control characters; got '{}'",
                               shown(name, 255)));
  }
  if (error) fail(folder, fmt::format("cannot be listed: {}", error.message()));
  std::sort(out.begin(), out.end());
  return out;
}

/// Appends the images in `folder` and below.
void collect(const fs::path& folder, const ImageFolderOptions& o, std::vector<fs::path>& files) {
  std::error_code ignored;
  for (const fs::path& path : entries(folder)) {
    if (fs::is_directory(fs::symlink_status(path, ignored)))
      collect(path, o, files);
    else if (has_extension(path, o.extensions) && fs::is_regular_file(path, ignored))
      files.push_back(path);
  }
}

Listing list(const fs::path& folder, const ImageFolderOptions& o) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) fail(folder, "must be a folder");
  Listing out;
  for (const fs::path& path : entries(folder)) {
    if (!fs::is_directory(path, ignored)) continue;
    const std::size_t before = out.files.size();
    collect(path, o, out.files);
    if (out.files.size() == before)
      fail(path, fmt::format("a class must have an image ({}) in its folder",
                             fmt::join(o.extensions, ", ")));
    out.labels.resize(out.files.size(), static_cast<std::int64_t>(out.classes.size()));
    out.classes.push_back(path.filename().string());
  }
  if (out.classes.empty())
    fail(folder, "must have a folder for each class, with its images. Hint: CLASS/IMAGE.png");
  return out;
}

void check(const ImageFolderOptions& o) {
  const auto require = [](bool good, const std::string& rule) {
    if (!good) throw ValueError("load_image_folder: " + rule);
  };
  const ImageFormat& f = o.format;
  require((f.height == 0) == (f.width == 0) && f.height >= 0 && f.width >= 0,
          fmt::format("height and width must both be at least 1, or both 0; got {} and {}",
                      f.height, f.width));
  require(f.channels == 0 || f.channels == 1 || f.channels == 3,
          fmt::format("channels must be 0, 1 or 3; got {}", f.channels));
  require(!o.extensions.empty(), "extensions must not be empty");
  require(o.max_bytes > 0, fmt::format("max_bytes must be above 0; got {}", o.max_bytes));
}

/// Puts images into one block of bytes.
class Collector {
 public:
  Collector(const ImageFolderOptions& options, std::size_t count) : o_(options), count_(count) {}

  void add(const fs::path& path, Tensor x) {
    const ImageFormat& f = o_.format;
    if (f.height > 0) x = fit_image(x, f.height, f.width, f.fit);
    if (!shape_) start(path, x.shape());
    if (x.shape() != *shape_)
      fail(path, fmt::format("is {}, but '{}' is {}. Hint: choose the size (--size HxW) and the "
                             "channels (--channels 1 or 3) that all images are brought to",
                             x.shape().str(), first_.string(), shape_->str()));
    pixels_.resize(pixels_.size() + static_cast<std::size_t>(x.numel()));
    detail::to_bytes(x.data<float>(), x.numel(), pixels_.data() + pixels_.size() - x.numel());
  }

  const std::optional<Shape>& shape() const { return shape_; }
  std::vector<std::uint8_t> take() { return std::move(pixels_); }

 private:
  void start(const fs::path& path, const Shape& shape) {
    first_ = path;
    shape_ = shape;
    if (shape.numel() > o_.max_bytes / static_cast<std::int64_t>(count_))
      fail(path, fmt::format("{} images of {} are more than {} bytes. Hint: a smaller size "
                             "(--size HxW)",
                             count_, shape.str(), o_.max_bytes));
    pixels_.reserve(count_ * static_cast<std::size_t>(shape.numel()));
  }

  const ImageFolderOptions& o_;
  std::size_t count_;
  fs::path first_;
  std::optional<Shape> shape_;
  std::vector<std::uint8_t> pixels_;
};

ImageFolder read(const Listing& listing, const fs::path& folder, const ImageFolderOptions& o) {
  Collector images(o, listing.files.size());
  ImageFolder out;
  std::vector<std::int64_t> labels;
  for (std::size_t i = 0; i < listing.files.size(); ++i) {
    Tensor x;
    try {
      x = load_image(listing.files[i], {.channels = o.format.channels, .background = o.background});
    } catch (const IoError&) {
      if (!o.skip_broken) throw;
      out.skipped.push_back(listing.files[i]);
      continue;
    }
    images.add(listing.files[i], x);
    labels.push_back(listing.labels[i]);
  }
  if (labels.empty())
    throw ValueError(fmt::format("load_image_folder: '{}': none of the {} images can be read",
                                 folder.string(), listing.files.size()));
  out.set = ImageSet(*images.shape(), images.take(), std::move(labels), listing.classes);
  return out;
}

/// test/ with the numbers that the classes have in train/.
Listing renumbered(Listing test, const Listing& train, const fs::path& folder) {
  for (std::int64_t& label : test.labels) {
    const std::string& name = test.classes[static_cast<std::size_t>(label)];
    const auto at = std::find(train.classes.begin(), train.classes.end(), name);
    if (at == train.classes.end())
      fail(folder / name, fmt::format("is no class of the training part, which has {}",
                                      fmt::join(train.classes, ", ")));
    label = at - train.classes.begin();
  }
  test.classes = train.classes;
  return test;
}

}  // namespace

ImageFolder load_image_folder(const fs::path& folder, const ImageFolderOptions& options) {
  check(options);
  return read(list(folder, options), folder, options);
}

ImageFolder load_image_folder(const fs::path& folder,
                              Split split,
                              const ImageFolderOptions& options) {
  check(options);
  std::error_code ignored;
  const fs::path train = folder / "train", test = folder / "test";
  if (fs::is_directory(train, ignored) && fs::is_directory(test, ignored)) {
    const Listing classes = list(train, options);
    if (split == Split::train) return read(classes, train, options);
    return read(renumbered(list(test, options), classes, test), test, options);
  }
  Listing all = list(folder, options);
  const std::vector<std::string> parts_alone[] = {{"train"}, {"test"}};
  for (const auto& classes : parts_alone)
    if (all.classes == classes)
      fail(folder,
           fmt::format("has a folder {}/ alone; must have train/ and test/, or a folder for "
                       "each class",
                       classes[0]));
  const SplitParts parts = stratified_hold_out(all.labels, options.test_share, options.seed);
  const auto& positions = split == Split::train ? parts.train : parts.test;
  if (positions.empty())
    fail(folder, fmt::format("none of the {} images is left for the test. Hint: more images, or "
                             "folders train/ and test/",
                             all.files.size()));
  all.files = at_positions(all.files, positions);
  all.labels = at_positions(all.labels, positions);
  return read(all, folder, options);
}

}  // namespace capsfw
