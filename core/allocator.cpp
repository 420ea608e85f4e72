#include <capsfw/core/allocator.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/error.hpp>

namespace capsfw {
namespace {

constexpr std::size_t kPage = std::size_t{2} << 20;    // huge page
constexpr std::size_t kArena = std::size_t{16} << 20;  // system request for small blocks
constexpr std::size_t kSmall = std::size_t{1} << 20;   // up to here: size classes cut from arenas

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kCache =
    false;  // each tensor its own heap block, so that the sanitizer sees overruns
#else
constexpr bool kCache = true;
#endif

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

// Four classes per doubling (at most 25 % waste), each a multiple of 64 bytes.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 256) return round_up(std::max<std::size_t>(bytes, 1), 64);
  const std::size_t step = std::bit_floor(bytes - 1) / 4;
  return round_up(bytes, step);
}

void* map_pages(std::size_t bytes) {
  // Over-map by one huge page and cut to a 2 MB boundary: only aligned ranges become huge pages.
  void* raw =
      mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* base = static_cast<std::byte*>(raw);
  const std::size_t head = (kPage - reinterpret_cast<std::uintptr_t>(base) % kPage) % kPage;
  if (head > 0) munmap(base, head);
  munmap(base + head + bytes, kPage - head);
  madvise(base + head, bytes, MADV_HUGEPAGE);
  return base + head;
}

/// Moves whole pages to mapped addresses, without touching what they hold. How many bytes: fewer
/// if the system refuses. One page at a time: pages that came from several places are no range to
/// the kernel, and older ones unmap the target before they find that out.
std::size_t move_pages(std::byte* from, std::byte* to, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes &&
         mremap(from + done, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to + done) != MAP_FAILED)
    done += kPage;
  return done;
}

/// What is counted, and what is granted.
struct Counters : MemoryStats {
  std::size_t limit = 0;  // of live bytes; 0: none

  bool grants(std::size_t capacity) const {
    return limit == 0 || (live <= limit && capacity <= limit - live);
  }
  void add(std::size_t capacity) {
    live += capacity;
    peak = std::max(peak, live);
  }
  [[noreturn]] void refuse(std::size_t bytes) const {
    const auto& path = detail::current_path();
    throw MemoryError(
        fmt::format("no memory for {} bytes{}; {} are in use, {}. Hint: a smaller batch, "
                    "NoGradGuard where no gradient is needed, checkpoint() around what can be "
                    "computed again",
                    bytes, path ? " at " + *path : "", live,
                    limit == 0 ? "and the system has no more"
                               : fmt::format("of a limit of {} (set_memory_limit)", limit)));
  }
};

class Pool {
 public:
  void* take(std::size_t bytes, std::size_t& capacity) {
    const std::scoped_lock lock(mutex_);
    capacity = bytes <= kSmall ? size_class(bytes) : round_up(bytes, kPage);
    void* p = !stats_.grants(capacity) ? nullptr
              : bytes <= kSmall        ? take_small(capacity)
                                       : take_large(capacity);
    if (p == nullptr) stats_.refuse(bytes);
    stats_.add(capacity);
    return p;
  }

  void give(void* p, std::size_t capacity) noexcept {
    const std::scoped_lock lock(mutex_);
    stats_.live -= capacity;
    stats_.cached += capacity;
    if (capacity <= kSmall)
      small_[capacity].push_back(p);
    else
      insert_merged(static_cast<std::byte*>(p), capacity);
  }

  void trim() {
    const std::scoped_lock lock(mutex_);
    release_large();
  }

  MemoryStats stats() {
    const std::scoped_lock lock(mutex_);
    return stats_;
  }

  void reset_peak() {
    const std::scoped_lock lock(mutex_);
    stats_.peak = stats_.live;
  }

  void set_limit(std::size_t bytes) {
    const std::scoped_lock lock(mutex_);
    stats_.limit = bytes;
  }

  std::size_t limit() {
    const std::scoped_lock lock(mutex_);
    return stats_.limit;
  }

 private:
  void* take_small(std::size_t size) {
    auto& free = small_[size];
    if (!free.empty()) {
      void* p = free.back();
      free.pop_back();
      stats_.cached -= size;
      return p;
    }
    if (arena_left_ < size) {
      arena_ = map_or_release(kArena);  // the rest of the last arena is given up
      arena_left_ = arena_ == nullptr ? 0 : kArena;
      if (arena_ == nullptr) return nullptr;
      stats_.system += kArena;
    }
    void* p = arena_;
    arena_ += size;
    arena_left_ -= size;
    return p;
  }

  void* take_large(std::size_t size) {
    // Best fit; what is left of the range stays free.
    if (const auto it = by_size_.lower_bound({size, nullptr}); it != by_size_.end()) {
      const auto [have, p] = *it;
      erase(p, have);
      stats_.cached -= size;
      if (have > size) insert(p + size, have - size);
      return p;
    }
    // No range is large enough: the pages of several are gathered under a new address, so that
    // memory follows what is live at once and not the history of sizes. The rest is new.
    std::byte* to = map_or_release(size);
    if (to == nullptr) return nullptr;
    std::size_t moved = 0;
    while (moved < size && !by_size_.empty()) {
      const auto [have, p] = *by_size_.rbegin();
      const std::size_t part = std::min(have, size - moved);
      const std::size_t done = move_pages(p, to + moved, part);
      if (done > 0) erase(p, have);
      if (done > 0 && have > done) insert(p + done, have - done);
      moved += done;
      if (done < part) break;
    }
    stats_.cached -= moved;
    stats_.system += size - moved;
    return to;
  }

  /// Gives what is cached back where the system has no more otherwise.
  std::byte* map_or_release(std::size_t size) {
    void* p = map_pages(size);
    if (p == nullptr) {
      release_large();
      p = map_pages(size);
    }
    return static_cast<std::byte*>(p);
  }

  void release_large() {
    while (!by_size_.empty()) release_largest();
  }

  void release_largest() {
    const auto [size, p] = *by_size_.rbegin();
    erase(p, size);
    munmap(p, size);
    stats_.cached -= size;
    stats_.system -= size;
  }

  void insert_merged(std::byte* p, std::size_t size) {
    auto next = by_address_.lower_bound(p);
    if (next != by_address_.end() && p + size == next->first) {
      const auto [address, extent] = *next;
      erase(address, extent);
      size += extent;
      next = by_address_.lower_bound(p);
    }
    if (next != by_address_.begin()) {
      const auto [address, extent] = *std::prev(next);
      if (address + extent == p) {
        erase(address, extent);
        p = address;
        size += extent;
      }
    }
    insert(p, size);
  }
  void insert(std::byte* p, std::size_t size) {
    by_address_.emplace(p, size);
    by_size_.emplace(size, p);
  }
  void erase(std::byte* p, std::size_t size) {
    by_address_.erase(p);
    by_size_.erase({size, p});
  }

  std::mutex mutex_;
  Counters stats_;
  std::map<std::size_t, std::vector<void*>> small_;
  // Free ranges of whole pages; neighbours are merged.
  std::map<std::byte*, std::size_t> by_address_;
  std::set<std::pair<std::size_t, std::byte*>> by_size_;
  std::byte* arena_ = nullptr;
  std::size_t arena_left_ = 0;
};

// Never destroyed: tensors with static storage duration may be freed after it would be.
Pool& pool() {
  static Pool* p = new Pool;
  return *p;
}

// The uncached path of sanitizer builds keeps the same counters.
struct PlainHeap {
  std::mutex mutex;
  Counters stats;
};
PlainHeap& plain_heap() {
  static PlainHeap* h = new PlainHeap;
  return *h;
}

}  // namespace

namespace detail {

void* allocate(std::size_t bytes, std::size_t& capacity) {
  if constexpr (kCache) return pool().take(bytes, capacity);
  capacity = round_up(std::max<std::size_t>(bytes, 1), 64);
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  void* p = heap.stats.grants(capacity) ? std::aligned_alloc(64, capacity) : nullptr;
  if (p == nullptr) heap.stats.refuse(bytes);
  heap.stats.add(capacity);
  return p;
}

void deallocate(void* p, std::size_t capacity) noexcept {
  if constexpr (kCache) return pool().give(p, capacity);
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  heap.stats.live -= capacity;
  std::free(p);
}

}  // namespace detail

Tensor empty(const Shape& shape, DType dtype, std::string_view who) {
  return detail::naming(who, [&] { return empty(shape, dtype); });
}

Tensor zeros(const Shape& shape, DType dtype, std::string_view who) {
  return empty(shape, dtype, who).fill_(0);
}

MemoryStats memory_stats() {
  if constexpr (kCache) return pool().stats();
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  return heap.stats;
}

void reset_peak_memory() {
  if constexpr (kCache) return pool().reset_peak();
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  heap.stats.peak = heap.stats.live;
}

void set_memory_limit(std::size_t bytes) {
  if constexpr (kCache) return pool().set_limit(bytes);
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  heap.stats.limit = bytes;
}

std::size_t memory_limit() {
  if constexpr (kCache) return pool().limit();
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  return heap.stats.limit;
}

void trim_memory() {
  if constexpr (kCache) pool().trim();
}

}  // namespace capsfw
