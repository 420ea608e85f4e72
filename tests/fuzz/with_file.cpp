#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include <capsfw/core/error.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/data/text.hpp>

#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

namespace fs = std::filesystem;

/// A folder of its own, in memory where the system has a place for that.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code ignored;
    const fs::path memory = "/dev/shm";
    const fs::path place = fs::is_directory(memory, ignored) ? memory : fs::temp_directory_path();
    std::string folder = (place / "capsfw-fuzz-XXXXXX").string();
    if (::mkdtemp(folder.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = folder;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A file in memory under a name that ends with .tsv, which load_text wants to see.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(::memfd_create("capsfw-fuzz", MFD_CLOEXEC)) {
    set_num_threads(1);
    if (descriptor_ < 0) throw std::runtime_error("no file in memory");
    fs::create_symlink("/proc/self/fd/" + std::to_string(descriptor_), path());
  }
  ~MemoryFile() { ::close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  fs::path path() const { return folder_.path() / "x.tsv"; }
  void set(Bytes bytes) {
    const auto n = static_cast<ssize_t>(bytes.size());
    if (::ftruncate(descriptor_, 0) != 0 ||
        ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) != n)
      throw std::runtime_error("no memory for a file");
  }

 private:
  TemporaryFolder folder_;
  int descriptor_;
};

/// True unless read(path) answers with an IoError, whose message is looked at.
bool good(const fs::path& path, const Reader& read) {
  try {
    read(path);
    return true;
  } catch (const IoError& e) {
    const std::string_view what = e.what();
    // A promise that read_idx believed until memory ended, or a message with half a file in it.
    // Nor may it say what a terminal takes for a command.
    const bool plain = is_utf8(what) && std::all_of(what.begin(), what.end(), [](char c) {
                         return c < 0 || (c >= ' ' && c != '\x7f');
                       });
    if ((what.starts_with("read_idx") && what.ends_with(" bytes must fit into memory")) ||
        what.size() > 2000 || !plain)
      throw std::runtime_error(e.what());
    return false;
  }
}

/// Names that stay in the folder and that a file system takes.
bool sensible(const fs::path& name) {
  return name.is_relative() && name.has_filename() &&
         name.native().find('\0') == std::string::npos &&
         std::none_of(name.begin(), name.end(), [](const fs::path& p) {
           return p == "." || p == ".." || p.native().size() > 255;
         });
}

}  // namespace

bool with_file(Bytes bytes, const Reader& read) {
  static MemoryFile file;
  file.set(bytes);
  return good(file.path(), read);
}

bool with_folder(const std::vector<NamedBytes>& files, const Reader& read) {
  static const TemporaryFolder folder;
  const fs::path root = folder.path() / "set";
  std::error_code ignored;  // of names that are in each other's way the first counts
  fs::remove_all(root, ignored);
  fs::create_directory(root);
  for (const auto& [name, bytes] : files) {
    const fs::path path = root / name;
    if (!sensible(name) || fs::exists(path, ignored)) continue;
    fs::create_directories(path.parent_path(), ignored);
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  return good(root, read);
}

std::vector<Bytes> parts(Bytes bytes) {
  std::vector<Bytes> out;
  while (bytes.size() >= 2) {
    const std::size_t promised = bytes[0] + (std::size_t{bytes[1]} << 8),
                      n = std::min(promised, bytes.size() - 2);
    out.push_back(bytes.subspan(2, n));
    bytes = bytes.subspan(2 + n);
  }
  return out;
}

}  // namespace capsfw::fuzz
