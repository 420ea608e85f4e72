#include <capsfw/data/cifar.hpp>

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/resolve.hpp>
#include <capsfw/data/text.hpp>

#include "detail/byte_source.hpp"

namespace capsfw {
namespace {

constexpr std::int64_t kSide = 32, kImage = 3 * kSide * kSide;
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 32;

/// The lines of a file with the names of the classes; `usual` without such a file.
std::vector<std::string> names_in(const std::filesystem::path& folder,
                                  const char* file,
                                  std::vector<std::string> usual) {
  const auto path = find_file(folder, file);
  if (path.empty()) return usual;
  if (path.extension() == ".gz")
    throw IoError(fmt::format("'{}': must be unpacked. Hint: gunzip it", path.string()));
  std::vector<std::string> names;
  for (const std::string& line : read_lines(path)) {
    if (!is_printable(line))
      throw IoError(fmt::format("'{}': names must not have control characters; got '{}'",
                                path.string(), shown(line)));
    if (!line.empty()) names.push_back(line);
  }
  if (names.size() != usual.size())
    throw IoError(fmt::format("'{}': must name {} classes, one a line; got {}", path.string(),
                              usual.size(), names.size()));
  return names;
}

std::vector<std::filesystem::path> find_files(const std::filesystem::path& folder,
                                              const std::vector<std::string>& names) {
  std::vector<std::filesystem::path> out;
  for (const std::string& name : names) out.push_back(find_file(folder, name));
  return out;
}

}  // namespace

ImageSet load_cifar_files(const std::vector<std::filesystem::path>& files,
                          int label_bytes,
                          std::vector<std::string> class_names) {
  if (label_bytes < 1 || label_bytes > 8 || files.empty())
    throw ValueError(fmt::format("load_cifar_files: 1 to 8 label bytes and a file; got {} and {}",
                                 label_bytes, files.size()));
  const std::int64_t record = label_bytes + kImage;
  std::vector<std::uint8_t> pixels, bytes;
  std::vector<std::int64_t> labels;
  for (const auto& path : files) {
    const auto fail = [&](const std::string& rule) {
      throw IoError(fmt::format("load_cifar_files: '{}': {}", path.string(), rule));
    };
    bytes.clear();
    detail::ByteSource source("load_cifar_files", path);
    const std::int64_t room = kMaxBytes - static_cast<std::int64_t>(pixels.size());
    const auto n = static_cast<std::int64_t>(source.append(bytes, static_cast<std::size_t>(room)));
    if (n == room && !source.at_end())
      fail(fmt::format("the images must fit into {} bytes", kMaxBytes));
    if (n == 0 || n % record != 0)
      fail(
          fmt::format("must be a whole number of records of {} bytes, at least one; got {} bytes. "
                      "Hint: is it complete, and the binary version?",
                      record, n));
    for (std::int64_t at = 0; at < n; at += record) {
      const std::uint8_t label = bytes[static_cast<std::size_t>(at + label_bytes - 1)];
      if (label >= class_names.size())
        fail(fmt::format("labels must lie in [0, {}); got {} in record {}", class_names.size(),
                         label, at / record));
      labels.push_back(label);
      const auto image = bytes.begin() + at + label_bytes;
      pixels.insert(pixels.end(), image, image + kImage);
    }
  }
  return ImageSet({3, kSide, kSide}, std::move(pixels), std::move(labels), std::move(class_names));
}

ImageSet load_cifar10(Split split) {
  const std::vector<std::string> train{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                       "data_batch_4.bin", "data_batch_5.bin"};
  const std::vector<std::string> test{"test_batch.bin"};
  std::vector<std::string> all = train;
  all.push_back(test[0]);  // a missing test set must not show after the training
  const auto folder = resolve_dataset("cifar10", all);
  return load_cifar_files(find_files(folder, split == Split::train ? train : test), 1,
                          names_in(folder, "batches.meta.txt",
                                   {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog",
                                    "horse", "ship", "truck"}));
}

ImageSet load_cifar100(Split split) {
  const auto folder = resolve_dataset("cifar100", {"train.bin", "test.bin"});
  return load_cifar_files(find_files(folder, {split == Split::train ? "train.bin" : "test.bin"}), 2,
                          names_in(folder, "fine_label_names.txt", detail::numbered_classes(100)));
}

}  // namespace capsfw
