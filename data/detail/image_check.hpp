#pragma once
// Private: what stb_image does not check. It decodes what it can, never looks at a checksum, and
// its version in Debian 12 (2.27) writes past a table of 256 codes in a forged JPEG.

#include <cstdint>
#include <string>
#include <vector>

namespace capsfw::detail {

/// What is wrong with the chunks of a PNG file (which begins with the signature), up to IEND;
/// empty if nothing.
std::string check_png(const std::vector<std::uint8_t>& file);

/// The same for the segments of a JPEG file (which begins with SOI), up to EOI, and for its Huffman
/// tables.
std::string check_jpeg(const std::vector<std::uint8_t>& file);

/// Whether a file of this size, PNG or JPEG, can hold so many pixels (at most kMaxPixels). A byte
/// of deflate gives at most 1032; a byte of JPEG at most 1024 pixels, as a block takes a bit at
/// least and a unit of blocks has at most 32 x 32 pixels. For PNG depth and colour come from IHDR.
bool can_hold(const std::vector<std::uint8_t>& file, bool png, std::int64_t pixels);

}  // namespace capsfw::detail
