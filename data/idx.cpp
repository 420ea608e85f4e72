#include <capsfw/data/idx.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "detail/byte_source.hpp"

namespace capsfw {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 32;

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& rule) {
  throw IoError(fmt::format("read_idx: '{}': {}", path.string(), rule));
}

/// Bytes of one element; 0 for a type byte that the format does not know.
std::size_t width(std::uint8_t type) {
  switch (static_cast<IdxType>(type)) {
    case IdxType::u8:
    case IdxType::i8:
      return 1;
    case IdxType::i16:
      return 2;
    case IdxType::i32:
    case IdxType::f32:
      return 4;
    case IdxType::f64:
      return 8;
  }
  return 0;
}

void to_host_order(std::vector<std::uint8_t>& bytes, std::size_t element) {
  if constexpr (std::endian::native == std::endian::big) return;
  if (element == 1) return;
  for (auto p = bytes.begin(); p != bytes.end(); p += static_cast<std::ptrdiff_t>(element))
    std::reverse(p, p + static_cast<std::ptrdiff_t>(element));
}

/// Reads rank and lengths, and returns the count of bytes that must follow.
std::size_t read_header(detail::ByteSource& source,
                        const std::filesystem::path& path,
                        IdxArray& array) {
  std::array<std::uint8_t, 4> magic{};
  const std::size_t got = source.read(magic.data(), 4);
  if (got < 4) fail(path, fmt::format("the header must have 4 bytes; got {}", got));
  if (magic[0] != 0 || magic[1] != 0 || width(magic[2]) == 0)
    fail(path, fmt::format("the first bytes must be 0 0 and a type (8, 9, 11, 12, 13 or 14); got "
                           "{} {} {}. Hint: is this an IDX file?",
                           magic[0], magic[1], magic[2]));
  if (magic[3] < 1 || magic[3] > kMaxRank)
    fail(path, fmt::format("the rank must lie in 1..{}; got {}", kMaxRank, magic[3]));
  array.type = static_cast<IdxType>(magic[2]);
  auto bytes = static_cast<std::int64_t>(width(magic[2]));
  bool too_large = false, none = false;
  for (int axis = 0; axis < magic[3]; ++axis) {
    std::array<std::uint8_t, 4> b{};
    if (source.read(b.data(), 4) < 4)
      fail(path, fmt::format("the header must have {} lengths; got {}", magic[3], axis));
    const std::int64_t n = std::int64_t{b[0]} << 24 | b[1] << 16 | b[2] << 8 | b[3];
    array.shape.push_back(n);
    none = none || n == 0;
    too_large = too_large || __builtin_mul_overflow(bytes, std::max<std::int64_t>(n, 1), &bytes) ||
                bytes > kMaxBytes;
  }
  if (too_large)
    fail(path, fmt::format("the elements must fit into {} bytes; got lengths {}", kMaxBytes,
                           array.shape.str()));
  return none ? 0 : static_cast<std::size_t>(bytes);
}

template <class In, class Out>
Tensor convert(const IdxArray& array) {
  Tensor y = empty(array.shape, dtype_v<Out>);
  Out* out = y.template mutable_data<Out>();
  for (std::int64_t i = 0, n = y.numel(); i < n; ++i) {
    In v;
    std::memcpy(&v, array.bytes.data() + static_cast<std::size_t>(i) * sizeof v, sizeof v);
    out[i] = static_cast<Out>(v);
  }
  return y;
}

}  // namespace

IdxArray read_idx(const std::filesystem::path& path) {
  detail::ByteSource source("read_idx", path);
  IdxArray array;
  const std::size_t expected = read_header(source, path, array);
  auto& bytes = array.bytes;
  if (const std::size_t got = source.append(bytes, expected); got < expected)
    fail(path, fmt::format("{} bytes must follow the header with lengths {}; got {}", expected,
                           array.shape.str(), got));
  if (!source.at_end())
    fail(path, fmt::format("nothing may follow the {} bytes of the elements {}; got more", expected,
                           array.shape.str()));
  to_host_order(bytes, width(static_cast<std::uint8_t>(array.type)));
  return array;
}

Tensor to_tensor(const IdxArray& array) {
  const std::size_t element = width(static_cast<std::uint8_t>(array.type));
  if (element == 0 || array.bytes.size() != static_cast<std::size_t>(array.shape.numel()) * element)
    throw ShapeError(fmt::format("to_tensor: the bytes must be those of the shape; got {} for {}",
                                 array.bytes.size(), array.shape.str()));
  switch (array.type) {
    case IdxType::u8:
      return convert<std::uint8_t, std::int64_t>(array);
    case IdxType::i8:
      return convert<std::int8_t, std::int64_t>(array);
    case IdxType::i16:
      return convert<std::int16_t, std::int64_t>(array);
    case IdxType::i32:
      return convert<std::int32_t, std::int64_t>(array);
    case IdxType::f32:
      return convert<float, float>(array);
    case IdxType::f64:
      break;
  }
  return convert<double, double>(array);
}

}  // namespace capsfw
