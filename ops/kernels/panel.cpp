#include "panel.hpp"

#include <cstring>

namespace capsfw::kernels {
namespace {

/// A left operand, row by row, and the same transposed.
template <class T>
struct ByRows {
  const T* a;
  std::int64_t row;
  T operator()(std::int64_t r, std::int64_t k) const { return a[r * row + k]; }
  ByRows from(std::int64_t r) const { return {a + r * row, row}; }
};
template <class T>
struct ByColumns {
  const T* a;
  std::int64_t column;
  T operator()(std::int64_t r, std::int64_t k) const { return a[k * column + r]; }
  ByColumns from(std::int64_t r) const { return {a + r, column}; }
};
/// y (+)= the sums of a tile.
template <class T, int R, int N>
inline void put(const T (&sum)[R][N], T* y, std::int64_t y_row, bool add) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int x = 0; x < N; ++x) y[r * y_row + x] = add ? y[r * y_row + x] + sum[r][x] : sum[r][x];
}

/// One tile: R · N sums stay in registers, which the compiler sees because both are constants. Each
/// step fetches a piece of the next panel, `ahead` elements after the last piece.
template <class T, int R, int N, class Left>
inline void tile(std::int64_t depth,
                 const Left& left,
                 const T* __restrict w,
                 T* __restrict y,
                 std::int64_t y_row,
                 bool add,
                 const T* next,
                 std::int64_t ahead) {
  T sum[R][N] = {};
  for (std::int64_t k = 0; k < depth; ++k) {
    __builtin_prefetch(next + k * ahead, 0, 2);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T f = left(r, k);
#pragma GCC unroll 4
      for (int x = 0; x < N; ++x) sum[r][x] += f * w[k * N + x];
    }
  }
  put(sum, y, y_row, add);
}

template <class T, int R, int N, class Left>
inline void tiles(std::int64_t rows,
                  std::int64_t depth,
                  const Left& left,
                  const T* w,
                  const T* next,
                  T* y,
                  std::int64_t y_row,
                  bool add) {
  const std::int64_t ahead = divide_up(N * R, std::max<std::int64_t>(rows, 1));
  for (std::int64_t r = 0; r < rows; r += R)
    tile<T, R, N>(depth, left.from(r), w, y + r * y_row, y_row, add, next + r / R * depth * ahead,
                  ahead);
}

/// Tiles of a left operand whose elements lie anywhere. The loop keeps R addresses, and little
/// else, in registers: so it counts nothing and fetches nothing ahead.
template <class T, int R, int N>
inline void gathered_tiles(std::int64_t rows,
                           std::int64_t depth,
                           const T* const* a,
                           const std::int64_t* places,
                           const T* weights,
                           T* y,
                           std::int64_t y_row) {
  for (std::int64_t first = 0; first < rows; first += R, a += R, y += R * y_row) {
    const T* row[R];
    for (int r = 0; r < R; ++r) row[r] = a[r];
    T sum[R][N] = {};
    const T* __restrict w = weights;
    for (const std::int64_t* __restrict p = places; p != places + depth; ++p, w += N) {
      const std::int64_t at = *p;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T f = row[r][at];
#pragma GCC unroll 4
        for (int x = 0; x < N; ++x) sum[r][x] += f * w[x];
      }
    }
    put(sum, y, y_row, true);
  }
}

template <class T>
inline void block8(const T* __restrict from,
                   std::int64_t from_row,
                   T* __restrict to,
                   std::int64_t to_row) {
#pragma GCC unroll 8
  for (std::int64_t j = 0; j < 8; ++j)
#pragma GCC unroll 8
    for (std::int64_t i = 0; i < 8; ++i) to[j * to_row + i] = from[i * from_row + j];
}

/// Calls run<R, N>() for a panel of so many columns, with the widest vectors of this CPU.
template <class T, class Run>
void with_tile(std::int64_t width, const Run& run) {
  constexpr int kSize = sizeof(T);
#if defined(__x86_64__) && !defined(CAPSFW_NO_SIMD)
  using detail::Isa, detail::run_avx2, detail::run_avx512;
  if (detail::isa() == Isa::avx512) {
    constexpr int kLanes = 64 / kSize;
    switch (width / kLanes) {
      case 1:
        return run_avx512([=] { run.template operator()<8, kLanes>(); });
      case 2:
        return run_avx512([=] { run.template operator()<8, 2 * kLanes>(); });
      default:
        return run_avx512([=] { run.template operator()<8, 3 * kLanes>(); });
    }
  }
  if (detail::isa() == Isa::avx2) {
    constexpr int kLanes = 32 / kSize;
    switch (width / kLanes) {
      case 1:
        return run_avx2([=] { run.template operator()<8, kLanes>(); });
      case 2:
        return run_avx2([=] { run.template operator()<4, 2 * kLanes>(); });
      default:
        return run_avx2([=] { run.template operator()<4, 3 * kLanes>(); });
    }
  }
#endif
  constexpr int kLanes = 16 / kSize;
  if (width == kLanes) return run.template operator()<8, kLanes>();
  run.template operator()<4, 2 * kLanes>();
}

}  // namespace

template <class T>
void multiply_panel(std::int64_t rows,
                    std::int64_t depth,
                    const T* a,
                    std::int64_t a_row,
                    const T* w,
                    std::int64_t width,
                    const T* next,
                    T* y,
                    std::int64_t y_row,
                    bool add) {
  with_tile<T>(width, [=]<int R, int N>() {
    tiles<T, R, N>(rows, depth, ByRows<T>{a, a_row}, w, next, y, y_row, add);
  });
}

void multiply_panel_transposed(std::int64_t rows,
                               std::int64_t depth,
                               const float* a,
                               std::int64_t a_row,
                               const float* w,
                               std::int64_t width,
                               const float* next,
                               float* y,
                               std::int64_t y_row,
                               bool add) {
  with_tile<float>(width, [=]<int R, int N>() {
    tiles<float, R, N>(rows, depth, ByColumns<float>{a, a_row}, w, next, y, y_row, add);
  });
}

template <class T>
void multiply_panel_gathered(std::int64_t rows,
                             std::int64_t depth,
                             const T* const* a,
                             const std::int64_t* places,
                             const T* w,
                             std::int64_t width,
                             T* y,
                             std::int64_t y_row) {
  with_tile<T>(
      width, [=]<int R, int N>() { gathered_tiles<T, R, N>(rows, depth, a, places, w, y, y_row); });
}

template <class T, bool kByRows>
void transpose(std::int64_t rows,
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
    constexpr std::int64_t kLines = 16, kAhead = 32;
    const std::int64_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
    if constexpr (kByRows) {
      for (std::int64_t r0 = 0; r0 < whole_rows; r0 += kLines) {
        const std::int64_t r1 = std::min(r0 + kLines, whole_rows);
        for (std::int64_t c = 0; c < whole_columns; c += 8) {
          for (std::int64_t r = r0; r < r1; ++r)
            __builtin_prefetch(from + r * from_row + c + kAhead);
          for (std::int64_t r = r0; r < r1; r += 8)
            block8(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
        }
      }
    } else {
      for (std::int64_t c0 = 0; c0 < whole_columns; c0 += kLines) {
        const std::int64_t c1 = std::min(c0 + kLines, whole_columns);
        for (std::int64_t r = 0; r < whole_rows; r += 8) {
          for (std::int64_t c = c0; c < c1; ++c)
            __builtin_prefetch(to + c * to_row + r + kAhead, 1);
          for (std::int64_t c = c0; c < c1; c += 8)
            block8(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
        }
      }
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
                             const float*,
                             float*,
                             std::int64_t,
                             bool);
template void multiply_panel(std::int64_t,
                             std::int64_t,
                             const double*,
                             std::int64_t,
                             const double*,
                             std::int64_t,
                             const double*,
                             double*,
                             std::int64_t,
                             bool);
template void multiply_panel_gathered(std::int64_t,
                                      std::int64_t,
                                      const float* const*,
                                      const std::int64_t*,
                                      const float*,
                                      std::int64_t,
                                      float*,
                                      std::int64_t);
template void multiply_panel_gathered(std::int64_t,
                                      std::int64_t,
                                      const double* const*,
                                      const std::int64_t*,
                                      const double*,
                                      std::int64_t,
                                      double*,
                                      std::int64_t);
template void transpose<float, true>(
    std::int64_t, std::int64_t, const float*, std::int64_t, float*, std::int64_t);
template void transpose<float, false>(
    std::int64_t, std::int64_t, const float*, std::int64_t, float*, std::int64_t);
template void transpose<double, true>(
    std::int64_t, std::int64_t, const double*, std::int64_t, double*, std::int64_t);
template void transpose<double, false>(
    std::int64_t, std::int64_t, const double*, std::int64_t, double*, std::int64_t);

}  // namespace capsfw::kernels
