#include "measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "common/text.hpp"

namespace capsfw::bench {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr double kFillMs = 60;

}  // namespace

Summary summarize(const std::vector<Repetition>& repetitions) {
  Summary s;
  s.all = static_cast<int>(repetitions.size());
  s.clean = static_cast<int>(std::count_if(repetitions.begin(), repetitions.end(),
                                           [](const Repetition& r) { return r.clean; }));
  const bool enough = s.clean >= 3 || (s.clean > 0 && 2 * s.clean >= s.all);
  std::vector<double> ms;
  for (const Repetition& r : repetitions)
    if (r.clean || !enough) ms.push_back(r.ms);
  s.used = static_cast<int>(ms.size());
  s.ms = apps::median(ms);
  if (ms.empty()) return s;
  s.low = *std::min_element(ms.begin(), ms.end());
  s.high = *std::max_element(ms.begin(), ms.end());
  return s;
}

double time_steps(const std::function<void()>& step, int steps) {
  const double start = now();
  for (int i = 0; i < steps; ++i) step();
  return 1e3 * (now() - start) / steps;
}

int steps_to_fill(const std::function<void()>& step) {
  time_steps(step, 1);
  double ms = time_steps(step, 1);
  if (ms >= kFillMs) return 1;
  // The first steps are slow: caches, pages, threads. Count again with some more of them.
  ms = time_steps(step, std::clamp(static_cast<int>(kFillMs / std::max(ms, 1e-3)), 1, 20));
  return std::max(1, static_cast<int>(std::ceil(kFillMs / std::max(ms, 1e-4))));
}

Watch::Watch() : cpu_(cpu_time()), own_(own_cpu_time()), start_(now()) {}

bool Watch::undisturbed(double others) const {
  const double elapsed = now() - start_, own = own_cpu_time() - own_ + others;
  const CpuTime cpu = cpu_time();
  const double foreign = cpu.busy - cpu_.busy - own, stolen = cpu.stolen - cpu_.stolen;
  // /proc/stat counts in ticks of 10 ms.
  return foreign <= 0.03 + 0.05 * elapsed && stolen <= 0.02 + 0.05 * elapsed;
}

std::vector<Repetition> measure(const Work& work, const MeasureOptions& o, Probe* probe) {
  if (o.smoke) return {{time_steps(work.step, 1), false}};
  const double start = now();
  const int steps = steps_to_fill(work.step);
  std::vector<Repetition> out;
  int clean = 0;
  bool before = probe == nullptr || probe->all_there();
  while (clean < o.repetitions && static_cast<int>(out.size()) < 3 * o.repetitions &&
         (out.empty() || now() - start < o.max_seconds)) {
    const Watch watch;
    const double ms = time_steps(work.step, steps);
    const bool alone = watch.undisturbed();
    const bool after = probe == nullptr || probe->all_there();
    out.push_back({ms, before && after && alone});
    clean += out.back().clean ? 1 : 0;
    before = after;
  }
  return out;
}

}  // namespace capsfw::bench
