#include "panel.hpp"

#include <cstring>
#include <type_traits>

#include "lanes.hpp"

namespace capsfw::kernels {
namespace {

/// Left operands: row by row, the same transposed, and elements that lie anywhere.
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
template <class T>
struct Gathered {
  const T* const* a;
  const std::int64_t* places;
  T operator()(std::int64_t r, std::int64_t k) const { return a[r][places[k]]; }
  Gathered from(std::int64_t r) const { return {a + r, places}; }
};

/// One tile: its R rows of N vectors are summed in registers. Each step fetches from `next`,
/// `ahead` elements after the last piece.
template <class L, int R, int N, class T, class Left>
inline void tile(std::int64_t depth,
                 const Left& left,
                 const T* w,
                 const T* next,
                 std::int64_t ahead,
                 T* y,
                 std::int64_t y_row,
                 bool add) {
  typename L::Value sum[R][N] = {};
  for (std::int64_t k = 0; k < depth; ++k, w += N * L::size) {
    // Places need the registers.
    if constexpr (!std::is_same_v<Left, Gathered<T>>) __builtin_prefetch(next + k * ahead, 0, 2);
    typename L::Value v[N];
#pragma GCC unroll 4
    for (int x = 0; x < N; ++x) v[x] = L::at(w + x * L::size);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T f = left(r, k);
#pragma GCC unroll 4
      for (int x = 0; x < N; ++x) sum[r][x] += f * v[x];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int x = 0; x < N; ++x) {
      auto& to = L::at(y + r * y_row + x * L::size);
      to = add ? to + sum[r][x] : sum[r][x];
    }
}

/// y (+)= left · w, tile by tile. Six addresses of rows, and what else the loop needs, are as many
/// as there are registers for. Meanwhile what follows w, the next panel, is fetched.
template <class T, class Left>
void multiply(std::int64_t rows,
              std::int64_t depth,
              const Left& left,
              const T* w,
              std::int64_t width,
              T* y,
              std::int64_t y_row,
              bool add) {
  with_lanes([=]<int kBytes>() {
    using L = Lanes<T, kBytes>;
    constexpr int R = 6;
    const auto tiles = [=]<int N>() {
      const T* next = w + depth * width;
      const std::int64_t ahead = divide_up(width, std::max<std::int64_t>(rows / R, 1));
      std::int64_t r = 0;
      for (; r + R <= rows; r += R)
        tile<L, R, N>(depth, left.from(r), w, next + r / R * depth * ahead, ahead, y + r * y_row,
                      y_row, add);
      for (; r < rows; r += kTileRows)
        tile<L, kTileRows, N>(depth, left.from(r), w, next, 0, y + r * y_row, y_row, add);
    };
    const std::int64_t vectors = width / L::size;
    if (vectors == 1) return tiles.template operator()<1>();
    if (vectors == 2) return tiles.template operator()<2>();
    if constexpr (kBytes == 64) {
      if (vectors == 3) return tiles.template operator()<3>();
      tiles.template operator()<4>();
    }
  });
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
                    std::int64_t y_row,
                    bool add) {
  multiply(rows, depth, ByRows<T>{a, a_row}, w, width, y, y_row, add);
}

void multiply_panel_transposed(std::int64_t rows,
                               std::int64_t depth,
                               const float* a,
                               std::int64_t a_row,
                               const float* w,
                               std::int64_t width,
                               float* y,
                               std::int64_t y_row,
                               bool add) {
  multiply(rows, depth, ByColumns<float>{a, a_row}, w, width, y, y_row, add);
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
  multiply(rows, depth, Gathered<T>{a, places}, w, width, y, y_row, true);
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
  with_lanes([=]<int kBytes>() {
    constexpr int kSide = std::min<int>(kBytes / sizeof(T), 8);
    using L = Lanes<T, kSide* static_cast<int>(sizeof(T))>;
    constexpr std::int64_t kLines = 16, kAhead = 32;
    const std::int64_t whole_rows = rows / kSide * kSide, whole_columns = columns / kSide * kSide;
    if constexpr (kByRows) {
      for (std::int64_t r0 = 0; r0 < whole_rows; r0 += kLines) {
        const std::int64_t r1 = std::min(r0 + kLines, whole_rows);
        for (std::int64_t c = 0; c < whole_columns; c += kSide) {
          for (std::int64_t r = r0; r < r1; ++r)
            __builtin_prefetch(from + r * from_row + c + kAhead);
          for (std::int64_t r = r0; r < r1; r += kSide)
            L::transpose(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
        }
      }
    } else {
      for (std::int64_t c0 = 0; c0 < whole_columns; c0 += kLines) {
        const std::int64_t c1 = std::min(c0 + kLines, whole_columns);
        for (std::int64_t r = 0; r < whole_rows; r += kSide) {
          for (std::int64_t c = c0; c < c1; ++c)
            __builtin_prefetch(to + c * to_row + r + kAhead, 1);
          for (std::int64_t c = c0; c < c1; c += kSide)
            L::transpose(from + r * from_row + c, from_row, to + c * to_row + r, to_row);
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
                             float*,
                             std::int64_t,
                             bool);
template void multiply_panel(std::int64_t,
                             std::int64_t,
                             const double*,
                             std::int64_t,
                             const double*,
                             std::int64_t,
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
