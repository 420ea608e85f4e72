#pragma once
// Private: whether two processes have the same bytes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace capsfw::detail {

/// FNV-1a over eight bytes at a time, from an earlier value on: against mistakes, not against
/// malice.
inline std::uint64_t hash_of(const void* data,
                             std::size_t n,
                             std::uint64_t hash = 0xcbf29ce484222325) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < n; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + i, std::min<std::size_t>(8, n - i));
    hash = (hash ^ word) * 0x100000001b3;
  }
  return hash;
}

}  // namespace capsfw::detail
