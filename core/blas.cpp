#include "blas.hpp"

#include <cblas.h>

#include <algorithm>
#include <bit>
#include <limits>

#include <capsfw/core/parallel.hpp>

#include "denormals.hpp"
#include "simd.hpp"

namespace capsfw::detail {
namespace {

// Below this many multiply-adds a call into BLAS costs more than it gains (its buffer lock,
// packing).
constexpr std::int64_t kSmallProduct = 16 * 1024;
// A product of more multiply-adds than this is cut in two, a larger one into pieces of at least
// kPiece, a power of two of them: each packs the uncut operand again, which costs 3 % with four
// pieces of a product of 33 million. Fixed: part of the result's bits.
constexpr std::int64_t kHalves = std::int64_t{4} << 20, kPiece = std::int64_t{16} << 20;

[[maybe_unused]] const bool g_single_threaded = [] {
  openblas_set_num_threads(1);
  return true;
}();

template <class T>
void scale(std::int64_t m, std::int64_t n, T* c, std::int64_t rc, std::int64_t cc, T beta) {
  if (beta == T(0))
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) c[i * rc + j * cc] = T(0);
}

/// Rows of c in registers, b read along its rows.
template <class T>
void small_rows(std::int64_t m,
                std::int64_t n,
                std::int64_t k,
                const T* a,
                std::int64_t ra,
                std::int64_t ca,
                const T* b,
                std::int64_t rb,
                T* c,
                std::int64_t rc,
                T beta) {
  constexpr std::int64_t kBlock = 64;
  simd([=] {
    for (std::int64_t j = 0; j < n; j += kBlock) {
      const std::int64_t w = std::min(kBlock, n - j);
      for (std::int64_t i = 0; i < m; ++i) {
        T acc[kBlock];
        T* __restrict out = c + i * rc + j;
        for (std::int64_t x = 0; x < w; ++x) acc[x] = beta == T(0) ? T(0) : out[x];
        for (std::int64_t p = 0; p < k; ++p) {
          const T f = a[i * ra + p * ca];
          const T* __restrict row = b + p * rb + j;
          for (std::int64_t x = 0; x < w; ++x) acc[x] += f * row[x];
        }
        for (std::int64_t x = 0; x < w; ++x) out[x] = acc[x];
      }
    }
  });
}

/// Dot products along contiguous rows of a and columns of b.
template <class T>
void small_dots(std::int64_t m,
                std::int64_t n,
                std::int64_t k,
                const T* a,
                std::int64_t ra,
                const T* b,
                std::int64_t cb,
                T* c,
                std::int64_t rc,
                std::int64_t cc,
                T beta) {
  constexpr std::int64_t kLanes = 16;
  simd([=] {
    for (std::int64_t i = 0; i < m; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        const T* __restrict p = a + i * ra, * __restrict q = b + j * cb;
        T lanes[kLanes] = {};
        std::int64_t x = 0;
        for (; x + kLanes <= k; x += kLanes)
          for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += p[x + l] * q[x + l];
        T sum = T(0);
        for (; x < k; ++x) sum += p[x] * q[x];
        for (T l : lanes) sum += l;
        T& out = c[i * rc + j * cc];
        out = beta == T(0) ? sum : out + sum;
      }
  });
}

void call(CBLAS_TRANSPOSE ta,
          CBLAS_TRANSPOSE tb,
          int m,
          int n,
          int k,
          const float* a,
          int lda,
          const float* b,
          int ldb,
          float beta,
          float* c,
          int ldc) {
  cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0F, a, lda, b, ldb, beta, c, ldc);
}
void call(CBLAS_TRANSPOSE ta,
          CBLAS_TRANSPOSE tb,
          int m,
          int n,
          int k,
          const double* a,
          int lda,
          const double* b,
          int ldb,
          double beta,
          double* c,
          int ldc) {
  cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1.0, a, lda, b, ldb, beta, c, ldc);
}

/// BLAS takes a matrix whose rows or columns are contiguous and whose other stride reaches over
/// them.
bool blas_ready(std::int64_t rows, std::int64_t cols, std::int64_t r, std::int64_t c) {
  constexpr std::int64_t kMax = std::numeric_limits<int>::max();
  const auto fits = [&](std::int64_t inner, std::int64_t unit, std::int64_t lead) {
    return unit == 1 && lead >= std::max<std::int64_t>(inner, 1) && lead <= kMax;
  };
  return rows <= kMax && cols <= kMax && (fits(cols, c, r) || fits(rows, r, c));
}

}  // namespace

template <class T>
void gemm(std::int64_t m,
          std::int64_t n,
          std::int64_t k,
          const T* a,
          std::int64_t ra,
          std::int64_t ca,
          const T* b,
          std::int64_t rb,
          std::int64_t cb,
          T* c,
          std::int64_t rc,
          std::int64_t cc,
          T beta) {
  if (m == 0 || n == 0) return;
  if (k == 0) return scale(m, n, c, rc, cc, beta);
  // The stride of an axis of length 1 is free: choose one that makes the other axis count as
  // contiguous.
  if (m == 1) ra = ca == 1 ? k : 1, rc = cc == 1 ? n : 1;
  if (n == 1) cb = rb == 1 ? k : 1, cc = rc == 1 ? m : 1;
  if (k == 1) ca = ra == 1 ? m : 1, rb = cb == 1 ? n : 1;
  if (cc != 1 && rc == 1)
    return gemm(n, m, k, b, cb, rb, a, ca, ra, c, cc, rc, beta);  // cᵀ = bᵀ aᵀ
  if (m * n * k <= kSmallProduct) {
    if (cb == 1 && cc == 1 && n >= 8) return small_rows(m, n, k, a, ra, ca, b, rb, c, rc, beta);
    if (ca == 1 && rb == 1) return small_dots(m, n, k, a, ra, b, cb, c, rc, cc, beta);
    if (ra == 1 && rc == 1 && m >= 8) return small_rows(n, m, k, b, cb, rb, a, ca, c, cc, beta);
    if (cb == 1 && cc == 1) return small_rows(m, n, k, a, ra, ca, b, rb, c, rc, beta);
  }
  if (cc == 1 && blas_ready(m, k, ra, ca) && blas_ready(k, n, rb, cb) && blas_ready(m, n, rc, cc) &&
      m * n * k > kSmallProduct) {
    const bool ta = !(ca == 1 && ra >= k), tb = !(cb == 1 && rb >= n);
    return call(ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, static_cast<int>(m),
                static_cast<int>(n), static_cast<int>(k), a, static_cast<int>(ta ? ca : ra), b,
                static_cast<int>(tb ? cb : rb), beta, c, static_cast<int>(rc));
  }
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      T sum = T(0);
      for (std::int64_t p = 0; p < k; ++p) sum += a[i * ra + p * ca] * b[p * rb + j * cb];
      T& out = c[i * rc + j * cc];
      out = beta == T(0) ? sum : out + sum;
    }
}

template <class T>
void batched_gemm(const Shape& batch,
                  std::int64_t m,
                  std::int64_t n,
                  std::int64_t k,
                  const T* a,
                  const MatrixLayout& la,
                  const T* b,
                  const MatrixLayout& lb,
                  T* c,
                  const MatrixLayout& lc,
                  T beta) {
  const std::int64_t count = batch.numel(),
                     work = std::max<std::int64_t>(m * n * std::max<std::int64_t>(k, 1), 1);
  // Cut the longer side of the result; the cut depends on the shape alone.
  const auto whole =
      std::bit_floor(static_cast<std::uint64_t>(std::min<std::int64_t>(work / kPiece, 32)));
  const std::int64_t pieces =
      std::max(static_cast<std::int64_t>(whole), std::int64_t{work > kHalves ? 2 : 1});
  const bool by_rows = m >= n;
  const std::int64_t length = by_rows ? m : n;
  const std::int64_t step =
      std::max<std::int64_t>(((length + pieces - 1) / pieces + 15) / 16 * 16, 1);
  const std::int64_t per = std::max<std::int64_t>((length + step - 1) / step, 1);
  parallel_for(count * per, std::max<std::int64_t>(work / per / 64, 8),
               [&](std::int64_t begin, std::int64_t end) {
                 const FlushDenormals flush;
                 for (std::int64_t task = begin; task < end; ++task) {
                   std::int64_t rest = task / per;
                   const T *pa = a, *pb = b;
                   T* pc = c;
                   for (int x = batch.rank() - 1; x >= 0; --x) {
                     const std::int64_t i = rest % batch[x];
                     rest /= batch[x];
                     pa += i * la.batch[x];
                     pb += i * lb.batch[x];
                     pc += i * lc.batch[x];
                   }
                   const std::int64_t first = task % per * step,
                                      span = std::min(step, length - first);
                   if (by_rows)
                     gemm(span, n, k, pa + first * la.row, la.row, la.col, pb, lb.row, lb.col,
                          pc + first * lc.row, lc.row, lc.col, beta);
                   else
                     gemm(m, span, k, pa, la.row, la.col, pb + first * lb.col, lb.row, lb.col,
                          pc + first * lc.col, lc.row, lc.col, beta);
                 }
               });
}

template void gemm(std::int64_t,
                   std::int64_t,
                   std::int64_t,
                   const float*,
                   std::int64_t,
                   std::int64_t,
                   const float*,
                   std::int64_t,
                   std::int64_t,
                   float*,
                   std::int64_t,
                   std::int64_t,
                   float);
template void gemm(std::int64_t,
                   std::int64_t,
                   std::int64_t,
                   const double*,
                   std::int64_t,
                   std::int64_t,
                   const double*,
                   std::int64_t,
                   std::int64_t,
                   double*,
                   std::int64_t,
                   std::int64_t,
                   double);
template void batched_gemm(const Shape&,
                           std::int64_t,
                           std::int64_t,
                           std::int64_t,
                           const float*,
                           const MatrixLayout&,
                           const float*,
                           const MatrixLayout&,
                           float*,
                           const MatrixLayout&,
                           float);
template void batched_gemm(const Shape&,
                           std::int64_t,
                           std::int64_t,
                           std::int64_t,
                           const double*,
                           const MatrixLayout&,
                           const double*,
                           const MatrixLayout&,
                           double*,
                           const MatrixLayout&,
                           double);

std::string blas_core() { return openblas_get_corename(); }
std::string blas_config() { return openblas_get_config(); }

}  // namespace capsfw::detail
