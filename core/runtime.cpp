#include <capsfw/core/runtime.hpp>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/version.hpp>

#include "blas.hpp"
#include "simd.hpp"

namespace capsfw {
namespace {

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.starts_with("model name"))
      if (const auto at = line.find(": "); at != std::string::npos) return line.substr(at + 2);
  return "unknown CPU";
}

bool is_set(const char* name) {
  const char* v = std::getenv(name);
  return v != nullptr && *v != '\0';
}

/// AVX2 kernels on an AVX-512 machine reach half of its speed.
void check_blas(RuntimeInfo& info) {
  constexpr std::array<std::string_view, 4> kWide = {"SkylakeX", "Cooperlake", "Sapphirerapids",
                                                     "SapphireRapids"};
  const bool slow = detail::isa() == detail::Isa::avx512 &&
                    std::find(kWide.begin(), kWide.end(), info.blas) == kWide.end();
  if (slow && is_set("OPENBLAS_CORETYPE"))
    info.warnings.push_back(fmt::format(
        "OPENBLAS_CORETYPE={} makes OpenBLAS use {} kernels on a CPU with AVX-512: about half "
        "its speed. Cure: unset OPENBLAS_CORETYPE",
        std::getenv("OPENBLAS_CORETYPE"), info.blas));
  else if (slow)
    info.warnings.push_back(fmt::format(
        "this OpenBLAS chose {} kernels on a CPU with AVX-512: about half its speed. Cure: a newer "
        "libopenblas0-pthread, or OPENBLAS_CORETYPE=SkylakeX",
        info.blas));
  if (is_set("OPENBLAS_L2_SIZE"))
    info.warnings.push_back(
        "OPENBLAS_L2_SIZE overrides the cache size that OpenBLAS would find. Cure: unset "
        "OPENBLAS_L2_SIZE");
}

}  // namespace

std::string RuntimeInfo::str() const {
  return fmt::format("capsfw {} | {} thread{} | {} | OpenBLAS {} | {}", version, threads,
                     threads == 1 ? "" : "s", instructions, blas, cpu);
}

RuntimeInfo runtime_info() {
  RuntimeInfo info{.version = CAPSFW_VERSION,
                   .cpu = cpu_model(),
                   .instructions = std::string(detail::name_of(detail::isa())),
                   .threads = num_threads(),
                   .blas = detail::blas_core(),
                   .warnings = {}};
  check_blas(info);
  return info;
}

}  // namespace capsfw
