#pragma once
// Private: loops of dynamic routing over the votes [I, J, D] of one sample. L lower capsules at a
// time go through them, each in a lane of its own: the softmax over the upper capsules is then a
// loop over j without sums across a register, and a block of votes stays in the first cache between
// its agreements and its weighted sum. Tables per lower capsule are `packed`: the block of rows i,
// ..., i + L − 1 keeps element (j, lane) of [I, J] at i J + j L + lane.
//
// Trip counts of 16 or less are written out or made part of longer loops: GCC would unroll such
// loops to scalar code before it looks for vectors.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "math.hpp"

namespace capsfw::kernels {

/// Rows of a full block; rows that are left over are blocks of one.
inline constexpr int kRoutingLanes = 32;

/// The votes of a sample, and what its logits are made of.
template <class T>
struct RoutingSample {
  const T* votes;     ///< [I, J, D]
  const T* v;         ///< Σ of the outputs of the earlier iterations [J, D]: b_ij = ⟨û_ij, v_j⟩ + ...
  const T* prior;     ///< + prior [I, J], packed; null if there is none
  const T* bias;      ///< + bias [J], 0 or −∞; null if there is none
  std::int64_t j, d;  ///< J and D
  bool leaky;
};

/// Calls f.operator()<L>(i) for the blocks of rows [begin, end).
template <class F>
inline void for_row_blocks(std::int64_t begin, std::int64_t end, const F& f) {
  std::int64_t i = begin;
  for (; i + kRoutingLanes <= end; i += kRoutingLanes) f.template operator()<kRoutingLanes>(i);
  for (; i < end; ++i) f.template operator()<1>(i);
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
  for (int k = 0; k < L; ++k) total[k] = leaky ? exp(-top[k]) : T(0);
  for (std::int64_t m = 0; m < j; ++m)
    for (int k = 0; k < L; ++k) {
      x[m * L + k] = exp(x[m * L + k] - top[k]);
      total[k] += x[m * L + k];
    }
  for (int k = 0; k < L; ++k) total[k] = T(1) / total[k];
  for (std::int64_t m = 0; m < j; ++m)
    for (int k = 0; k < L; ++k) x[m * L + k] *= total[k];
}

/// c [J, L] = softmax_j(b) for the block at row i.
template <int L, int D, class T>
inline void couplings_block(const RoutingSample<T>& n, std::int64_t i, T* __restrict c) {
  const std::int64_t d = D > 0 ? D : n.d, stride = n.j * d;
  const T* u = n.votes + i * stride;
  for (std::int64_t j = 0; j < n.j; ++j)
    dot_rows<L, D>(u + j * d, stride, n.v + j * d, d, c + j * L);
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
    couplings_block<L, D>(n, i, c);
    for (std::int64_t j = 0; j < n.j; ++j)
      add_rows<L, D>(n.votes + i * stride + j * d, stride, c + j * L, d, s + j * d);
    if (couplings != nullptr)
      for (int k = 0; k < L; ++k)
        for (std::int64_t j = 0; j < n.j; ++j) couplings[(i + k) * n.j + j] = c[j * L + k];
  });
}

/// The pull-back of one iteration over rows [begin, end), given the gradient `gs` [J, D] of its
/// sum:   gc_ij = ⟨û_ij, gs_j⟩,  gb_ij = c_ij (gc_ij − Σ_k c_ik gc_ik),  h_j += Σ_i gb_ij û_ij.
/// Leaves c and gb in packed tables; adds gb to `gprior` (packed) unless null.
template <int D, class T>
inline void routing_backward(const RoutingSample<T>& n,
                             const T* gs,
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
    couplings_block<L, D>(n, i, c);
    for (std::int64_t j = 0; j < n.j; ++j)
      dot_rows<L, D>(u + j * d, stride, gs + j * d, d, g + j * L);
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

/// What one iteration leaves to the gradient of the votes: c_ij gs_j + gb_ij v_j.
template <class T>
struct RoutingTerm {
  const T *c, *gb;  ///< [I, J], packed
  const T *gs, *v;  ///< [J, D]
};

/// gû_ij = base_j + Σ over P terms, for rows [begin, end); added to what is there if `Add`.
template <int D, int P, bool Add, class T>
inline void routing_gradient(const RoutingTerm<T>* terms,
                             const T* base,
                             std::int64_t begin,
                             std::int64_t end,
                             std::int64_t j_count,
                             std::int64_t d_count,
                             T* gu) {
  constexpr int kWidth = D > 0 ? D : 16;
  const std::int64_t d = D > 0 ? D : d_count, stride = j_count * d;
  const RoutingTerm<T> x = terms[0], y = terms[P - 1];
  for_row_blocks(begin, end, [=]<int L>(std::int64_t i) {
    constexpr int kRows = L > 1 ? 4 : 1;
    for (std::int64_t j = 0; j < j_count; ++j)
      for (std::int64_t from = j * d; from < (j + 1) * d; from += kWidth) {
        // Copies, so that the compiler sees that writing gû changes none of them.
        const int width = D > 0 ? D : static_cast<int>(std::min<std::int64_t>(16, (j + 1) * d - from));
        T rest[kWidth], xs[kWidth], xv[kWidth], ys[kWidth], yv[kWidth];
        for (int e = 0; e < width; ++e) {
          rest[e] = base[from + e];
          xs[e] = x.gs[from + e], xv[e] = x.v[from + e];
          ys[e] = y.gs[from + e], yv[e] = y.v[from + e];
        }
        for (int k = 0; k < L; k += kRows) {
          const std::int64_t w = i * j_count + j * L + k;
          T xc[kRows], xb[kRows], yc[kRows], yb[kRows];
          for (int m = 0; m < kRows; ++m)
            xc[m] = x.c[w + m], xb[m] = x.gb[w + m], yc[m] = y.c[w + m], yb[m] = y.gb[w + m];
          T* out = gu + (i + k) * stride + from;
          const auto row = [&](int m, int e) {
            T g = rest[e] + xc[m] * xs[e] + xb[m] * xv[e];
            if constexpr (P == 2) g += yc[m] * ys[e] + yb[m] * yv[e];
            out[m * stride + e] = Add ? out[m * stride + e] + g : g;
          };
          for (int e = 0; e < width; ++e) {
            row(0, e);
            if constexpr (kRows == 4) row(1, e), row(2, e), row(3, e);
          }
        }
      }
  });
}

}  // namespace capsfw::kernels
