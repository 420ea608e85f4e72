#include <capsfw/core/parallel.hpp>

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>

#include <fmt/format.h>
#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/task_arena.h>

#include <capsfw/core/error.hpp>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace capsfw {
namespace {

/// What precedes release() happens before what follows acquire(). oneTBB sees to that by itself;
/// the thread sanitizer, which cannot look into it, has to be told. Only the addresses of these
/// matter; a chunk has to know them before it may look at anything that the caller wrote.
struct Order {
#if defined(__SANITIZE_THREAD__)
  void release() { __tsan_release(this); }
  void acquire() { __tsan_acquire(this); }
#else
  void release() {}
  void acquire() {}
#endif
} g_started, g_ended;

/// Processors granted by the control group (v2, then v1), rounded up; a large number without a
/// quota.
int quota() {
  double max = 0, period = 0;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> max >> period && period > 0)
    return std::max(1, static_cast<int>((max + period - 1) / period));
  std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (q >> max && p >> period && max > 0 && period > 0)
    return std::max(1, static_cast<int>((max + period - 1) / period));
  return 1 << 20;
}

// The system refuses to start far more, and oneTBB ends the process over it.
constexpr int kMaxThreads = 1024;

int default_threads() {
  if (const char* env = std::getenv("CAPSFW_NUM_THREADS"); env != nullptr && *env != '\0') {
    int n = 0;
    const char* end = env + std::strlen(env);
    if (std::from_chars(env, end, n).ptr != end || n < 1 || n > kMaxThreads)
      throw ValueError(fmt::format(
          "CAPSFW_NUM_THREADS must be a whole number from 1 to {}; got '{}'", kMaxThreads, env));
    return n;
  }
  cpu_set_t set;
  const int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::clamp(quota(), 1, std::min(cpus, kMaxThreads));
}

/// The arena in which all work runs. Its concurrency is the number of threads; global_control lifts
/// oneTBB's own limit when more threads than processors are asked for (the determinism tests do).
struct Threads {
  explicit Threads(int n)
      : count(n),
        control(oneapi::tbb::global_control::max_allowed_parallelism, static_cast<std::size_t>(n)),
        arena(n) {}
  int count;
  oneapi::tbb::global_control control;
  oneapi::tbb::task_arena arena;
};

std::mutex g_mutex;
std::unique_ptr<Threads>& threads_slot() {
  static auto* slot = new std::unique_ptr<Threads>;  // outlives static destructors
  return *slot;
}

Threads& threads() {
  auto& slot = threads_slot();
  // Several threads may come here first: the loader's, and the one that trains.
  static const bool made = [&] {
    const std::scoped_lock lock(g_mutex);
    if (!slot) slot = std::make_unique<Threads>(default_threads());
    return true;
  }();
  static_cast<void>(made);
  return *slot;
}

constexpr std::int64_t kChunkCost = 32768;

}  // namespace

int num_threads() { return threads().count; }

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads)
    throw ValueError(
        fmt::format("set_num_threads: at least 1 and at most {}; got {}", kMaxThreads, n));
  const std::scoped_lock lock(g_mutex);
  auto& slot = threads_slot();
  slot.reset();
  slot = std::make_unique<Threads>(n);
}

int thread_place() {
  return std::max(0, oneapi::tbb::this_task_arena::current_thread_index());  // outside: none
}

std::int64_t parallel_chunk(std::int64_t n, std::int64_t cost) {
  return std::clamp<std::int64_t>(kChunkCost / std::max<std::int64_t>(cost, 1), 1,
                                  std::max<std::int64_t>(n, 1));
}

void parallel_for(std::int64_t n,
                  std::int64_t cost,
                  detail::FunctionRef<void(std::int64_t, std::int64_t)> body) {
  if (n <= 0) return;
  const std::int64_t chunk = parallel_chunk(n, cost);
  const std::int64_t count = (n + chunk - 1) / chunk;
  const auto one = [&](std::int64_t k) { body(k * chunk, std::min(n, (k + 1) * chunk)); };
  Threads& t = threads();
  if (count == 1 || t.count == 1) {
    for (std::int64_t k = 0; k < count; ++k) one(k);
    return;
  }
  const auto watched = [&](std::int64_t k) {
    g_started.acquire();
    one(k);
    g_ended.release();
  };
  // Where all places are taken by other threads of the program, one of those runs this.
  const auto all = [&] {
    g_started.acquire();
    oneapi::tbb::parallel_for(std::int64_t{0}, count, watched);
    g_ended.release();
  };
  g_started.release();
  t.arena.execute(all);
  g_ended.acquire();
}

}  // namespace capsfw
