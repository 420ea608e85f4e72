#pragma once
// Private: products of matrices with a few rows, or a few columns, whose sums stay in registers.

#include <algorithm>
#include <cstdint>

#include "lanes.hpp"

namespace capsfw::kernels {

/// The left operand: element (m, p) is data[m · row + p · column].
template <class T>
struct LeftMatrix {
  const T* data;
  std::int64_t row, column;
};

/// y [M, N vectors] (+)= a [M, depth] · x [depth, N vectors].
template <class L, int M, int N, bool kAdd, class T>
inline void product_tile(
    std::int64_t depth, LeftMatrix<T> a, const T* x, std::int64_t x_row, T* y, std::int64_t y_row) {
  // Few sums would wait for each other: each is made of several.
  constexpr int kWays = M * N >= 8 ? 1 : M * N >= 4 ? 2 : 4;
  typename L::Value sum[kWays * M * N] = {};
  const auto add = [&]<int kWay>(std::int64_t p) {
    typename L::Value v[N];
    for (int n = 0; n < N; ++n) v[n] = L::at(x + p * x_row + n * L::size);
    for (int m = 0; m < M; ++m) {
      const T w = a.data[m * a.row + p * a.column];
      for (int n = 0; n < N; ++n) sum[(kWay * M + m) * N + n] += w * v[n];
    }
  };
  std::int64_t p = 0;
  for (; p + kWays <= depth; p += kWays) {
    add.template operator()<0>(p);
    if constexpr (kWays > 1) add.template operator()<1>(p + 1);
    if constexpr (kWays > 2) {
      add.template operator()<2>(p + 2);
      add.template operator()<3>(p + 3);
    }
  }
  for (; p < depth; ++p) add.template operator()<0>(p);
  for (int k = 1; k < kWays; ++k)
    for (int m = 0; m < M * N; ++m) sum[m] += sum[k * M * N + m];
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) {
      T* out = y + m * y_row + n * L::size;
      L::at(out) = kAdd ? L::at(out) + sum[m * N + n] : sum[m * N + n];
    }
}

/// y [rows, width] (+)= a [rows, depth] · x [depth, width]. The width is a multiple of L::size.
template <class L, bool kAdd, class T>
inline void small_product(std::int64_t rows,
                          std::int64_t depth,
                          std::int64_t width,
                          LeftMatrix<T> a,
                          const T* x,
                          std::int64_t x_row,
                          T* y,
                          std::int64_t y_row) {
  constexpr int kMost = L::size * sizeof(T) == 64 ? 8 : 4;  // rows: half of the registers
  for_rows<kMost>(rows, [&]<int M>(std::int64_t m) {
    const LeftMatrix<T> left{a.data + m * a.row, a.row, a.column};
    std::int64_t n = 0;
    for (; n + 2 * L::size <= width; n += 2 * L::size)
      product_tile<L, M, 2, kAdd>(depth, left, x + n, x_row, y + m * y_row + n, y_row);
    for (; n < width; n += L::size)
      product_tile<L, M, 1, kAdd>(depth, left, x + n, x_row, y + m * y_row + n, y_row);
  });
}

}  // namespace capsfw::kernels
