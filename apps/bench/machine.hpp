#pragma once
// What the machine can do, measured: the yardstick for the percentages, and the probe that tells
// whether all processors are really there.

#include <cstdint>

namespace capsfw::bench {

/// Medians of short measurements with the threads of the library.
struct Limits {
  double fma = 0;    ///< GFLOP/s of fused multiply-adds in registers, f32
  double sgemm = 0;  ///< GFLOP/s of matmul, 2048 x 2048 x 2048, f32
  double read = 0;   ///< GB/s of reading 256 MiB
  double triad = 0;  ///< GB/s of a = b + 3 c over 3 x 256 MiB
};

/// Takes about three seconds.
Limits measure_limits();

/// GFLOP/s of a burst of fused multiply-adds on `threads` processors, one thread pinned to each.
/// 700,000 rounds last about 1.5 ms.
double fma_gflops(int threads, std::int64_t rounds = 700'000);

/// CPU seconds since the machine started: of all processes, and stolen by the hypervisor.
struct CpuTime {
  double busy = 0, stolen = 0;
};
CpuTime cpu_time();
/// CPU seconds of this process and of its children that have ended.
double own_cpu_time();

/// Virtual processors share a physical core now and then, which halves everything. The probe
/// compares a short burst with the best one seen.
class Probe {
 public:
  /// Looks for the best burst of some.
  explicit Probe(int threads);
  /// True if the processors reach 80 % of the best burst now. Sleeps 10 ms first, so that the
  /// worker threads of others go to rest.
  bool all_there();

 private:
  int threads_;
  double best_ = 0;
};

}  // namespace capsfw::bench
