#pragma once
// Private: the bytes of a file one after another, unpacked where the file is gzip.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <zlib.h>

#include <capsfw/data/file.hpp>

namespace capsfw::detail {

/// The bytes of a file from its start, unpacked if it is gzip (told by its first two bytes).
class ByteSource {
 public:
  /// `who` stands in front of what is wrong with the gzip data: "read_idx".
  ByteSource(std::string who, const std::filesystem::path& path);
  ~ByteSource();
  ByteSource(const ByteSource&) = delete;
  ByteSource& operator=(const ByteSource&) = delete;

  /// Up to `bytes` (at most kChunk) further bytes; fewer only at the end of the data.
  std::size_t read(std::uint8_t* out, std::size_t bytes);
  /// Appends `count` bytes to `out`, whose memory grows with what there is and not with `count`;
  /// returns how many there were: fewer only at the end. IoError if they do not fit into memory.
  std::size_t append(std::vector<std::uint8_t>& out, std::size_t count);
  /// True if nothing follows. Also makes zlib check the sum and the length at the end of the data.
  bool at_end();

  static constexpr std::size_t kChunk = std::size_t{1} << 20;

 private:
  bool refill();
  std::size_t unpack(std::uint8_t* out, std::size_t bytes);
  [[noreturn]] void fail(const std::string& rule) const;

  std::string who_;
  InputFile file_;
  std::int64_t at_ = 0;
  bool gzip_ = false, done_ = false;
  z_stream stream_{};
  std::array<std::uint8_t, 1 << 16> packed_{};
};

}  // namespace capsfw::detail
