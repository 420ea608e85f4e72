// Targets: sets of images. What was read must be a set: images of one shape, labels with a name.

#include <stdexcept>
#include <string>

#include <capsfw/data/cifar.hpp>
#include <capsfw/data/image_arrays.hpp>
#include <capsfw/data/image_folder.hpp>
#include <capsfw/data/small_norb.hpp>

#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

void look_at(const ImageSet& set) {
  const auto classes = static_cast<std::int64_t>(set.class_names().size());
  if (set.size() == 0) throw std::runtime_error("an empty set");
  unsigned sum = 0;
  for (std::int64_t i = 0; i < set.size(); ++i) {
    if (set.label(i) < 0 || set.label(i) >= classes) throw std::runtime_error("labels are classes");
    for (std::int64_t k = 0; k < set.image_shape().numel(); ++k) sum += set.pixels(i)[k];
  }
  if (sum > 255u * static_cast<unsigned>(set.size() * set.image_shape().numel()))
    throw std::runtime_error("more than white");
}

Split split_of(Bytes file) { return file.size() % 2 == 0 ? Split::train : Split::test; }

}  // namespace

bool idximages(Bytes file) {
  const std::vector<Bytes> p = parts(file);
  if (p.size() < 2) return false;
  return with_folder({{"images", p[0]}, {"labels", p[1]}}, [](const std::filesystem::path& at) {
    const ImageSet set =
        load_idx_images(at / "images", at / "labels", detail::numbered_classes(10));
    look_at(set);
    if (set.images(0, 1).shape().rank() != 4) throw std::runtime_error("not an image");
  });
}

bool cifar(Bytes file) {
  if (file.empty()) return false;
  const int label_bytes = 1 + file[0] % 2;
  return with_file(file.subspan(1), [&](const std::filesystem::path& path) {
    look_at(load_cifar_files({path}, label_bytes, detail::numbered_classes(10)));
  });
}

bool norb(Bytes file) {
  if (file.empty()) return false;
  const auto cameras = static_cast<Cameras>(file[0] % 3);
  if (file[0] % 4 == 3)
    return with_file(file.subspan(1), [&](const std::filesystem::path& path) {
      const NorbMatrix m = read_norb_matrix(path);
      const std::int64_t n = m.shape.numel();
      if (n > 0 ? m.bytes.size() % static_cast<std::size_t>(n) != 0 : !m.bytes.empty())
        throw std::runtime_error("elements do not fit the shape");
    });
  const std::vector<Bytes> p = parts(file.subspan(1));
  if (p.size() < 3) return false;
  return with_folder(
      {{"dat", p[0]}, {"cat", p[1]}, {"info", p[2]}}, [&](const std::filesystem::path& at) {
        const SmallNorb set = load_norb_files(at / "dat", at / "cat", at / "info", cameras);
        look_at(set.images);
        if (static_cast<std::int64_t>(set.views.size()) != set.images.size())
          throw std::runtime_error("a viewpoint for each image");
      });
}

bool npzimages(Bytes file) {
  return with_file(file, [&](const std::filesystem::path& path) {
    look_at(load_npz_images(path, split_of(file), {.test_share = 0.5}));
  });
}

bool csvimages(Bytes file) {
  return with_file(file, [&](const std::filesystem::path& path) {
    look_at(load_csv_images(path, {1, 2, 2}, split_of(file), {.test_share = 0.5}));
  });
}

bool folder(Bytes file) {
  const std::vector<Bytes> p = parts(file);
  std::vector<NamedBytes> files;
  for (std::size_t i = 0; i + 1 < p.size(); i += 2)
    files.emplace_back(std::string(p[i].begin(), p[i].end()), p[i + 1]);
  return with_folder(files, [&](const std::filesystem::path& at) {
    ImageFolderOptions options{.test_share = 0.5, .max_bytes = 1 << 26};
    if (files.size() % 2 == 0) options.format = {.height = 4, .width = 5, .channels = 3};
    options.skip_broken = files.size() % 3 == 0;
    try {
      look_at(load_image_folder(at, split_of(file), options).set);
    } catch (const ValueError&) {
      if (!options.skip_broken) throw;  // where every picture was skipped
    }
  });
}

}  // namespace capsfw::fuzz
