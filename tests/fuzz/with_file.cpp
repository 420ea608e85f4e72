#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include <capsfw/core/error.hpp>
#include <capsfw/core/parallel.hpp>

#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

/// A file in memory under a name that ends with .tsv, which load_text wants to see.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("capsfw-fuzz", MFD_CLOEXEC)) {
    set_num_threads(1);
    std::string folder = (std::filesystem::temp_directory_path() / "capsfw-fuzz-XXXXXX").string();
    if (descriptor_ < 0 || ::mkdtemp(folder.data()) == nullptr)
      throw std::runtime_error("no file in memory");
    path_ = std::filesystem::path(folder) / "x.tsv";
    std::filesystem::create_symlink("/proc/self/fd/" + std::to_string(descriptor_), path_);
  }
  ~MemoryFile() {
    std::error_code ignored;
    std::filesystem::remove_all(path_.parent_path(), ignored);
    ::close(descriptor_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void set(Bytes bytes) {
    const auto n = static_cast<ssize_t>(bytes.size());
    if (::ftruncate(descriptor_, 0) != 0 ||
        ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != n)
      throw std::runtime_error("no memory for a file");
  }

 private:
  int descriptor_;
  std::filesystem::path path_;
};

}  // namespace

bool with_file(Bytes bytes, const std::function<void(const std::filesystem::path&)>& read) {
  static MemoryFile file;
  file.set(bytes);
  try {
    read(file.path());
    return true;
  } catch (const IoError& e) {
    const std::string_view what = e.what();
    // A promise that read_idx believed until memory ended, or a message with half a file in it.
    // Nor may it say what a terminal takes for a command.
    const bool plain =
        std::all_of(what.begin(), what.end(), [](char c) { return c >= ' ' || c < 0; });
    if ((what.starts_with("read_idx") && what.ends_with(" bytes must fit into memory")) ||
        what.size() > 2000 || !plain)
      throw std::runtime_error(e.what());
    return false;
  }
}

}  // namespace capsfw::fuzz
