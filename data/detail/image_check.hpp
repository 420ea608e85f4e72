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

}  // namespace capsfw::detail
