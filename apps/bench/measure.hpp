#pragma once
// Repetitions of a step, and what is left of them when the machine was somebody else's.

#include <functional>
#include <vector>

#include "machine.hpp"

namespace capsfw::bench {

/// One workload, ready to run.
struct Work {
  std::function<void()> step;
  double items = 0;             ///< images, samples or ops in a step; 0: not counted
  double flops = 0;             ///< of products and convolutions, a multiply-add being two
  double bytes = 0;             ///< least memory traffic: what has to be read and written once
  std::int64_t parameters = 0;  ///< of the network, if it is one
  std::function<double()> peak_rss_mb = {};  ///< of processes that it starts; empty: of this one
};

/// One repetition: as many steps as fill 60 ms.
struct Repetition {
  double ms = 0;       ///< of one step
  bool clean = false;  ///< all processors there before and after, nobody else took them meanwhile
};

/// The clean repetitions if there are at least three of them or as many as half of all, else all.
struct Summary {
  double ms = 0, low = 0, high = 0;  ///< median and range
  int used = 0, clean = 0, all = 0;
};

struct MeasureOptions {
  int repetitions = 7;      ///< clean ones; at most three times as many are run
  double max_seconds = 30;  ///< no new repetition starts after that
  bool smoke = false;       ///< a single step, neither warm-up nor probe
};

Summary summarize(const std::vector<Repetition>& repetitions);

/// How many steps fill 60 ms, after two or more to warm up.
int steps_to_fill(const std::function<void()>& step);
/// Milliseconds of one of `steps` steps.
double time_steps(const std::function<void()>& step, int steps);

/// A stretch of time during which this process should have had the machine.
class Watch {
 public:
  Watch();
  /// True if other processes took at most 5 % of a processor and the hypervisor as little.
  /// `others`: CPU seconds of processes that took part by order.
  bool undisturbed(double others = 0) const;

 private:
  CpuTime cpu_;
  double own_, start_;
};

/// Warm-up, then repetitions, each between two looks at the probe.
std::vector<Repetition> measure(const Work& work, const MeasureOptions& options, Probe* probe);

}  // namespace capsfw::bench
