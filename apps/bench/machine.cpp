#include "machine.hpp"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <capsfw/capsfw.hpp>

#include "common/text.hpp"

namespace capsfw::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

constexpr int kChains = 16;  // independent sums: more than latency times width of the FMA units

/// `rounds` multiply-adds in each of kChains vectors. The compiler contracts x * a + b.
template <class V>
[[gnu::always_inline]] inline float burn(std::int64_t rounds) {
  V x[kChains];
  for (int i = 0; i < kChains; ++i) x[i] = V{} + 0.01F * static_cast<float>(i);
  const V a = V{} + 0.9999F, b = V{} + 1e-3F;
  for (std::int64_t k = 0; k < rounds; ++k)
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) x[i] = x[i] * a + b;
  float total = 0;
  for (int i = 0; i < kChains; ++i) total += x[i][0];
  return total;
}

using Vec4 [[gnu::vector_size(16)]] = float;
using Vec8 [[gnu::vector_size(32)]] = float;
using Vec16 [[gnu::vector_size(64)]] = float;

float burn4(std::int64_t rounds) { return burn<Vec4>(rounds); }
#if defined(__x86_64__)
[[gnu::target("avx2,fma")]] float burn8(std::int64_t rounds) { return burn<Vec8>(rounds); }
[[gnu::target("avx512f")]] float burn16(std::int64_t rounds) { return burn<Vec16>(rounds); }
#endif

struct Burner {
  float (*run)(std::int64_t);
  int lanes;
};

Burner widest() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return {burn16, 16};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {burn8, 8};
#endif
  return {burn4, 4};
}

/// The processors that this process may use.
std::vector<int> processors() {
  std::vector<int> ids;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int i = 0; i < CPU_SETSIZE; ++i)
      if (CPU_ISSET(i, &set)) ids.push_back(i);
  return ids;
}

void pin(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

template <class F>
double median_of(int n, const F& f) {
  std::vector<double> v;
  for (int i = 0; i < n; ++i) v.push_back(f());
  return apps::median(v);
}

template <class F>
double time_of(const F& f) {
  const auto start = Clock::now();
  f();
  return seconds(Clock::now() - start);
}

constexpr std::int64_t kFloats = std::int64_t{64} << 20;  // 256 MiB: beyond every cache

double read_gbs(const float* a) {
  std::atomic<float> sink{0};
  const double t = time_of([&] {
    parallel_for(kFloats / 16, 4, [&](std::int64_t begin, std::int64_t end) {
      float s[64] = {};  // enough independent sums to wait for memory alone
      for (const float* p = a + begin * 16; p + 64 <= a + end * 16; p += 64)
        for (int i = 0; i < 64; ++i) s[i] += p[i];
      for (int i = 1; i < 64; ++i) s[0] += s[i];
      sink.store(s[0], std::memory_order_relaxed);
    });
  });
  return 4e-9 * static_cast<double>(kFloats) / t;
}

double triad_gbs(float* a, const float* b, const float* c) {
  const double t = time_of([&] {
    parallel_for(kFloats, 1, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) a[i] = b[i] + 3.0F * c[i];
    });
  });
  return 12e-9 * static_cast<double>(kFloats) / t;
}

}  // namespace

double fma_gflops(int threads, std::int64_t rounds) {
  const std::vector<int> ids = processors();
  const Burner burner = widest();
  std::vector<Clock::time_point> start(static_cast<std::size_t>(threads)), stop(start);
  std::atomic<float> sink{0};
  std::barrier ready(threads);
  std::vector<std::jthread> team;
  for (std::size_t k = 0; k < start.size(); ++k)
    team.emplace_back([&, k] {
      if (!ids.empty()) pin(ids[k % ids.size()]);
      ready.arrive_and_wait();
      start[k] = Clock::now();
      sink.store(burner.run(rounds), std::memory_order_relaxed);
      stop[k] = Clock::now();
    });
  team.clear();
  const double t = seconds(*std::max_element(stop.begin(), stop.end()) -
                           *std::min_element(start.begin(), start.end()));
  return 2e-9 * threads * burner.lanes * kChains * static_cast<double>(rounds) / t;
}

Limits measure_limits() {
  Limits limits;
  limits.fma = median_of(5, [] { return fma_gflops(num_threads(), 20'000'000); });
  const NoGradGuard no_grad;
  {
    Rng rng(1);
    const Tensor a = randn({2048, 2048}, rng), b = randn({2048, 2048}, rng);
    matmul(a, b);
    limits.sgemm =
        median_of(5, [&] { return 2e-9 * 2048 * 2048 * 2048 / time_of([&] { matmul(a, b); }); });
  }
  {
    Tensor a = zeros({kFloats}), b = ones({kFloats}), c = ones({kFloats});
    float* pa = a.mutable_data<float>();
    const float *pb = b.data<float>(), *pc = c.data<float>();
    limits.read = median_of(5, [&] { return read_gbs(pb); });
    limits.triad = median_of(5, [&] { return triad_gbs(pa, pb, pc); });
  }
  trim_memory();
  return limits;
}

CpuTime cpu_time() {
  // cpu  user nice system idle iowait irq softirq steal, in clock ticks.
  std::ifstream in("/proc/stat");
  std::string name;
  double v[8] = {};
  in >> name;
  for (double& x : v) in >> x;
  const auto hz = static_cast<double>(sysconf(_SC_CLK_TCK));
  return {(v[0] + v[1] + v[2] + v[5] + v[6]) / hz, v[7] / hz};
}

double own_cpu_time() {
  double total = 0;
  for (const auto who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
    rusage u{};
    getrusage(who, &u);
    for (const timeval& t : {u.ru_utime, u.ru_stime})
      total += static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  }
  return total;
}

Probe::Probe(int threads)
    : threads_(std::min<int>(threads, std::max<int>(1, static_cast<int>(processors().size())))) {
  for (int i = 0; i < 20; ++i) best_ = std::max(best_, fma_gflops(threads_));
}

bool Probe::all_there() {
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  double now = 0;
  for (int i = 0; i < 2; ++i) now = std::max(now, fma_gflops(threads_));
  best_ = std::max(best_, now);
  return now >= 0.8 * best_;
}

}  // namespace capsfw::bench
