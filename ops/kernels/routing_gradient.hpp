#pragma once
// Private: the gradient of the votes of dynamic routing, from what the pull-back of each iteration
// left (routing.hpp).

#include <algorithm>
#include <cstdint>
#include <utility>

#if defined(__SSE2__) && !defined(CAPSFW_NO_SIMD)
#include <emmintrin.h>
#endif

#include "routing.hpp"

namespace capsfw::kernels {

/// What each of `count` iterations leaves to the gradient of the votes: c_ij gs_j + gb_ij v_j.
template <class T>
struct RoutingTerms {
  int count;           ///< at least 1
  const T *c, *gb;     ///< of the first one, [I, J], packed
  const T *gs, *v;     ///< of the first one, [J, D]
  std::int64_t table;  ///< from there to the c and gb of the next one
  std::int64_t caps;   ///< ... and to its gs and v
};

/// So many iterations at most are gathered at once.
inline constexpr int kRoutingTerms = 9;

/// What happens to results: written, added to what is there, or written past the caches (for more
/// numbers than those hold: saves reading memory that is about to be overwritten).
enum class Put { write, add, stream };

/// 64 bytes, aligned, to memory without a copy in the caches, where the CPU can.
inline void stream_line(const float* p, float* out) {
#if defined(__SSE2__) && !defined(CAPSFW_NO_SIMD)
  for (int k = 0; k < 16; k += 4) _mm_stream_ps(out + k, _mm_loadu_ps(p + k));
#else
  std::copy_n(p, 16, out);
#endif
}

/// Makes streamed lines visible to other threads.
inline void finish_stream() {
#if defined(__SSE2__) && !defined(CAPSFW_NO_SIMD)
  _mm_sfence();
#endif
}

/// gû_ij = base_j + Σ over the terms, for rows [begin, end). Put::stream: D = 16 and float only.
template <int D, Put kPut, class T>
inline void routing_gradient(const RoutingTerms<T>& terms,
                             const T* base,
                             std::int64_t begin,
                             std::int64_t end,
                             std::int64_t j_count,
                             std::int64_t d_count,
                             T* gu) {
  constexpr int kWidth = D > 0 ? D : 16;
  const std::int64_t d = D > 0 ? D : d_count, stride = j_count * d;
  for_row_blocks(begin, end, [=]<int L>(std::int64_t i) {
    constexpr int kRows = L > 1 ? 8 : 1;
    for (int k = 0; k < L; k += kRows)
      for (std::int64_t x = 0, width = 0; x < stride; x += width) {
        width = D > 0 ? D : std::min<std::int64_t>(kWidth, d - x % d);
        const std::int64_t w = i * j_count + x / d * L + k;
        T* out = gu + (i + k) * stride + x;
        T sum[kRows * kWidth] = {}, s[kWidth] = {}, v[kWidth] = {};
        for (int m = 0; m < kRows; ++m)
          for (std::int64_t e = 0; e < width; ++e)
            sum[m * kWidth + e] =
                kPut == Put::add ? base[x + e] + out[m * stride + e] : base[x + e];
        int p = 0;
        do {  // at least once: without a way around the loop the sums stay in registers
          const std::int64_t at = w + p * terms.table, cap = x + p * terms.caps;
          T c[kRows], g[kRows];
          for (int m = 0; m < kRows; ++m) c[m] = terms.c[at + m], g[m] = terms.gb[at + m];
          for (std::int64_t e = 0; e < width; ++e)
            s[e] = terms.gs[cap + e], v[e] = terms.v[cap + e];
          const auto add = [&]<int... M>(std::integer_sequence<int, M...>) {
            for (int e = 0; e < kWidth; ++e)
              ((sum[M * kWidth + e] = sum[M * kWidth + e] + c[M] * s[e] + g[M] * v[e]), ...);
          };
          add(std::make_integer_sequence<int, kRows>());
        } while (++p < terms.count);
        for (int m = 0; m < kRows; ++m)
          if constexpr (kPut == Put::stream)
            stream_line(sum + m * kWidth, out + m * stride);
          else
            std::copy_n(sum + m * kWidth, width, out + m * stride);
      }
  });
  if constexpr (kPut == Put::stream) finish_stream();
}

}  // namespace capsfw::kernels
