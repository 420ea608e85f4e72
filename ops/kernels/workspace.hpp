#pragma once
// Private: memory for the length of a scope, and one piece of it per task that runs now.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/parallel.hpp>

namespace capsfw::kernels {

/// `n` uninitialised elements.
template <class T>
class Buffer {
 public:
  explicit Buffer(std::int64_t n)
      : data_(
            static_cast<T*>(detail::allocate(static_cast<std::size_t>(n) * sizeof(T), capacity_))) {
  }
  ~Buffer() { detail::deallocate(data_, capacity_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() const { return data_; }

 private:
  std::size_t capacity_ = 0;
  T* data_;
};

/// Pieces of `each` elements for the bodies of a parallel_for over `tasks` items.
template <class T>
class Workspaces {
 public:
  Workspaces(std::int64_t tasks, std::int64_t each)
      : count_(std::clamp<std::int64_t>(tasks, 1, num_threads())),
        each_(padded(each)),
        row_(each_ + std::min(each_, kApart)),
        busy_(std::make_unique<std::atomic<bool>[]>(static_cast<std::size_t>(count_))),
        memory_((count_ - 1) * row_ + each_) {}

  /// A piece for the length of a scope: the one that this thread had before, if it is free. It lies
  /// in the cache of the thread's core, and a core may be far from the others.
  class Lease {
   public:
    explicit Lease(Workspaces& owner)
        : owner_(owner), at_(static_cast<std::size_t>(thread_place() % owner.count_)) {
      // No more tasks run than there are threads: a free piece exists.
      while (owner_.busy_[at_].exchange(true, std::memory_order_acquire))
        at_ = (at_ + 1) % static_cast<std::size_t>(owner_.count_);
    }
    ~Lease() { owner_.busy_[at_].store(false, std::memory_order_release); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    /// The next `n` elements of the piece, on a cache line of their own.
    T* take(std::int64_t n) {
      T* p = owner_.memory_.data() + static_cast<std::int64_t>(at_) * owner_.row_ + used_;
      used_ += padded(n);
      return p;
    }

   private:
    Workspaces& owner_;
    std::size_t at_;
    std::int64_t used_ = 0;
  };

  /// What take(n) uses of a piece.
  static std::int64_t padded(std::int64_t n) { return (n + 63) / 64 * 64; }

 private:
  /// Between two pieces. A core that writes along its piece fetches lines beyond the end in
  /// advance, across small pages too, and takes them away from the core that works there: on an
  /// EPYC whose cores share no cache the second thread took three times as long. 32 KB were not
  /// enough there.
  static constexpr std::int64_t kApart = (1 << 16) / sizeof(T);
  std::int64_t count_, each_, row_;
  std::unique_ptr<std::atomic<bool>[]> busy_;
  Buffer<T> memory_;
};

}  // namespace capsfw::kernels
