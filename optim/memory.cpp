#include <capsfw/optim/memory.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>

namespace capsfw {
namespace {

constexpr double kKib = 1024;

/// The number behind `key` in a file of lines.
std::optional<double> number_after(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    std::istringstream rest(line.substr(key.size()));
    if (double v = 0; rest >> v) return v;
  }
  return std::nullopt;
}

/// What the limit of a control group leaves; pages of files go when they must, and do not count.
std::optional<double> left_of_group(const char* limit, const char* usage, const char* stat) {
  const auto most = number_after(limit, ""), now = number_after(usage, "");
  if (!most || !now) return std::nullopt;  // "max": no limit
  return std::max(0.0, *most - *now + number_after(stat, "inactive_file").value_or(0));
}

}  // namespace

double peak_memory_mb() {
  constexpr double kMbPerKib = kKib / 1e6;
  if (const auto kib = number_after("/proc/self/status", "VmHWM:")) return *kib * kMbPerKib;
  // Some containers hide that line; the kernel's own count has the same unit.
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * kMbPerKib;
}

std::size_t resident_memory() {
  return static_cast<std::size_t>(kKib * number_after("/proc/self/status", "VmRSS:").value_or(0));
}

std::size_t available_memory() {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double left = kKib * number_after("/proc/meminfo", "MemAvailable:").value_or(kNone);
  auto group = left_of_group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                             "/sys/fs/cgroup/memory.stat");
  if (!group)
    group = left_of_group("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                          "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                          "/sys/fs/cgroup/memory/memory.stat");
  left = std::min(left, group.value_or(kNone));
  return left == kNone ? 0 : static_cast<std::size_t>(left);
}

}  // namespace capsfw
