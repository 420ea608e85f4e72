#pragma once
// Elements of files: little-endian bytes as the nearest of our element types.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <optional>

#include <capsfw/core/shape.hpp>

namespace capsfw::detail {

static_assert(std::endian::native == std::endian::little, "files of tensors are little-endian");

inline float from_f16(std::uint16_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 0)  // zero and subnormal numbers: mantissa * 2^-24
    return std::bit_cast<float>(
        sign | std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-24f));
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

inline float from_bf16(std::uint16_t h) { return std::bit_cast<float>(std::uint32_t{h} << 16); }

template <class In, class Out>
Out plain(In v) {
  return static_cast<Out>(v);
}

/// Converts `n` elements; returns how many were bad.
using Decode = std::int64_t (*)(const std::uint8_t* in, std::int64_t n, void* out);

template <class In, class Out, Out (*F)(In) = plain<In, Out>>
std::int64_t decode(const std::uint8_t* in, std::int64_t n, void* out) {
  for (std::int64_t i = 0; i < n; ++i) {
    In v;
    std::memcpy(&v, in + static_cast<std::size_t>(i) * sizeof v, sizeof v);
    static_cast<Out*>(out)[i] = F(v);
  }
  return 0;
}

inline std::int64_t decode_bool(const std::uint8_t* in, std::int64_t n, void* out) {
  std::transform(in, in + n, static_cast<bool*>(out), [](std::uint8_t v) { return v != 0; });
  return std::count_if(in, in + n, [](std::uint8_t v) { return v > 1; });
}

/// Bytes that elements of `width` bytes take; nothing if the product of the lengths without zeros,
/// which bounds the strides too, leaves no room in 63 bits.
inline std::optional<std::int64_t> bytes_of_shape(const Shape& shape, std::int64_t width) {
  std::int64_t bytes = width;
  bool none = false;
  for (const std::int64_t n : shape) {
    none = none || n == 0;
    if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(n, 1), &bytes)) return {};
  }
  if (bytes > INT64_MAX / 8) return {};
  return none ? 0 : bytes;
}

}  // namespace capsfw::detail
