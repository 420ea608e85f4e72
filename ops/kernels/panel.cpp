#include "panel.hpp"

#include <cstring>

namespace capsfw::kernels {
namespace {

/// One tile: R · N sums stay in registers, which the compiler sees because both are constants.
template <class T, int R, int N>
inline void tile(std::int64_t depth,
                 const T* __restrict a,
                 std::int64_t a_row,
                 const T* __restrict w,
                 T* __restrict y,
                 std::int64_t y_row) {
  T sum[R][N] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T f = a[r * a_row + k];
#pragma GCC unroll 4
      for (int x = 0; x < N; ++x) sum[r][x] += f * w[k * N + x];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int x = 0; x < N; ++x) y[r * y_row + x] += sum[r][x];
}

template <class T, int R, int N>
inline void tiles(std::int64_t rows,
                  std::int64_t depth,
                  const T* a,
                  std::int64_t a_row,
                  const T* w,
                  T* y,
                  std::int64_t y_row) {
  for (std::int64_t r = 0; r < rows; r += R)
    tile<T, R, N>(depth, a + r * a_row, a_row, w, y + r * y_row, y_row);
}

}  // namespace

template <class T>
void multiply_panel(std::int64_t rows,
                    std::int64_t depth,
                    const T* a,
                    std::int64_t a_row,
                    const T* w,
                    std::int64_t width,
                    T* y,
                    std::int64_t y_row) {
  constexpr int kSize = sizeof(T);
#if defined(__x86_64__)
  using detail::Isa, detail::run_avx2, detail::run_avx512;
  if (detail::isa() == Isa::avx512) {
    constexpr int kLanes = 64 / kSize;
    switch (width / kLanes) {
      case 1:
        return run_avx512([=] { tiles<T, 8, kLanes>(rows, depth, a, a_row, w, y, y_row); });
      case 2:
        return run_avx512([=] { tiles<T, 8, 2 * kLanes>(rows, depth, a, a_row, w, y, y_row); });
      default:
        return run_avx512([=] { tiles<T, 8, 3 * kLanes>(rows, depth, a, a_row, w, y, y_row); });
    }
  }
  if (detail::isa() == Isa::avx2) {
    constexpr int kLanes = 32 / kSize;
    switch (width / kLanes) {
      case 1:
        return run_avx2([=] { tiles<T, 8, kLanes>(rows, depth, a, a_row, w, y, y_row); });
      case 2:
        return run_avx2([=] { tiles<T, 4, 2 * kLanes>(rows, depth, a, a_row, w, y, y_row); });
      default:
        return run_avx2([=] { tiles<T, 4, 3 * kLanes>(rows, depth, a, a_row, w, y, y_row); });
    }
  }
#endif
  constexpr int kLanes = 16 / kSize;
  if (width == kLanes) return tiles<T, 8, kLanes>(rows, depth, a, a_row, w, y, y_row);
  tiles<T, 4, 2 * kLanes>(rows, depth, a, a_row, w, y, y_row);
}

template <class T>
void transpose_into(std::int64_t rows,
                    std::int64_t columns,
                    const T* from,
                    std::int64_t from_row,
                    T* to,
                    std::int64_t to_row) {
  if (rows == 1 && to_row == 1) {
    std::memcpy(to, from, static_cast<std::size_t>(columns) * sizeof(T));
    return;
  }
  detail::simd([=] {
    constexpr std::int64_t kBlock = 8;
    const std::int64_t whole_rows = rows / kBlock * kBlock,
                       whole_columns = columns / kBlock * kBlock;
    for (std::int64_t c = 0; c < whole_columns; c += kBlock)
      for (std::int64_t r = 0; r < whole_rows; r += kBlock) {
        const T* __restrict p = from + r * from_row + c;
        T* __restrict q = to + c * to_row + r;
#pragma GCC unroll 8
        for (std::int64_t j = 0; j < kBlock; ++j)
#pragma GCC unroll 8
          for (std::int64_t i = 0; i < kBlock; ++i) q[j * to_row + i] = p[i * from_row + j];
      }
    for (std::int64_t c = whole_columns; c < columns; ++c)
      for (std::int64_t r = 0; r < whole_rows; ++r) to[c * to_row + r] = from[r * from_row + c];
    for (std::int64_t r = whole_rows; r < rows; ++r)
      for (std::int64_t c = 0; c < columns; ++c) to[c * to_row + r] = from[r * from_row + c];
  });
}

template void multiply_panel(std::int64_t,
                             std::int64_t,
                             const float*,
                             std::int64_t,
                             const float*,
                             std::int64_t,
                             float*,
                             std::int64_t);
template void multiply_panel(std::int64_t,
                             std::int64_t,
                             const double*,
                             std::int64_t,
                             const double*,
                             std::int64_t,
                             double*,
                             std::int64_t);
template void transpose_into(
    std::int64_t, std::int64_t, const float*, std::int64_t, float*, std::int64_t);
template void transpose_into(
    std::int64_t, std::int64_t, const double*, std::int64_t, double*, std::int64_t);

}  // namespace capsfw::kernels
