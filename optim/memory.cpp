#include <capsfw/optim/memory.hpp>

#include <sys/resource.h>

#include <fstream>
#include <sstream>
#include <string>

namespace capsfw {

double peak_memory_mb() {
  constexpr double kMbPerKib = 1024.0 / 1e6;
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("VmHWM:")) continue;
    std::istringstream rest(line.substr(6));
    if (double kib = 0; rest >> kib) return kib * kMbPerKib;
  }
  // Some containers hide that line; the kernel's own count has the same unit.
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * kMbPerKib;
}

}  // namespace capsfw
