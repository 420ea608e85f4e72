#pragma once
// Private: vectors of a given width for loops whose sums must stay in registers, which the compiler
// does not find by itself. GCC and Clang translate these types for any instruction set.

#include <cstdint>
#include <utility>

#include "../../core/simd.hpp"

namespace capsfw::kernels {

/// Bytes of the vectors that f.operator()<kBytes>() should use on this CPU; runs it.
template <class F>
inline void with_lanes(const F& f) {
#if defined(__x86_64__) && !defined(CAPSFW_NO_SIMD)
  switch (detail::isa()) {
    case detail::Isa::avx512:
      return detail::run_avx512([=] { f.template operator()<64>(); });
    case detail::Isa::avx2:
      return detail::run_avx2([=] { f.template operator()<32>(); });
    case detail::Isa::baseline:
      break;
  }
#endif
  f.template operator()<16>();
}

/// Calls f.operator()<K>(h) for pieces of [0, d) of K rows, kMost at first.
template <int kMost, class F>
inline void for_rows(std::int64_t d, const F& f) {
  std::int64_t h = 0;
  for (; h + kMost <= d; h += kMost) f.template operator()<kMost>(h);
  if constexpr (kMost > 4)
    for (; h + 4 <= d; h += 4) f.template operator()<4>(h);
  for (; h < d; ++h) f.template operator()<1>(h);
}

/// Vectors of kBytes bytes. Rows of memory are read and written where they lie, aligned or not.
template <class T, int kBytes>
struct Lanes {
  static constexpr int size = kBytes / static_cast<int>(sizeof(T));
  using Value [[gnu::vector_size(kBytes)]] = T;
  using Memory [[gnu::vector_size(kBytes), gnu::aligned(sizeof(T)), gnu::may_alias]] = T;

  static const Memory& at(const T* p) {
    return *static_cast<const Memory*>(static_cast<const void*>(p));
  }
  static Memory& at(T* p) { return *static_cast<Memory*>(static_cast<void*>(p)); }

  /// Exchanges neighbours at a distance of kStep lanes: lane k of `low` is a[k] where bit kStep of
  /// k is 0 and b[k − kStep] elsewhere; lane k of `high` is a[k + kStep] or b[k].
  template <int kStep>
  static void mix(const Value& a, const Value& b, Value& low, Value& high) {
    mix_lanes<kStep>(a, b, low, high, std::make_integer_sequence<int, size>());
  }

  /// out[k] = Σ of the lanes of s[k]. Overwrites s. K: a power of two, at most `size`.
  template <int K>
  static void sums(Value* s, T* out) {
    fold<K, 1>(s);
    for (int k = 0; k < K; ++k) out[k] = s[0][k];
  }

  /// Row k becomes lane k, for `size` rows.
  template <int kStep = 1>
  static void transpose(Value* x) {
    if constexpr (kStep < size) {
      for (int k = 0; k < size; ++k)
        if ((k & kStep) == 0) {
          Value low, high;
          mix<kStep>(x[k], x[k + kStep], low, high);
          x[k] = low, x[k + kStep] = high;
        }
      transpose<2 * kStep>(x);
    }
  }
  /// to[c][r] = from[r][c] for a square of `size` rows; rows are `from_row` and `to_row` apart.
  static void transpose(const T* from, std::int64_t from_row, T* to, std::int64_t to_row) {
    Value x[size];
#pragma GCC unroll 8
    for (int i = 0; i < size; ++i) x[i] = at(from + i * from_row);
    transpose(x);
#pragma GCC unroll 8
    for (int j = 0; j < size; ++j) at(to + j * to_row) = x[j];
  }

 private:
  template <int kStep, int... K>
  static void mix_lanes(
      const Value& a, const Value& b, Value& low, Value& high, std::integer_sequence<int, K...>) {
    low = __builtin_shufflevector(a, b, ((K & kStep) != 0 ? size + K - kStep : K)...);
    high = __builtin_shufflevector(a, b, ((K & kStep) != 0 ? size + K : K + kStep)...);
  }
  /// Merges K vectors: lane k of s[0] becomes the sum of the lanes of s[k mod K].
  template <int K, int kStep>
  static void fold(Value* s) {
    if constexpr (K > 1) {
      for (int k = 0; k < K / 2; ++k) {
        Value low, high;
        mix<kStep>(s[2 * k], s[2 * k + 1], low, high);
        s[k] = low + high;
      }
      fold<K / 2, 2 * kStep>(s);
    } else if constexpr (kStep < size) {
      Value low, high;
      mix<kStep>(s[0], s[0], low, high);
      s[0] = low + high;
      fold<1, 2 * kStep>(s);
    }
  }
};

/// to[c][r] = from[r][c] for r < rows, c < columns, of tables in the first cache.
template <class T>
inline void transpose_table(std::int64_t rows,
                            std::int64_t columns,
                            const T* from,
                            std::int64_t from_row,
                            T* to,
                            std::int64_t to_row) {
  using L = Lanes<T, 16>;
  const std::int64_t whole_rows = rows / L::size * L::size,
                     whole_columns = columns / L::size * L::size;
  for (std::int64_t r = 0; r < whole_rows; r += L::size)
    for (std::int64_t c = 0; c < whole_columns; c += L::size)
      L::transpose(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c)
      to[c * to_row + r] = from[r * from_row + c];
}

}  // namespace capsfw::kernels
