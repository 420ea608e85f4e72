#pragma once
// Private: run-time choice of vector instructions. simd(body) compiles the loops of `body` three
// times and runs the widest version that this CPU has, so that a portable build is as fast as a
// native one. The body must be a lambda whose calls can all be inlined; it sees pointers and
// numbers only.

#include <string_view>

namespace capsfw::detail {

enum class Isa { baseline, avx2, avx512 };

/// The instruction set in use: what the CPU has, or less if CAPSFW_ISA names it (baseline, avx2,
/// avx512).
Isa isa();
std::string_view name_of(Isa isa);
/// False where FlushDenormals (denormals.hpp) changes nothing.
bool flushes_denormals();

#if defined(__x86_64__) && !defined(CAPSFW_NO_SIMD)
#if defined(__clang__)  // clang takes the width as a function attribute of another name
#define CAPSFW_TARGET_AVX512                                                    \
  gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2"), \
      clang::min_vector_width(512)
#else
#define CAPSFW_TARGET_AVX512 \
  gnu::target(               \
      "avx512f,avx512bw,avx512dq,avx512vl,avx512cd,avx2,fma,bmi,bmi2,prefer-vector-width=512")
#endif
template <class Body>
[[gnu::flatten, gnu::noinline, CAPSFW_TARGET_AVX512]] void run_avx512(const Body& body) {
  body();
}
#undef CAPSFW_TARGET_AVX512
template <class Body>
[[gnu::flatten, gnu::noinline, gnu::target("avx2,fma,bmi,bmi2")]] void run_avx2(const Body& body) {
  body();
}
#endif

template <class Body>
inline void simd(const Body& body) {
#if defined(__x86_64__) && !defined(CAPSFW_NO_SIMD)
  switch (isa()) {
    case Isa::avx512:
      return run_avx512(body);
    case Isa::avx2:
      return run_avx2(body);
    case Isa::baseline:
      break;
  }
#endif
  body();
}

}  // namespace capsfw::detail
