#pragma once
// Private: loops of dynamic routing over the votes [I, J, D] of one sample. L lower capsules at a
// time go through them, each in a lane of its own: the softmax over the upper capsules is then a
// loop over j without sums across a register, and a block of votes stays in the first cache between
// its agreements and its weighted sum. Tables per lower capsule are `packed`: the block of rows i,
// ..., i + L − 1 keeps element (j, lane) of [I, J] at i J + j L + lane (packed_at).
//
// Trip counts of 16 or less are written out or made part of longer loops: GCC would unroll such
// loops to scalar code before it looks for vectors.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "lanes.hpp"
#include "math.hpp"

namespace capsfw::kernels {

/// Rows of a full block, and of one that takes half of those left over; the rest are blocks of one.
inline constexpr int kRoutingLanes = 32, kHalfLanes = 16;

/// The votes of a sample, and what its logits are made of.
template <class T>
struct RoutingSample {
  const T* votes;  ///< [I, J, D]
  const T* v;  ///< Σ of the outputs of the earlier iterations [J, D]: b_ij = ⟨û_ij, v_j⟩ + ...
  const T* prior;     ///< + prior [I, J], packed; null if there is none
  const T* bias;      ///< + bias [J], 0 or −∞; null if there is none
  std::int64_t j, d;  ///< J and D
  bool leaky;
  bool cold;  ///< the votes come from memory, not from the second cache
};

/// Calls f.operator()<L>(i) for the blocks of rows [begin, end).
template <class F>
inline void for_row_blocks(std::int64_t begin, std::int64_t end, const F& f) {
  std::int64_t i = begin;
  for (; i + kRoutingLanes <= end; i += kRoutingLanes) f.template operator()<kRoutingLanes>(i);
  for (; i + kHalfLanes <= end; i += kHalfLanes) f.template operator()<kHalfLanes>(i);
  for (; i < end; ++i) f.template operator()<1>(i);
}

/// Where the packed order of a table [rows, J] keeps element (row, j).
inline std::int64_t packed_at(std::int64_t row, std::int64_t j, std::int64_t rows, std::int64_t J) {
  std::int64_t begin = 0;  // of the blocks of this size
  for (const std::int64_t lanes : {kRoutingLanes, kHalfLanes}) {
    const std::int64_t end = begin + (rows - begin) / lanes * lanes;
    if (row < end) {
      const std::int64_t lane = (row - begin) % lanes;
      return (row - lane) * J + j * lanes + lane;
    }
    begin = end;
  }
  return row * J + j;
}

/// Reads `count` numbers in the order of memory, a line at a time, ahead of a loop that jumps from
/// row to row: memory answers such a loop at a third of its speed.
template <class T>
inline void touch(const T* p, std::int64_t count) {
#pragma GCC unroll 8
  for (std::int64_t x = 0; x < count; x += 64 / sizeof(T))
    static_cast<void>(*static_cast<const volatile T*>(p + x));
}

/// Adds neighbours until M of N numbers are left.
template <int N, int M, class T>
inline void fold(const T* __restrict p, T* __restrict out) {
  if constexpr (N == 2 * M) {
    for (int m = 0; m < M; ++m) out[m] = p[2 * m] + p[2 * m + 1];
  } else {
    T q[N / 2];
    for (int m = 0; m < N / 2; ++m) q[m] = p[2 * m] + p[2 * m + 1];
    fold<N / 2, M>(q, out);
  }
}

/// out[k] = ⟨u_k, v⟩ for L rows, a stride apart. D: 8, 16, or 0 if only known at run time.
template <int L, int D, class T>
inline void dot_rows(
    const T* u, std::int64_t stride, const T* __restrict v, std::int64_t d, T* __restrict out) {
  constexpr int kParts = L > 1 ? 2 : 1, kRows = L / kParts, kWidth = D > 0 ? D : 16;
  T pair[2 * L];
  for (int h = 0; h < kParts; ++h, u += kRows * stride) {
    T p[kRows * kWidth];
    if constexpr (D > 0) {
      for (int k = 0; k < kRows; ++k)
        for (int e = 0; e < D; ++e) p[k * D + e] = u[k * stride + e] * v[e];
    } else {
      for (int k = 0; k < kRows; ++k) {
        const T* __restrict row = u + k * stride;
        T* __restrict sum = p + k * kWidth;
        const std::int64_t head = d < kWidth ? d : kWidth;
        for (int e = 0; e < kWidth; ++e) sum[e] = T(0);
        for (std::int64_t e = 0; e < head; ++e) sum[e] = row[e] * v[e];
        for (std::int64_t e = kWidth; e < d; ++e) sum[e % kWidth] += row[e] * v[e];
      }
    }
    fold<kRows * kWidth, 2 * kRows>(p, pair + h * L);
  }
  for (int k = 0; k < L; ++k) out[k] = pair[2 * k] + pair[2 * k + 1];
}

/// s += Σ_k w[k] u_k over L rows, a stride apart.
template <int L, int D, class T>
inline void add_rows(const T* __restrict u,
                     std::int64_t stride,
                     const T* __restrict w,
                     std::int64_t d,
                     T* __restrict s) {
  const std::int64_t size = D > 0 ? D : d;
  if constexpr (L == 1) {
    for (std::int64_t e = 0; e < size; ++e) s[e] += w[0] * u[e];
  } else {
    for (int k = 0; k < L; k += 8, u += 8 * stride, w += 8) {
      const T *p = u, *q = u + 4 * stride;
      for (std::int64_t e = 0; e < size; ++e) {
        const T a = w[0] * p[e] + w[1] * p[stride + e] + w[2] * p[2 * stride + e] +
                    w[3] * p[3 * stride + e];
        const T b = w[4] * q[e] + w[5] * q[stride + e] + w[6] * q[2 * stride + e] +
                    w[7] * q[3 * stride + e];
        s[e] += a + b;
      }
    }
  }
}

/// s += Σ_i û_i over rows [begin, end) of `size` = J · D numbers: the sum under uniform couplings.
template <class T>
inline void sum_rows(const T* __restrict votes,
                     std::int64_t begin,
                     std::int64_t end,
                     std::int64_t size,
                     T* __restrict s) {
  std::int64_t i = begin;
  for (; i + 8 <= end; i += 8) {
    const T *p = votes + i * size, *q = p + 4 * size;
    touch(p, 8 * size);
    for (std::int64_t e = 0; e < size; ++e)
      s[e] += ((p[e] + p[size + e]) + (p[2 * size + e] + p[3 * size + e])) +
              ((q[e] + q[size + e]) + (q[2 * size + e] + q[3 * size + e]));
  }
  for (; i < end; ++i)
    for (std::int64_t e = 0; e < size; ++e) s[e] += votes[i * size + e];
}

/// Softmax over j of x [J, L]; `leaky` adds a logit 0, whose share is dropped.
template <int L, class T>
inline void softmax_lanes(T* __restrict x, std::int64_t j, bool leaky) {
  T top[L], total[L];
  for (int k = 0; k < L; ++k) top[k] = leaky ? T(0) : -std::numeric_limits<T>::infinity();
  for (std::int64_t m = 0; m < j; ++m)
    for (int k = 0; k < L; ++k) top[k] = x[m * L + k] > top[k] ? x[m * L + k] : top[k];
  for (int k = 0; k < L; ++k) total[k] = leaky ? exp_nonpositive(-top[k]) : T(0);
  for (std::int64_t m = 0; m < j; ++m)
    for (int k = 0; k < L; ++k) {
      x[m * L + k] = exp_nonpositive(x[m * L + k] - top[k]);
      total[k] += x[m * L + k];
    }
  for (int k = 0; k < L; ++k) total[k] = T(1) / total[k];
  for (std::int64_t m = 0; m < j; ++m)
    for (int k = 0; k < L; ++k) x[m * L + k] *= total[k];
}

/// c [J, L] = softmax_j(c + what is added to the agreements) for the block at row i.
template <int L, class T>
inline void compete(const RoutingSample<T>& n, std::int64_t i, T* __restrict c) {
  if (n.prior != nullptr)
    for (std::int64_t x = 0; x < n.j * L; ++x) c[x] += n.prior[i * n.j + x];
  if (n.bias != nullptr)
    for (std::int64_t j = 0; j < n.j; ++j)
      for (int k = 0; k < L; ++k) c[j * L + k] += n.bias[j];
  softmax_lanes<L>(c, n.j, n.leaky);
}

/// s [J, D] += Σ_i c_ij û_ij over rows [begin, end). `c`: room for a block, J · kRoutingLanes.
/// `couplings`: receives c as [I, J] unless null.
template <int D, class T>
inline void routing_forward(const RoutingSample<T>& n,
                            std::int64_t begin,
                            std::int64_t end,
                            T* __restrict c,
                            T* __restrict s,
                            T* __restrict couplings) {
  const std::int64_t d = D > 0 ? D : n.d, stride = n.j * d;
  for_row_blocks(begin, end, [&]<int L>(std::int64_t i) {
    if (n.cold) touch(n.votes + i * stride, L * stride);
    for (std::int64_t j = 0; j < n.j; ++j)
      dot_rows<L, D>(n.votes + i * stride + j * d, stride, n.v + j * d, d, c + j * L);
    compete<L>(n, i, c);
    for (std::int64_t j = 0; j < n.j; ++j)
      add_rows<L, D>(n.votes + i * stride + j * d, stride, c + j * L, d, s + j * d);
    if (couplings != nullptr) transpose_table(n.j, L, c, L, couplings + i * n.j, n.j);
  });
}

/// The pull-back of one iteration over rows [begin, end), given the gradient `gs` [J, D] of its
/// sum:   gc_ij = ⟨û_ij, gs_j⟩,  gb_ij = c_ij (gc_ij − Σ_k c_ik gc_ik),  h_j += Σ_i gb_ij û_ij.
/// Leaves c and gb in packed tables; adds gb to `gprior` (packed) unless null. `couplings` [I, J]:
/// c, where it is known; null: made again.
template <int D, class T>
inline void routing_backward(const RoutingSample<T>& n,
                             const T* gs,
                             const T* couplings,
                             std::int64_t begin,
                             std::int64_t end,
                             T* __restrict c_table,
                             T* __restrict gb_table,
                             T* __restrict h,
                             T* __restrict gprior) {
  const std::int64_t d = D > 0 ? D : n.d, stride = n.j * d;
  for_row_blocks(begin, end, [&]<int L>(std::int64_t i) {
    const T* u = n.votes + i * stride;
    T* __restrict c = c_table + i * n.j;
    T* __restrict g = gb_table + i * n.j;
    if (n.cold) touch(u, L * stride);
    for (std::int64_t j = 0; j < n.j; ++j) {  // both while the votes are at hand
      if (couplings == nullptr) dot_rows<L, D>(u + j * d, stride, n.v + j * d, d, c + j * L);
      dot_rows<L, D>(u + j * d, stride, gs + j * d, d, g + j * L);
    }
    if (couplings == nullptr)
      compete<L>(n, i, c);
    else
      transpose_table(L, n.j, couplings + i * n.j, n.j, c, L);
    T mean[L];
    for (int k = 0; k < L; ++k) mean[k] = T(0);
    for (std::int64_t j = 0; j < n.j; ++j)
      for (int k = 0; k < L; ++k) mean[k] += c[j * L + k] * g[j * L + k];
    for (std::int64_t j = 0; j < n.j; ++j)
      for (int k = 0; k < L; ++k) g[j * L + k] = c[j * L + k] * (g[j * L + k] - mean[k]);
    if (gprior != nullptr)
      for (std::int64_t x = 0; x < n.j * L; ++x) gprior[i * n.j + x] += g[x];
    for (std::int64_t j = 0; j < n.j; ++j)
      add_rows<L, D>(u + j * d, stride, g + j * L, d, h + j * d);
  });
}

}  // namespace capsfw::kernels
