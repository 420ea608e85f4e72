// Target: pictures. A PNG file is read as it is, and again with the checksums of its chunks put
// right, without which no change would get past them.

#include <cmath>
#include <stdexcept>
#include <vector>

#include <zlib.h>

#include <capsfw/data/image.hpp>

#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

void look_at(const Tensor& x) {
  if (x.dim() != 3 || (x.size(0) != 1 && x.size(0) != 3) || x.numel() == 0)
    throw std::runtime_error("no picture");
  for (const float v : x.to_vector<float>())
    if (!(v >= 0 && v <= 1)) throw std::runtime_error("values lie in [0, 1]");
}

bool read(Bytes file) {
  return with_file(file, [&](const std::filesystem::path& path) {
    constexpr int kChannels[] = {0, 1, 3};
    look_at(load_image(path, {.channels = kChannels[file.size() % 3]}));
  });
}

}  // namespace

bool image(Bytes file) {
  const bool good = read(file);
  std::vector<std::uint8_t> fixed(file.begin(), file.end());
  bool changed = false;
  for (std::size_t at = 8; at + 12 <= fixed.size();) {
    std::size_t n = 0;
    for (int i = 0; i < 4; ++i) n = n << 8 | fixed[at + static_cast<std::size_t>(i)];
    if (n > fixed.size() - at - 12) break;
    const auto sum =
        static_cast<std::uint32_t>(crc32(0, fixed.data() + at + 4, static_cast<uInt>(n + 4)));
    for (std::size_t i = 0; i < 4; ++i) {
      const auto byte = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
      changed = changed || fixed[at + 8 + n + i] != byte;
      fixed[at + 8 + n + i] = byte;
    }
    at += n + 12;
  }
  if (changed) read(fixed);
  return good;
}

}  // namespace capsfw::fuzz
