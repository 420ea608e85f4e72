#include <capsfw/data/checkpoint.hpp>

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <string_view>
#include <system_error>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>

namespace capsfw {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "step-";
constexpr const char* kSuffix = ".safetensors";
constexpr const char* kFormat = "capsfw-checkpoint-1";
/// What save() adds to the metadata, and load() takes away again.
constexpr const char *kFormatKey = "checkpoint.format", *kStepKey = "checkpoint.step",
                     *kSumKey = "checkpoint.crc32";

/// "step-", ten digits, ".safetensors": copies under names of their own are the user's.
bool is_ours(const std::string& name) {
  constexpr std::size_t kDigits = 10;
  const std::string_view prefix = kPrefix, suffix = kSuffix;
  return name.size() == prefix.size() + kDigits + suffix.size() && name.starts_with(prefix) &&
         name.ends_with(suffix) &&
         std::all_of(name.begin() + static_cast<std::ptrdiff_t>(prefix.size()),
                     name.end() - static_cast<std::ptrdiff_t>(suffix.size()),
                     [](char c) { return c >= '0' && c <= '9'; });
}

/// CRC-32 of whatever it is given.
class Sum {
 public:
  void add(const void* data, std::size_t bytes) {
    value_ = ::crc32_z(value_, static_cast<const Bytef*>(data), bytes);
  }
  /// With its length: "ab", "c" is not "a", "bc".
  void add(const std::string& text) {
    const std::uint64_t n = text.size();
    add(&n, sizeof n);
    add(text.data(), text.size());
  }
  void add(const std::vector<std::int64_t>& v) {
    const std::uint64_t n = v.size();
    add(&n, sizeof n);
    add(v.data(), v.size() * sizeof(std::int64_t));
  }
  std::string str() const { return fmt::format("{:08x}", value_); }

 private:
  uLong value_ = ::crc32_z(0, nullptr, 0);
};

std::string sum_of(const StateDict& state, const Metadata& metadata) {
  Sum sum;
  for (const auto& [key, text] : metadata) {
    if (key == kSumKey) continue;
    sum.add(key);
    sum.add(text);
  }
  for (const auto& [name, value] : state) {
    sum.add(fmt::format("{} {} {}", name, name_of(value.dtype()), value.shape().str()));
    const Tensor x = contiguous_data(value);
    visit_any(x.dtype(), [&]<class T>() {
      sum.add(x.data<T>(), static_cast<std::size_t>(x.numel()) * sizeof(T));
    });
  }
  return sum.str();
}

fs::path file_of(const fs::path& folder, std::int64_t step) {
  return folder / fmt::format("{}{:010}{}", kPrefix, step, kSuffix);
}

Checkpoint read(const fs::path& path) {
  SafetensorsFile file = load_safetensors(path);
  const auto value = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  if (value(kFormatKey) != kFormat)
    throw IoError(
        fmt::format("checkpoint '{}': no checkpoint of this format ({})", path.string(), kFormat));
  if (value(kSumKey) != sum_of(file.state, file.metadata))
    throw IoError(fmt::format("checkpoint '{}': damaged: its checksum is another", path.string()));
  Checkpoint out{std::stoll(value(kStepKey)), std::move(file.state), std::move(file.metadata)};
  if (out.step < 0 || file_of(path.parent_path(), out.step) != path)
    throw IoError(fmt::format("checkpoint '{}': its name is not that of its step {}", path.string(),
                              out.step));
  for (const char* key : {kFormatKey, kStepKey, kSumKey}) out.metadata.erase(key);
  return out;
}

}  // namespace

CheckpointFolder::CheckpointFolder(fs::path folder, int keep)
    : folder_(std::move(folder)), keep_(keep) {
  if (keep < 1)
    throw ValueError(
        fmt::format("CheckpointFolder: at least one checkpoint must be kept; got {}", keep));
}

std::vector<fs::path> CheckpointFolder::files() const {
  std::vector<fs::path> found;
  std::error_code failed;
  fs::directory_iterator at(folder_, failed);
  if (failed == std::errc::no_such_file_or_directory) return found;
  for (; !failed && at != fs::directory_iterator(); at.increment(failed))
    if (is_ours(at->path().filename().string())) found.push_back(at->path());
  if (failed)
    throw IoError(fmt::format("checkpoint folder '{}': cannot be read: {}", folder_.string(),
                              failed.message()));
  std::sort(found.begin(), found.end());  // ten digits, so by step
  return found;
}

void CheckpointFolder::save(const Checkpoint& checkpoint) {
  if (checkpoint.step < 0 || checkpoint.step > 9'999'999'999)  // names have ten digits
    throw ValueError(
        fmt::format("CheckpointFolder: a step must be 0 to 9999999999; got {}", checkpoint.step));
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (failed)
    throw IoError(fmt::format("checkpoint folder '{}': cannot be made: {}", folder_.string(),
                              failed.message()));
  AtomicFile::remove_leftovers(folder_);
  Metadata metadata = checkpoint.metadata;
  metadata[kFormatKey] = kFormat;
  metadata[kStepKey] = fmt::to_string(checkpoint.step);
  metadata[kSumKey] = sum_of(checkpoint.state, metadata);
  const fs::path path = file_of(folder_, checkpoint.step);
  save_safetensors(path, checkpoint.state, metadata);
  // A file of a later step was damaged, or the run went back behind it: this one is the newest.
  std::vector<fs::path> all;
  try {
    all = files();
  } catch (const IoError&) {  // saved it is; the older ones stay
    return;
  }
  const auto newest = std::find(all.begin(), all.end(), path) - all.begin();
  for (std::size_t i = 0; i < all.size(); ++i)
    if (const auto age = newest - static_cast<std::ptrdiff_t>(i); age < 0 || age >= keep_)
      fs::remove(all[i], failed);
}

std::optional<Checkpoint> CheckpointFolder::load(
    const std::function<void(const std::string&)>& note) const {
  const std::vector<fs::path> all = files();
  std::string last;
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    // What is no damage is thrown: the next save would remove this file, which may be whole.
    try {
      return read(*it);
    } catch (const MemoryError&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const Error& e) {
      const auto* refused = dynamic_cast<const FileAccessError*>(&e);
      if (refused != nullptr && refused->code != ENOENT)  // ENOENT: removed meanwhile
        throw FileAccessError(
            fmt::format("checkpoint: {}. Hint: move it away if it cannot be read at all; the one "
                        "before it is taken then",
                        e.what()),
            refused->code);
      last = e.what();
      if (note) note(last);
    } catch (const std::exception& e) {  // a step that is no number
      last = fmt::format("checkpoint '{}': {}", it->string(), e.what());
      if (note) note(last);
    }
  }
  if (all.empty()) return std::nullopt;
  throw IoError(fmt::format("checkpoint folder '{}': none of its {} checkpoints is whole; {}",
                            folder_.string(), all.size(), last));
}

std::string fingerprint(const ImageSet& set) {
  Sum sum;
  const auto bytes = static_cast<std::size_t>(set.image_shape().numel());
  for (std::int64_t i = 0; i < set.size(); ++i) {
    sum.add(set.pixels(i), bytes);
    const std::int64_t label = set.label(i);
    sum.add(&label, sizeof label);
  }
  return fmt::format("{} images {}, CRC-32 {}", set.size(), set.image_shape().str(), sum.str());
}

std::string fingerprint(const EncodedText& text) {
  Sum sum;
  for (const auto& ids : text.ids) sum.add(ids);
  sum.add(text.labels);
  return fmt::format("{} sentences, CRC-32 {}", text.size(), sum.str());
}

std::string fingerprint(const Tensor& numbers) {
  const Tensor data = contiguous_data(numbers);
  Sum sum;
  visit_any(data.dtype(), [&]<class T>() {
    sum.add(data.data<T>(), static_cast<std::size_t>(data.numel()) * sizeof(T));
  });
  return fmt::format("{}, CRC-32 {}", data.shape().str(), sum.str());
}

}  // namespace capsfw
