#include <capsfw/core/allocator.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <vector>

#include <fmt/format.h>

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

class Pool {
 public:
  void* take(std::size_t bytes, std::size_t& capacity) {
    const std::scoped_lock lock(mutex_);
    void* p = bytes <= kSmall ? take_small(capacity = size_class(bytes))
                              : take_large(round_up(bytes, kPage / 8), capacity);
    if (p == nullptr)
      throw Error(
          fmt::format("allocate: the system has no {} bytes ({} live, {} cached). Hint: a "
                      "smaller batch, or NoGradGuard where no gradient is needed",
                      bytes, stats_.live, stats_.cached));
    stats_.live += capacity;
    stats_.peak = std::max(stats_.peak, stats_.live);
    return p;
  }

  void give(void* p, std::size_t capacity) noexcept {
    const std::scoped_lock lock(mutex_);
    stats_.live -= capacity;
    stats_.cached += capacity;
    if (capacity <= kSmall)
      small_[capacity].push_back(p);
    else
      large_.emplace(capacity, Cached{p, ++clock_});
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
      arena_ =
          static_cast<std::byte*>(map_pages(kArena));  // the rest of the last arena is given up
      arena_left_ = arena_ == nullptr ? 0 : kArena;
      if (arena_ == nullptr) return nullptr;
      stats_.system += kArena;
    }
    void* p = arena_;
    arena_ += size;
    arena_left_ -= size;
    return p;
  }

  void* take_large(std::size_t size, std::size_t& capacity) {
    // Best fit, at most a quarter too large, or as large as a new block would be.
    const auto it = large_.lower_bound(size);
    if (it != large_.end() && it->first <= std::max(size + size / 4, round_up(size, kPage))) {
      void* p = it->second.data;
      capacity = it->first;
      stats_.cached -= capacity;
      large_.erase(it);
      return p;
    }
    // Blocks that fit nothing must not pile up: what is held beyond the largest need so far is at
    // most a third of it. A run in its steady state never comes here.
    capacity = round_up(size, kPage);
    const std::size_t need = std::max(stats_.peak, stats_.live + capacity);
    while (!large_.empty() && stats_.system + capacity > need + need / 3 + 4 * kArena)
      release_oldest();
    void* p = map_pages(capacity);
    if (p == nullptr) {
      release_large();
      p = map_pages(capacity);
    }
    if (p != nullptr) stats_.system += capacity;
    return p;
  }

  void release_oldest() {
    release(std::min_element(large_.begin(), large_.end(), [](const auto& a, const auto& b) {
      return a.second.freed_at < b.second.freed_at;
    }));
  }

  void release_large() {
    while (!large_.empty()) release(large_.begin());
  }

  struct Cached {
    void* data;
    std::uint64_t freed_at;
  };
  using Large = std::multimap<std::size_t, Cached>;

  void release(Large::iterator it) {
    munmap(it->second.data, it->first);
    stats_.cached -= it->first;
    stats_.system -= it->first;
    large_.erase(it);
  }

  std::mutex mutex_;
  MemoryStats stats_;
  std::map<std::size_t, std::vector<void*>> small_;
  Large large_;
  std::uint64_t clock_ = 0;
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
  MemoryStats stats;
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
  void* p = std::aligned_alloc(64, capacity);
  if (p == nullptr) throw Error(fmt::format("allocate: the system has no {} bytes", bytes));
  auto& heap = plain_heap();
  const std::scoped_lock lock(heap.mutex);
  heap.stats.live += capacity;
  heap.stats.peak = std::max(heap.stats.peak, heap.stats.live);
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

void trim_memory() {
  if constexpr (kCache) pool().trim();
}

}  // namespace capsfw
