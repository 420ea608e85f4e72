#pragma once
// Files: read with checks, written so that a name never shows half a file.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/core/error.hpp>

namespace capsfw {

/// The system would not open or read a file. Unlike an IoError about what a file holds, this says
/// nothing about its bytes: they may be whole, and another try may succeed.
struct FileAccessError : IoError {
  FileAccessError(const std::string& what, int why) : IoError(what), code(why) {}
  int code;  ///< errno: ENOENT, EACCES, EMFILE, EIO, ...
};

/// An open regular file, read at any offset. FileAccessError naming the path and the reason if it
/// cannot be opened, IoError if it is no regular file.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }  ///< the path it was opened by
  /// Bytes in the file when it was opened.
  std::int64_t size() const { return size_; }
  /// Copies up to `bytes` bytes from `offset` on and returns how many: fewer only at the end of the
  /// file. FileAccessError if the system cannot read.
  std::size_t read(std::int64_t offset, void* out, std::size_t bytes) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::int64_t size_ = 0;
};

/// All bytes of a file. IoError as InputFile, or if it is longer than `limit` bytes.
std::vector<std::uint8_t> read_file(const std::filesystem::path& path, std::int64_t limit);

/// A file that appears under its name complete or not at all: bytes go to a temporary name in the
/// same folder; commit() brings them to disk and renames. Without commit() the temporary is removed
/// and an older file of that name stays as it was; only a process that is killed leaves one behind.
/// IoError if the folder is missing or not writable, if the disk is full, or if the name belongs to
/// a folder or a device.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends.
  void write(const void* data, std::size_t bytes);
  /// Ends the file; nothing may be written after it.
  void commit();

  /// Removes the temporaries that killed processes have left in a folder. Those that somebody still
  /// writes are locked and stay, whoever it is; on a file system without locks they go, too, and
  /// their commit() fails: so this is for folders in which few others write.
  static void remove_leftovers(const std::filesystem::path& folder);

 private:
  [[noreturn]] void fail(const char* what) const;
  std::filesystem::path path_, temporary_;
  int descriptor_ = -1;
};

}  // namespace capsfw
