#pragma once
// Private: the matrix product inside a convolution. The right operand is cut into panels of a few
// vectors, so that a tile of 6 rows by one panel is summed in registers. The left operand is read
// where it lies, image patches too: they are never made.

#include <algorithm>
#include <cstdint>

#include "../../core/simd.hpp"

namespace capsfw::kernels {

/// Rows of the left operand and of the result come in multiples of this many in memory.
inline constexpr std::int64_t kTileRows = 2;
/// Terms that one call sums in registers: the widest panel of them takes 32 KB.
inline constexpr std::int64_t kDepth = 128;
/// Between rows of a left operand, which then lie in different sets of the caches.
inline constexpr std::int64_t kSlack = 16;
/// Distance of the rows of a left operand of up to kDepth columns.
inline constexpr std::int64_t kRowStride = kDepth + kSlack;

inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
inline std::int64_t round_up(std::int64_t a, std::int64_t b) { return divide_up(a, b) * b; }

/// [0, n) in pieces of nearly equal length, at most `most`, in multiples of `unit`.
struct Pieces {
  Pieces(std::int64_t total, std::int64_t most, std::int64_t unit = 1)
      : n(total),
        step(std::max(round_up(divide_up(n, std::max<std::int64_t>(divide_up(n, most), 1)), unit),
                      unit)),
        count(divide_up(n, step)) {}
  std::int64_t begin(std::int64_t i) const { return i * step; }
  std::int64_t length(std::int64_t i) const { return std::min(step, n - i * step); }
  std::int64_t n, step, count;
};

/// Columns [0, n) cut into panels of up to four vectors of this CPU, or two where it has fewer
/// registers, of nearly equal width.
template <class T>
class Panels {
 public:
  explicit Panels(std::int64_t n)
      : n_(n),
        lanes_(lanes()),
        vectors_(divide_up(n, lanes_)),
        count_(divide_up(vectors_, detail::isa() == detail::Isa::avx512 ? 4 : 2)) {}
  std::int64_t count() const { return count_; }
  std::int64_t begin(std::int64_t i) const {
    return lanes_ * (i * (vectors_ / count_) + std::min(i, vectors_ % count_));
  }
  /// Columns of panel `i`; the last one is filled up with columns that mean nothing.
  std::int64_t width(std::int64_t i) const { return begin(i + 1) - begin(i); }
  /// Columns of panel `i` that are there.
  std::int64_t used(std::int64_t i) const { return std::min(begin(i + 1), n_) - begin(i); }
  /// The panel of column `c`.
  std::int64_t of(std::int64_t c) const {
    const std::int64_t each = vectors_ / count_, wide = vectors_ % count_, v = c / lanes_;
    return v < wide * (each + 1) ? v / (each + 1) : wide + (v - wide * (each + 1)) / each;
  }
  /// Columns of all panels.
  std::int64_t padded() const { return vectors_ * lanes_; }

 private:
  static std::int64_t lanes() {
    const std::int64_t bytes[] = {16, 32, 64};
    return bytes[static_cast<int>(detail::isa())] / static_cast<std::int64_t>(sizeof(T));
  }
  std::int64_t n_, lanes_, vectors_, count_;
};

/// Columns of the widest panel.
inline constexpr std::int64_t kWidest = 64;

/// y[rows, width] (+)= a[rows, depth] · w[depth, width] for one panel w without gaps; rows of a are
/// `a_row` apart, those of y `y_row`. Reads and writes rows rounded up to kTileRows. Meanwhile the
/// memory after w, where the next panel is, is fetched into the cache.
template <class T>
void multiply_panel(std::int64_t rows,
                    std::int64_t depth,
                    const T* a,
                    std::int64_t a_row,
                    const T* w,
                    std::int64_t width,
                    T* y,
                    std::int64_t y_row,
                    bool add = true);

/// The same for a transposed left operand, a[depth, rows] with rows of it `a_row` apart.
void multiply_panel_transposed(std::int64_t rows,
                               std::int64_t depth,
                               const float* a,
                               std::int64_t a_row,
                               const float* w,
                               std::int64_t width,
                               float* y,
                               std::int64_t y_row,
                               bool add = true);

/// The same for a left operand whose elements lie anywhere: row r, column k at a[r] + places[k].
template <class T>
void multiply_panel_gathered(std::int64_t rows,
                             std::int64_t depth,
                             const T* const* a,
                             const std::int64_t* places,
                             const T* w,
                             std::int64_t width,
                             T* y,
                             std::int64_t y_row);

/// to[c][r] = from[r][c] for r < rows, c < columns; rows of `from` and of `to` are `from_row` and
/// `to_row` apart. Either `from` (kByRows) or `to` is walked row by row: the one out of the cache.
template <class T, bool kByRows>
void transpose(std::int64_t rows,
               std::int64_t columns,
               const T* from,
               std::int64_t from_row,
               T* to,
               std::int64_t to_row);

/// Transposes from memory into the cache.
template <class T>
void transpose_in(std::int64_t rows,
                  std::int64_t columns,
                  const T* from,
                  std::int64_t from_row,
                  T* to,
                  std::int64_t to_row) {
  transpose<T, true>(rows, columns, from, from_row, to, to_row);
}

/// Transposes from the cache into memory.
template <class T>
void transpose_out(std::int64_t rows,
                   std::int64_t columns,
                   const T* from,
                   std::int64_t from_row,
                   T* to,
                   std::int64_t to_row) {
  transpose<T, false>(rows, columns, from, from_row, to, to_row);
}

}  // namespace capsfw::kernels
