#include <capsfw/data/file.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw {
namespace {

/// What the system says about `code`; unlike strerror, safe on several threads.
std::string reason(int code) { return std::generic_category().message(code); }

[[noreturn]] void refused(const std::filesystem::path& path, const char* what, int code) {
  throw FileAccessError(
      fmt::format("file '{}': cannot be {}: {}", path.string(), what, reason(code)), code);
}

/// What the names of temporary files begin and end with.
constexpr const char *kBegin = ".capsfw-", *kEnd = ".tmp";
/// Names that are tried: more than killed processes of one number leave behind.
constexpr int kTries = 1000;

}  // namespace

InputFile::InputFile(std::filesystem::path path) : path_(std::move(path)) {
  // Non-blocking, so that a pipe without a writer does not hang; no effect on regular files.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) refused(path_, "opened", errno);
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0) {
    const int code = errno;
    ::close(descriptor_);
    refused(path_, "opened", code);
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(descriptor_);
    throw IoError(fmt::format("file '{}': must be a regular file", path_.string()));
  }
  size_ = info.st_size;
}

InputFile::~InputFile() { ::close(descriptor_); }

std::size_t InputFile::read(std::int64_t offset, void* out, std::size_t bytes) const {
  std::size_t done = 0;
  while (done < bytes) {
    const auto n = ::pread(descriptor_, static_cast<char*>(out) + done, bytes - done,
                           offset + static_cast<std::int64_t>(done));
    if (n == 0) break;
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (errno != EINTR) {
      refused(path_, "read", errno);
    }
  }
  return done;
}

std::vector<std::uint8_t> read_file(const std::filesystem::path& path, std::int64_t limit) {
  const InputFile file(path);
  if (file.size() > limit)
    throw IoError(fmt::format("file '{}': must not be longer than {} bytes; got {}", path.string(),
                              limit, file.size()));
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(file.size()));
  bytes.resize(file.read(0, bytes.data(), bytes.size()));
  return bytes;
}

AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  static std::atomic<unsigned> counter{0};
  std::error_code ignored;
  const auto status = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status))
    throw IoError(
        fmt::format("file '{}': cannot be replaced: it is not a regular file", path_.string()));
  // A name of its own, short whatever the target's length is. O_EXCL rules out that of another
  // machine, or of a killed process of the same number: in containers many have number 1.
  for (int tries = 0; tries < kTries && descriptor_ < 0; ++tries) {
    temporary_ =
        path_.parent_path() / fmt::format("{}{}-{}{}", kBegin, ::getpid(), counter++, kEnd);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST) break;
  }
  if (descriptor_ < 0) fail("created");
  // Says to remove_leftovers() that the file is in use; goes with the process, however that ends.
  ::flock(descriptor_, LOCK_EX | LOCK_NB);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::fail(const char* what) const {
  throw IoError(
      fmt::format("file '{}': cannot be {}: {}. Hint: does its folder exist, is it writable, is "
                  "there space?",
                  path_.string(), what, reason(errno)));
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const auto n = ::write(descriptor_, p, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("written");
    p += n;
    bytes -= static_cast<std::size_t>(n);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail("written");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("renamed into place");
  ::close(std::exchange(descriptor_, -1));
  // The new name is on disk once the folder is; some file systems cannot sync folders.
  const auto folder = path_.has_parent_path() ? path_.parent_path() : ".";
  if (const int d = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); d >= 0) {
    ::fsync(d);
    ::close(d);
  }
}

void AtomicFile::remove_leftovers(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kBegin) || !name.ends_with(kEnd)) continue;
    // For writing, since NFS gives an exclusive lock on nothing else.
    const int file = ::open(entry.path().c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) continue;
    const bool used = ::flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!used) std::filesystem::remove(entry.path(), ignored);
    ::close(file);
  }
}

}  // namespace capsfw
