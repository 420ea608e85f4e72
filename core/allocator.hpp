#pragma once
// The caching allocator behind every tensor. Freed blocks are kept for the next request of a
// similar size, and memory comes from the system in 2 MB pages: page faults are the largest cost of
// capsule code that returns its memory (about 475 ms per GiB touched with 4 KB pages against 60
// ms).

#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include <capsfw/core/error.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Memory that the system does not have, or that set_memory_limit() does not grant. The text names
/// the op, the bytes asked for and those in use.
struct MemoryError : Error {
  using Error::Error;
};

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

/// The largest `live` that is granted, in bytes, to all threads together: a request beyond it is a
/// MemoryError, where otherwise the operating system might kill the process. 0: no limit, as at the
/// start.
void set_memory_limit(std::size_t bytes);
/// What set_memory_limit() was given last.
std::size_t memory_limit();

/// empty(shape, dtype) and zeros(shape, dtype) for a result of the op `who`, which a MemoryError
/// then names.
Tensor empty(const Shape& shape, DType dtype, std::string_view who);
Tensor zeros(const Shape& shape, DType dtype, std::string_view who);

namespace detail {

/// 64-byte aligned memory of at least `bytes` bytes; `capacity` receives the size to give back.
/// MemoryError if the system has none or the limit forbids it.
void* allocate(std::size_t bytes, std::size_t& capacity);

/// f(), in whose MemoryError `who`, a text or a function that makes one, comes first.
template <class Who, class F>
decltype(auto) naming(const Who& who, const F& f) {
  try {
    return f();
  } catch (const MemoryError& e) {
    if constexpr (std::is_invocable_v<Who>)
      throw MemoryError(std::string(who()) + ": " + e.what());
    else
      throw MemoryError(std::string(who) + ": " + e.what());
  }
}

/// Returns a block of allocate().
void deallocate(void* p, std::size_t capacity) noexcept;

}  // namespace detail
}  // namespace capsfw
