#include "image_check.hpp"

#include <algorithm>
#include <iterator>
#include <span>

#include <fmt/format.h>
#include <zlib.h>

namespace capsfw::detail {
namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint32_t big_endian(const std::uint8_t* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}

/// A DHT segment: tables of class and number, counts of codes of 1 to 16 bits, symbols. (ITU-T
/// T.81, section B.2.4.2.)
bool good_huffman_tables(std::span<const std::uint8_t> body) {
  while (!body.empty()) {
    if (body.size() < 17) return false;
    std::size_t symbols = 0, codes = 0;
    for (std::size_t length = 1; length <= 16; ++length) {
      symbols += body[length];
      codes = 2 * codes + body[length];  // prefixes in use, of 2^length
      if (codes > std::size_t{1} << length) return false;
    }
    if (symbols > 256 || body.size() < 17 + symbols) return false;
    body = body.subspan(17 + symbols);
  }
  return true;
}

}  // namespace

std::string check_png(const Bytes& file) {
  // Chunks of length, type, data, CRC-32 of type and data.
  for (std::size_t at = 8;;) {
    if (file.size() < at + 12) return "the file must go on to its IEND chunk; it ends early";
    const std::uint8_t* chunk = file.data() + at;
    const std::size_t length = big_endian(chunk);
    if (length > file.size() - at - 12) return "a chunk must end within the file; it ends early";
    const auto sum = crc32(0, chunk + 4, static_cast<uInt>(length + 4));
    if (sum != big_endian(chunk + 8 + length))
      return fmt::format("the checksum of the chunk at byte {} must be right; it is damaged", at);
    if (std::equal(chunk + 4, chunk + 8, "IEND")) return {};
    at += length + 12;
  }
}

std::string check_jpeg(const Bytes& file) {
  // Segments of FF, marker, length, data; entropy-coded data after each SOS.
  const auto damaged = [](std::size_t at) {
    return fmt::format("the segment at byte {} must be valid; it is damaged", at);
  };
  for (std::size_t at = 2; at + 1 < file.size();) {
    const std::uint8_t marker = file[at + 1];
    if (file[at] != 0xff || marker == 0) return damaged(at);
    if (marker == 0xd9) return {};
    if (marker == 0xff) {  // padding
      ++at;
      continue;
    }
    if (file.size() < at + 4) break;
    const std::size_t length = std::size_t{file[at + 2]} << 8 | file[at + 3];  // with its own bytes
    if (length < 2) return damaged(at);
    if (length > file.size() - at - 2) break;
    if (marker == 0xc4 && !good_huffman_tables(std::span(file).subspan(at + 4, length - 2)))
      return damaged(at);
    at += 2 + length;
    if (marker != 0xda) continue;
    // In coded data FF is followed by 0 or by a restart marker (D0 to D7).
    while (at + 1 < file.size() &&
           (file[at] != 0xff || file[at + 1] == 0 || (file[at + 1] & 0xf8) == 0xd0))
      ++at;
  }
  return "the file must go on to its EOI marker; it ends early";
}

bool can_hold(const Bytes& file, bool png, std::int64_t pixels) {
  const auto size = static_cast<std::int64_t>(file.size());
  if (!png) return pixels / 1024 <= size;
  constexpr int kValues[] = {1, 0, 3, 1, 2, 0, 4};  // of a pixel, by colour type
  if (file.size() < 26 || file[25] >= std::size(kValues)) return false;
  return pixels * kValues[file[25]] * file[24] / 8 / 1032 <= size;
}

}  // namespace capsfw::detail
