#pragma once
// Private: numbers below the normal range (1.2e-38 in f32), which gradients that vanish are made
// of. An Intel core takes a hundred times as long for a product with one of them.

#if defined(__SSE2__) && !defined(CAPSFW_NO_SIMD)
#include <xmmintrin.h>
#endif

namespace capsfw::detail {

/// For the length of a scope this thread reads such numbers as 0 and writes 0 in their place, where
/// the processor can be told to: inside the bodies of parallel loops that are mostly products.
/// Elementwise ops keep them.
class FlushDenormals {
 public:
#if defined(__SSE2__) && !defined(CAPSFW_NO_SIMD)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kToZero | kAreZero); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned kToZero = 0x8000, kAreZero = 0x0040;
  unsigned before_;

 public:
#else
  FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace capsfw::detail
