#include "simd.hpp"

#include <cstdlib>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::detail {
namespace {

Isa best() {
#if defined(__x86_64__) && !defined(CAPSFW_NO_SIMD)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("bmi2"))
    return Isa::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return Isa::avx2;
#endif
  return Isa::baseline;
}

Isa chosen() {
  const char* env = std::getenv("CAPSFW_ISA");
  if (env == nullptr || *env == '\0') return best();
  for (Isa i : {Isa::baseline, Isa::avx2, Isa::avx512})
    if (name_of(i) == env) return i < best() ? i : best();
  throw ValueError(fmt::format("CAPSFW_ISA must be baseline, avx2 or avx512; got '{}'", env));
}

}  // namespace

std::string_view name_of(Isa isa) {
  constexpr std::string_view names[] = {"baseline", "avx2", "avx512"};
  return names[static_cast<int>(isa)];
}

Isa isa() {
  static const Isa value = chosen();
  return value;
}

bool flushes_denormals() {
#if defined(__SSE2__) && !defined(CAPSFW_NO_SIMD)
  return true;
#else
  return false;
#endif
}

}  // namespace capsfw::detail
