#pragma once
// The caching allocator behind every tensor. Freed blocks are kept for the next request of a
// similar size, and memory comes from the system in 2 MB pages: page faults are the largest cost of
// capsule code that returns its memory (about 475 ms per GiB touched with 4 KB pages against 60
// ms).

#include <cstddef>

namespace capsfw {

/// Counters of the allocator, in bytes.
struct MemoryStats {
  std::size_t live = 0;    ///< handed out and not yet freed
  std::size_t peak = 0;    ///< largest `live` since the start or reset_peak_memory()
  std::size_t cached = 0;  ///< freed and kept for reuse
  std::size_t system = 0;  ///< taken from the operating system
};

/// The counters now.
MemoryStats memory_stats();

/// Lets `peak` start again from `live`.
void reset_peak_memory();

/// Returns cached blocks of 2 MB and more to the operating system.
void trim_memory();

namespace detail {

/// 64-byte aligned memory of at least `bytes` bytes; `capacity` receives the size to give back.
/// Error when the system has none.
void* allocate(std::size_t bytes, std::size_t& capacity);

/// Returns a block of allocate().
void deallocate(void* p, std::size_t capacity) noexcept;

}  // namespace detail
}  // namespace capsfw
