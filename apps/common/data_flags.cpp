#include "common/data_flags.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include <capsfw/data/cifar.hpp>
#include <capsfw/data/image_arrays.hpp>
#include <capsfw/data/image_folder.hpp>
#include <capsfw/data/small_norb.hpp>
#include <capsfw/data/split.hpp>
#include <capsfw/data/synthetic.hpp>

namespace capsfw::apps {
namespace {

namespace fs = std::filesystem;

struct PublicSet {
  const char *name, *title;
};
constexpr PublicSet kPublic[] = {{"mnist", "MNIST"},
                                 {"mnist-affine", "MNIST, affine maps never seen"},
                                 {"fashion-mnist", "Fashion-MNIST"},
                                 {"cifar10", "CIFAR-10"},
                                 {"cifar100", "CIFAR-100"},
                                 {"smallnorb", "smallNORB"},
                                 {"smallnorb-azimuth", "smallNORB, azimuths never seen"},
                                 {"smallnorb-elevation", "smallNORB, elevations never seen"}};

const PublicSet* public_set(const std::string& data) {
  const auto* found = std::find_if(std::begin(kPublic), std::end(kPublic),
                                   [&](const PublicSet& s) { return data == s.name; });
  return found == std::end(kPublic) ? nullptr : found;
}

void check_data(const std::string& data) {
  std::error_code ignored;
  const std::string ending = fs::path(data).extension().string();
  if (public_set(data) != nullptr || fs::is_directory(data, ignored) ||
      (fs::exists(data, ignored) && (ending == ".npz" || ending == ".csv")))
    return;
  std::string names;
  for (const PublicSet& s : kPublic) names += std::string(s.name) + ", ";
  throw ValueError(fmt::format(
      "must be {}a folder with a folder of images for each class, or a .npz or .csv file; got '{}'",
      names, data));
}

/// "32x24" or "32", for 32 x 32.
std::pair<std::int64_t, std::int64_t> parse_size(const std::string& text) {
  constexpr std::int64_t kMax = 4096;
  std::int64_t sides[2] = {0, 0};
  const std::size_t cross = std::min(text.find('x'), text.size());
  const std::string_view all = text, parts[] = {all.substr(0, cross),
                                                cross == text.size() ? all : all.substr(cross + 1)};
  for (int k = 0; k < 2; ++k) {
    const char* end = parts[k].data() + parts[k].size();
    const auto got = std::from_chars(parts[k].data(), end, sides[k]);
    if (got.ec != std::errc() || got.ptr != end || sides[k] < 1 || sides[k] > kMax)
      throw ValueError(fmt::format(
          "must be HEIGHTxWIDTH or one number for both, from 1 to {}; got '{}'", kMax, text));
  }
  return {sides[0], sides[1]};
}

}  // namespace

void DataFlags::add_source(Args& args) {
  args_ = &args;
  args.add("--data NAME|PATH", data,
           "mnist, mnist-affine (somewhere on 40x40 pixels; tested on turned, scaled and sheared "
           "digits), fashion-mnist, cifar10, cifar100, smallnorb (-azimuth, -elevation: tested on "
           "viewpoints never seen), a folder with a folder of images for each class, a .npz or a "
           ".csv file",
           check_data)
      .add("--size HxW", size, "bring images to this size",
           [](const std::string& text) {
             if (!text.empty()) parse_size(text);
           })
      .add("--channels N", channels,
           "bring images to 1 (grey) or 3 (colour) channels; 0: as they are", {.min = 0, .max = 3})
      .choice("--fit", fit, {"crop", "stretch"},
              "images of other proportions than --size: cut the surplus evenly, or change the "
              "proportions")
      .add("--skip-broken", skip_broken, "leave out image files of a folder that cannot be read");
}

void DataFlags::add_data(Args& args) {
  args.section("Data");
  add_source(args);
  args.add("--val N", val,
           "training images held out to choose the epoch; by default at most a tenth",
           {.min = 0, .max = 50000})
      .add("--shift N", shift, "random shifts of training images, in pixels", {.min = 0, .max = 8})
      .add("--rotate X", rotate, "random rotations of training images, in degrees",
           {.min = 0, .max = 180})
      .add("--zoom X", zoom, "random magnification of training images, 1 - X to 1 + X",
           {.min = 0, .below = 1})
      .add("--shear X", shear, "random shear of training images, in columns per row", {.min = 0})
      .add("--elastic X", elastic,
           "random elastic distortions of training images: α of Simard et al. 2003 (34 there, with "
           "σ = 4 pixels as here)",
           {.min = 0, .max = 1000})
      .add("--flip", flip, "mirror training images at random, left to right")
      .add("--crop N", crop, "random crops of training images with N zeros around them",
           {.min = 0, .max = 256})
      .add("--cutout N", cutout, "blacken a random square of N pixels in each training image",
           {.min = 0, .max = 4096});
}

ImageFormat DataFlags::format() const {
  if (channels == 2) throw UsageError("--channels: must be 0, 1 or 3; got 2");
  if (args_ != nullptr) {
    const fs::path ending = fs::path(data).extension();
    const bool csv = own_data() && ending == ".csv",
               folder = own_data() && !csv && ending != ".npz";
    args_->refuse_idle(csv, "not of a .csv file, whose images are of --size. Hint: no --fit",
                       {"--fit"});
    args_->refuse_idle(size.empty(), "of images brought to a --size. Hint: --size HxW", {"--fit"});
    args_->refuse_idle(
        !folder, fmt::format("of a folder of image files; --data is {}. Hint: --data FOLDER", data),
        {"--skip-broken"});
  }
  ImageFormat f{.channels = channels, .fit = fit == "stretch" ? Fit::stretch : Fit::crop};
  if (!size.empty()) std::tie(f.height, f.width) = parse_size(size);
  return f;
}

bool DataFlags::own_data() const { return public_set(data) == nullptr; }

std::string DataFlags::title() const {
  if (const PublicSet* known = public_set(data)) return known->title;
  const fs::path path = fs::path(data).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

Transform DataFlags::augmentation() const {
  Transform affine;
  if (rotate > 0 || zoom > 0 || shear > 0 || elastic > 0)
    affine = random_affine({.degrees = rotate, .scale = zoom, .shear = shear, .elastic = elastic});
  return compose({flip ? random_flip() : Transform(), crop > 0 ? random_crop(crop) : Transform(),
                  affine, cutout > 0 ? capsfw::cutout(cutout) : Transform()});
}

namespace {

/// smallNORB as it is published, or the parts of novel_viewpoints: trained on a third, tested on
/// viewpoints that were not in it.
ImageSet small_norb(const DataFlags& f, Split split) {
  const Cameras cameras = f.channels == 0 ? Cameras::both : Cameras::left;
  if (f.data == "smallnorb") return load_small_norb(split, cameras).images;
  const ViewpointSplit parts = novel_viewpoints(
      load_small_norb(Split::train, cameras), load_small_norb(Split::test, cameras),
      f.data == "smallnorb-azimuth" ? NovelViewpoints::azimuth : NovelViewpoints::elevation);
  return split == Split::train ? parts.train : parts.novel;
}

/// Digits moved about on a larger canvas, and test digits that are turned, scaled and sheared, too.
/// Sabour et al. 2017, section 5.2.
ImageSet affine_mnist(Split split) {
  const ImageSet set = load_mnist_like("mnist", split);
  return split == Split::train ? affine_digits(set, {.degrees = 0, .scale = 0, .shear = 0})
                               : affine_digits(set);
}

}  // namespace

ImageSet load_images(const DataFlags& f, Split split) {
  const ImageFormat format = f.format();
  const auto converted = [&](const ImageSet& set) { return convert_images(set, format); };
  if (f.data == "cifar10") return converted(load_cifar10(split));
  if (f.data == "cifar100") return converted(load_cifar100(split));
  if (f.data == "mnist-affine") return converted(affine_mnist(split));
  if (f.data.starts_with("smallnorb") && !f.own_data()) return converted(small_norb(f, split));
  if (!f.own_data()) return converted(load_mnist_like(f.data, split));
  const fs::path path = f.data;
  if (path.extension() == ".npz") return converted(load_npz_images(path, split));
  if (path.extension() == ".csv") {
    if (format.height == 0)
      throw UsageError("--size: a .csv file does not say the size of its images; give HxW");
    return load_csv_images(path, {std::max(format.channels, 1), format.height, format.width},
                           split);
  }
  const ImageFolder read =
      load_image_folder(path, split, {.format = format, .skip_broken = f.skip_broken});
  if (!read.skipped.empty())
    fmt::print(stderr,
               "warning: {} of {} image files cannot be read and are left out; the first "
               "one is {}\n",
               read.skipped.size(), read.skipped.size() + static_cast<std::size_t>(read.set.size()),
               read.skipped[0].string());
  return read.set;
}

ImageSet some_images(const DataFlags& f, const ImageSet& set, std::int64_t n, std::uint64_t seed) {
  n = std::min(n, set.size());
  if (!f.own_data()) return set.range(0, n);
  auto order = Rng(seed).permutation(set.size()).to_vector<std::int64_t>();
  order.resize(static_cast<std::size_t>(n));
  return set.subset(order);
}

ImageSet load_test(const DataFlags& f, const ImageSet& train) {
  ImageSet test = load_images(f, Split::test);
  if (test.image_shape() != train.image_shape())
    throw ValueError(fmt::format("--size: test images are {}, training images {}; give a size",
                                 test.image_shape().str(), train.image_shape().str()));
  return test;
}

HeldOut load_training(const DataFlags& f) {
  const ImageSet set = load_images(f, Split::train);
  const bool given = f.args_ != nullptr && f.args_->given("--val");
  const std::int64_t n = given ? f.val : std::min(f.val, set.size() / 10);
  if (!f.own_data() || n == 0 || n >= set.size()) return hold_out(set, n);
  // Files come class by class: the last ones would be of one class.
  const SplitParts parts =
      stratified_hold_out(set.labels().to_vector<std::int64_t>(),
                          static_cast<double>(n) / static_cast<double>(set.size()));
  return {set.subset(parts.train), set.subset(parts.test)};
}

}  // namespace capsfw::apps
