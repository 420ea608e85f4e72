#pragma once
// Private: the one place that calls BLAS. Each call is single-threaded and runs inside a TBB task:
// two thread pools on the same cores make small products 10 to 25 times slower.

#include <cstdint>
#include <string>

#include <capsfw/core/shape.hpp>

namespace capsfw::detail {

/// A batch of matrices in memory: element (i, j) of the matrix at batch index b lies at
/// Σ_a b_a · batch[a] + i · row + j · col elements from the start.
struct MatrixLayout {
  Strides batch;
  std::int64_t row = 0, col = 0;
};

/// c[b] = a[b] · b[b] + beta · c[b] for every batch index b in `batch`, in parallel, with a [m, k],
/// b [k, n], c [m, n], beta 0 or 1. Any strides are right; operands with a unit stride are fast.
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
                  T beta = T(0));

/// The same for one matrix on the calling thread: for use inside a parallel body.
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
          T beta = T(0));

/// Kernels that OpenBLAS chose ("SkylakeX") and its configuration line.
std::string blas_core();
std::string blas_config();

}  // namespace capsfw::detail
