#pragma once
// Private: loops of dynamic routing over the votes [I, J, D] of one sample. Lower capsules go
// through them in blocks of L, one lane of a vector each: then the softmax over the upper capsules
// is a loop over j without sums across a register, and a block of votes stays in the first cache
// between its agreements and its weighted sum. Tables per lower capsule, [I, J], are `packed`: the
// block of rows i, ..., i + L − 1 holds element (j, lane) at i J + j L + lane.

#include <cmath>
#include <cstdint>
#include <limits>

#include "math.hpp"

namespace capsfw::kernels {

/// Rows of a full block; those left over are blocks of one row.
inline constexpr int kRoutingLanes = 32;

/// Sizes of a sample; J · D is the distance between two lower capsules.
struct RoutingDims {
  std::int64_t j, d;
};

/// Sums neighbours until L numbers are left.
template <int N, int L, class T>
inline void fold(const T* __restrict p, T* __restrict out) {
  if constexpr (N == 2 * L) {
    for (int m = 0; m < L; ++m) out[m] = p[2 * m] + p[2 * m + 1];
  } else {
    T q[N / 2];
    for (int m = 0; m < N / 2; ++m) q[m] = p[2 * m] + p[2 * m + 1];
    fold<N / 2, L>(q, out);
  }
}

/// out[k] = ⟨u_k, v⟩ for L rows, a stride apart. D: power of two, or 0 if known at run time only.
template <int L, int D, class T>
inline void dot_rows(
    const T* u, std::int64_t stride, const T* __restrict v, std::int64_t d, T* __restrict out) {
  if constexpr (D > 0 && L > 1) {
    T pair[2 * L];
    for (int h = 0; h < 2; ++h) {
      T p[L / 2 * D];
      for (int k = 0; k < L / 2; ++k)
        for (int e = 0; e < D; ++e) p[k * D + e] = u[(h * L / 2 + k) * stride + e] * v[e];
      fold<L / 2 * D, L>(p, pair + h * L);
    }
    for (int k = 0; k < L; ++k) out[k] = pair[2 * k] + pair[2 * k + 1];
  } else {
    for (int k = 0; k < L; ++k) {
      const T* __restrict row = u + k * stride;
      T part[8] = {}, dot = T(0);
      std::int64_t e = 0;
      for (; e + 8 <= d; e += 8)
        for (int m = 0; m < 8; ++m) part[m] += row[e + m] * v[e + m];
      for (; e < d; ++e) dot += row[e] * v[e];
      for (int m = 0; m < 8; ++m) dot += part[m];
      out[k] = dot;
    }
  }
}

/// s += Σ_k w[k] u_k over L rows, a stride apart.
template <int L, int D, class T>
inline void add_rows(
    const T* u, std::int64_t stride, const T* __restrict w, std::int64_t d, T* __restrict s) {
  const std::int64_t size = D > 0 ? D : d;
  for (std::int64_t e = 0; e < size; ++e) {
    T even = s[e], odd = T(0);
    for (int k = 0; k < L; ++k) (k % 2 == 0 ? even : odd) += w[k] * u[k * stride + e];
    s[e] = even + odd;
  }
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

template <int L, int D, class T>
inline void forward_block(const T* u, const T* __restrict v, RoutingDims n, bool leaky, T* c, T* s) {
  const std::int64_t d = D > 0 ? D : n.d, stride = n.j * d;
  for (std::int64_t j = 0; j < n.j; ++j)
    dot_rows<L, D>(u + j * d, stride, v + j * d, d, c + j * L);
  softmax_lanes<L>(c, n.j, leaky);
  for (std::int64_t j = 0; j < n.j; ++j)
    add_rows<L, D>(u + j * d, stride, c + j * L, d, s + j * d);
}

}  // namespace capsfw::kernels
