#include <capsfw/core/runtime.hpp>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/version.hpp>

#include "blas.hpp"
#include "blas_check.hpp"
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

std::string environment(const char* name) {
  const char* v = std::getenv(name);
  return v == nullptr ? "" : v;
}

/// The vector instructions of OpenBLAS's kernels for x86-64. What is not listed here is older.
detail::Isa isa_of(std::string_view core) {
  constexpr std::string_view kAvx512[] = {"SkylakeX", "Cooperlake", "Sapphirerapids"};
  constexpr std::string_view kAvx2[] = {"Haswell", "Zen", "Excavator"};
  const auto same = [&](std::string_view name) {
    return std::equal(core.begin(), core.end(), name.begin(), name.end(), [](char a, char b) {
      return std::tolower(static_cast<unsigned char>(a)) ==
             std::tolower(static_cast<unsigned char>(b));
    });
  };
  if (std::any_of(std::begin(kAvx512), std::end(kAvx512), same)) return detail::Isa::avx512;
  if (std::any_of(std::begin(kAvx2), std::end(kAvx2), same)) return detail::Isa::avx2;
  return detail::Isa::baseline;
}

}  // namespace

std::vector<std::string> detail::blas_warnings(std::string_view core,
                                               Isa cpu,
                                               std::string_view coretype,
                                               std::string_view l2_size) {
  std::vector<std::string> warnings;
  if (isa_of(core) < cpu) {
    // Measured with AVX2 kernels on a CPU with AVX-512; older kernels lose more.
    const std::string loss = fmt::format("{} kernels on a CPU with {}: half its speed or less",
                                         core, cpu == Isa::avx512 ? "AVX-512" : "AVX2");
    warnings.push_back(
        coretype.empty()
            ? fmt::format("this OpenBLAS chose {}. Cure: a newer libopenblas0-pthread, or "
                          "OPENBLAS_CORETYPE={}",
                          loss, cpu == Isa::avx512 ? "SkylakeX" : "Haswell")
            : fmt::format("OPENBLAS_CORETYPE={} makes OpenBLAS use {}. Cure: unset "
                          "OPENBLAS_CORETYPE",
                          coretype, loss));
  }
  if (!l2_size.empty())
    warnings.push_back(
        fmt::format("OPENBLAS_L2_SIZE={} overrides the cache size that OpenBLAS would find, and "
                    "with it the size of its blocks. Cure: unset OPENBLAS_L2_SIZE",
                    l2_size));
  return warnings;
}

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
  info.warnings = detail::blas_warnings(info.blas, detail::isa(), environment("OPENBLAS_CORETYPE"),
                                        environment("OPENBLAS_L2_SIZE"));
  return info;
}

}  // namespace capsfw
