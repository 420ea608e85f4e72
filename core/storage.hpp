#pragma once
// A reference-counted buffer with a version counter.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace capsfw {

/// Memory shared by a tensor and its views. The version counts writes: a tensor saved for the
/// backward pass remembers it, so that a change in between is an error and not a wrong gradient.
class Storage {
 public:
  explicit Storage(std::size_t bytes);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() const { return data_; }          ///< start of the memory
  std::size_t bytes() const { return bytes_; }  ///< its size
  /// Number of writes so far; the graph notices by it.
  std::uint64_t version() const { return version_.load(std::memory_order_relaxed); }
  /// Counts one more write.
  void bump_version() { version_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::size_t bytes_;
  std::size_t capacity_ = 0;
  void* data_;
  std::atomic<std::uint64_t> version_{0};
};

}  // namespace capsfw
