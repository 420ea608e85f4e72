#pragma once
// Private: loops of EM routing over the votes of one sample for one upper capsule. Each lower
// capsule has a lane of its own, so that sums over dimensions need no sum across a register, and
// those over lower capsules one at the end. n lower capsules lie in blocks of 64 bytes, [n / B, D,
// B]: a block is read from one address. They are filled up to whole blocks by lanes of weight 0.

#include <cstdint>
#include <type_traits>

#include "lanes.hpp"
#include "math.hpp"
#include "routing_gradient.hpp"

namespace capsfw::kernels {

/// Lower capsules of a block.
template <class T>
inline constexpr std::int64_t kEmBlock = 64 / static_cast<std::int64_t>(sizeof(T));

/// Where vector i of row h lies; the next row is a block further.
template <class L, class T>
inline T* em_at(T* v, std::int64_t i, std::int64_t d, std::int64_t h = 0) {
  constexpr std::int64_t kBlock = kEmBlock<std::remove_const_t<T>>;
  T* p = h * kBlock + (L::size == kBlock ? v + i * d : v + i / kBlock * kBlock * d + i % kBlock);
  // Where it came from is hidden: GCC would keep a pointer of its own to each row, in memory.
  asm("" : "+r"(p));
  return p;
}

/// Calls f.operator()<K>(i) for pieces of [0, n) of K vectors, four at first.
template <class L, class F>
inline void for_vectors(std::int64_t n, const F& f) {
  std::int64_t i = 0;
  for (; i + 4 * L::size <= n; i += 4 * L::size) f.template operator()<4>(i);
  if (i + 2 * L::size <= n) f.template operator()<2>(i), i += 2 * L::size;
  for (; i < n; i += L::size) f.template operator()<1>(i);
}

/// Σ_i x_i, and Σ_i x_i y_i.
template <class L, class T>
inline T sum_row(const T* x, std::int64_t n) {
  typename L::Value s = {};
  for (std::int64_t i = 0; i < n; i += L::size) s += L::at(x + i);
  T total;
  L::template sums<1>(&s, &total);
  return total;
}
template <class L, class T>
inline T dot_row(const T* x, const T* y, std::int64_t n) {
  typename L::Value s = {};
  for (std::int64_t i = 0; i < n; i += L::size) s += L::at(x + i) * L::at(y + i);
  T total;
  L::template sums<1>(&s, &total);
  return total;
}

/// y_i = ln x_i.
template <class T>
inline void log_row(const T* __restrict x, std::int64_t n, T* __restrict y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = log(x[i]);
}

/// mean[h] = Σ_i r_i V_ih.
template <class L, class T>
inline void em_mean(const T* v, const T* r, std::int64_t n, std::int64_t d, T* mean) {
  for_rows<L::size>(d, [=]<int K>(std::int64_t h) {
    typename L::Value s[K] = {};
    for (std::int64_t i = 0; i < n; i += L::size) {
      const typename L::Value w = L::at(r + i);
      const T* row = em_at<L>(v, i, d, h);
      for (int k = 0; k < K; ++k) s[k] += w * L::at(row + k * kEmBlock<T>);
    }
    L::template sums<K>(s, mean + h);
  });
}

/// spread[h] = Σ_i r_i (V_ih − m_h)².
template <class L, class T>
inline void em_spread(
    const T* v, const T* r, const T* m, std::int64_t n, std::int64_t d, T* spread) {
  for_rows<L::size>(d, [=]<int K>(std::int64_t h) {
    typename L::Value s[K] = {};
    for (std::int64_t i = 0; i < n; i += L::size) {
      const typename L::Value w = L::at(r + i);
      const T* row = em_at<L>(v, i, d, h);
      for (int k = 0; k < K; ++k) {
        const typename L::Value x = L::at(row + k * kEmBlock<T>) - m[h + k];
        s[k] += (w * x) * x;
      }
    }
    L::template sums<K>(s, spread + h);
  });
}

/// out_i = base + Σ_h (V_ih − m_h)² f_h.
template <class L, class T>
inline void em_exponent(
    const T* v, const T* m, const T* f, T base, std::int64_t n, std::int64_t d, T* out) {
  for_vectors<L>(n, [=]<int K>(std::int64_t i) {
    typename L::Value s[K];
    const T* row[K];
    for (int k = 0; k < K; ++k) {
      s[k] = typename L::Value{} + base;
      row[k] = em_at<L>(v, i + k * L::size, d);
    }
    for (std::int64_t h = 0; h < d; ++h)
      for (int k = 0; k < K; ++k) {
        const typename L::Value x = L::at(row[k] + h * kEmBlock<T>) - m[h];
        s[k] += (x * x) * f[h];
      }
    for (int k = 0; k < K; ++k) L::at(out + i + k * L::size) = s[k];
  });
}

/// out_i = base + Σ_h x (g_h + f_h x) with x = V_ih − m_h.
template <class L, class T>
inline void em_slope(const T* v,
                     const T* m,
                     const T* g,
                     const T* f,
                     T base,
                     std::int64_t n,
                     std::int64_t d,
                     T* out) {
  for_vectors<L>(n, [=]<int K>(std::int64_t i) {
    typename L::Value s[K];
    const T* row[K];
    for (int k = 0; k < K; ++k) {
      s[k] = typename L::Value{} + base;
      row[k] = em_at<L>(v, i + k * L::size, d);
    }
    for (std::int64_t h = 0; h < d; ++h)
      for (int k = 0; k < K; ++k) {
        const typename L::Value x = L::at(row[k] + h * kEmBlock<T>) - m[h];
        s[k] += x * (x * f[h] + g[h]);
      }
    for (int k = 0; k < K; ++k) L::at(out + i + k * L::size) = s[k];
  });
}

/// first[h] = Σ_i g_i x and second[h] = Σ_i g_i x² with x = V_ih − m_h.
template <class L, class T>
inline void em_moments(
    const T* v, const T* g, const T* m, std::int64_t n, std::int64_t d, T* first, T* second) {
  for_rows<(L::size > 4 ? 8 : 4) < L::size ? 8 : L::size>(d, [=]<int K>(std::int64_t h) {
    typename L::Value s[K] = {}, t[K] = {};
    for (std::int64_t i = 0; i < n; i += L::size) {
      const typename L::Value w = L::at(g + i);
      const T* row = em_at<L>(v, i, d, h);
      for (int k = 0; k < K; ++k) {
        const typename L::Value x = L::at(row + k * kEmBlock<T>) - m[h + k], wx = w * x;
        s[k] += wx;
        t[k] += wx * x;
      }
    }
    L::template sums<K>(s, first + h);
    L::template sums<K>(t, second + h);
  });
}

/// What an iteration adds to the gradient of the votes:
/// gV_ih = r_i g_h + (V_ih − m_h) (r_i f_h − l_i p_h).
template <class T>
struct EmTerm {
  const T *r, *l;     ///< [n]
  const T* gaussian;  ///< m, g, f, p [4, D]
};

/// So many iterations are gathered at once.
inline constexpr int kEmTerms = 3;

/// out = Σ of N terms, added to `out` if kAdd.
template <class L, int N, bool kAdd, class T>
inline void em_vote_gradient(
    const T* v, const EmTerm<T>* terms, std::int64_t n, std::int64_t d, T* out) {
  for (std::int64_t i = 0; i < n; i += L::size) {
    typename L::Value r[N], l[N];
    for (int t = 0; t < N; ++t) r[t] = L::at(terms[t].r + i), l[t] = L::at(terms[t].l + i);
    const T* row = em_at<L>(v, i, d);
    T* to = em_at<L>(out, i, d);
    for (std::int64_t h = 0; h < d; ++h) {
      const typename L::Value x = L::at(row + h * kEmBlock<T>);
      typename L::Value s = {};
      if constexpr (kAdd) s = L::at(to + h * kEmBlock<T>);
      for (int t = 0; t < N; ++t) {
        const T* e = terms[t].gaussian + h;
        s += r[t] * e[d];
        s += (x - e[0]) * (r[t] * e[2 * d] - l[t] * e[3 * d]);
      }
      L::at(to + h * kEmBlock<T>) = s;
    }
  }
}

/// One block from its `count` rows of d numbers, which begin `shift` after rows[k]. The next block
/// is asked for meanwhile: its rows may be far apart, and memory answers late.
template <class L, class T>
inline void to_block(const T* const* rows,
                     const T* const* next,
                     std::int64_t count,
                     std::int64_t shift,
                     std::int64_t d,
                     T* out) {
  constexpr int kSize = L::size;
  constexpr std::int64_t kB = kEmBlock<T>;
  std::int64_t i = 0;
  if (next != nullptr)
    for (std::int64_t k = 0; k < kB; ++k) __builtin_prefetch(next[k] + shift);
  for (; i + kSize <= count; i += kSize) {
    std::int64_t h = 0;
    for (; h + kSize <= d; h += kSize) {
      typename L::Value x[kSize];
      for (int k = 0; k < kSize; ++k) x[k] = L::at(rows[i + k] + shift + h);
      L::transpose(x);
      for (int k = 0; k < kSize; ++k) L::at(out + (h + k) * kB + i) = x[k];
    }
    for (int k = 0; k < kSize; ++k)
      for (std::int64_t e = h; e < d; ++e) out[e * kB + i + k] = rows[i + k][shift + e];
  }
  for (; i < kB; ++i)
    for (std::int64_t h = 0; h < d; ++h) out[h * kB + i] = i < count ? rows[i][shift + h] : T(0);
}

/// What happens to the rows that from_block writes.
enum class Rows {
  write,
  add,    ///< to what they hold, in order (rows may coincide)
  stream  ///< written past the caches: whole lines of f32 for more than those hold
};

/// The way back.
template <class L, Rows kRows, class T>
inline void from_block(const T* v, std::int64_t count, std::int64_t d, T* const* rows) {
  constexpr int kSize = L::size;
  constexpr std::int64_t kB = kEmBlock<T>;
  const auto put = [&](std::int64_t i, std::int64_t h) {
    T& y = rows[i][h];
    y = (kRows == Rows::add ? y : T(0)) + v[h * kB + i];
  };
  std::int64_t i = 0;
  for (; i + kSize <= count; i += kSize) {
    std::int64_t h = 0;
    for (; h + kSize <= d; h += kSize) {
      typename L::Value x[kSize];
      for (int k = 0; k < kSize; ++k) x[k] = L::at(v + (h + k) * kB + i);
      L::transpose(x);
      for (int k = 0; k < kSize; ++k) {
        T* to = rows[i + k] + h;
        if constexpr (kRows == Rows::add)
          L::at(to) = L::at(to) + x[k];
        else if constexpr (kRows == Rows::stream && sizeof x[k] == 64)
          stream_line(reinterpret_cast<const float*>(&x[k]), to);
        else
          L::at(to) = x[k];
      }
    }
    for (int k = 0; k < kSize; ++k)
      for (std::int64_t e = h; e < d; ++e) put(i + k, e);
  }
  for (; i < count; ++i)
    for (std::int64_t h = 0; h < d; ++h) put(i, h);
}

/// V = P W for every lane, matrices of side P row by row: V_pr = Σ_q P_pq W_qr. S: P if it is
/// known.
template <class L, int S, class T>
inline void em_votes(const T* pose, const T* w, std::int64_t n, std::int64_t side, T* v) {
  const std::int64_t s = S > 0 ? S : side, d = s * s;
  constexpr std::int64_t kB = kEmBlock<T>;
  for (std::int64_t i = 0; i < n; i += L::size) {
    const T *x = em_at<L>(pose, i, d), *y = em_at<L>(w, i, d);
    T* out = em_at<L>(v, i, d);
    if constexpr (S > 0) {
      typename L::Value m[S * S];
      for (int k = 0; k < S * S; ++k) m[k] = L::at(y + k * kB);
      for (int p = 0; p < S; ++p) {
        typename L::Value sum[S] = {};
        for (int q = 0; q < S; ++q)
          for (int r = 0; r < S; ++r) sum[r] += L::at(x + (p * S + q) * kB) * m[q * S + r];
        for (int r = 0; r < S; ++r) L::at(out + (p * S + r) * kB) = sum[r];
      }
    } else {
      for (std::int64_t p = 0; p < s; ++p)
        for (std::int64_t r = 0; r < s; ++r) {
          typename L::Value sum = {};
          for (std::int64_t q = 0; q < s; ++q)
            sum += L::at(x + (p * s + q) * kB) * L::at(y + (q * s + r) * kB);
          L::at(out + (p * s + r) * kB) = sum;
        }
    }
  }
}

/// gP_pq += Σ_r gV_pr W_qr and gW_qr += Σ_p P_pq gV_pr; either may be null.
template <class L, int S, class T>
inline void em_votes_vjp(
    const T* pose, const T* w, const T* gv, std::int64_t n, std::int64_t side, T* gpose, T* gw) {
  const std::int64_t s = S > 0 ? S : side, d = s * s;
  constexpr std::int64_t kB = kEmBlock<T>;
  for (std::int64_t i = 0; i < n; i += L::size) {
    const T *x = em_at<L>(pose, i, d), *y = em_at<L>(w, i, d), *g = em_at<L>(gv, i, d);
    T *gx = gpose == nullptr ? nullptr : em_at<L>(gpose, i, d),
      *gy = gw == nullptr ? nullptr : em_at<L>(gw, i, d);
    if constexpr (S > 0) {
      if (gx != nullptr) {
        typename L::Value m[S * S];
        for (int k = 0; k < S * S; ++k) m[k] = L::at(y + k * kB);
        for (int p = 0; p < S; ++p) {
          typename L::Value sum[S];
          for (int q = 0; q < S; ++q) sum[q] = L::at(gx + (p * S + q) * kB);
          for (int r = 0; r < S; ++r) {
            const typename L::Value z = L::at(g + (p * S + r) * kB);
            for (int q = 0; q < S; ++q) sum[q] += z * m[q * S + r];
          }
          for (int q = 0; q < S; ++q) L::at(gx + (p * S + q) * kB) = sum[q];
        }
      }
      if (gy != nullptr) {
        typename L::Value m[S * S];
        for (int k = 0; k < S * S; ++k) m[k] = L::at(gy + k * kB);
        for (int p = 0; p < S; ++p) {
          typename L::Value z[S];
          for (int r = 0; r < S; ++r) z[r] = L::at(g + (p * S + r) * kB);
          for (int q = 0; q < S; ++q)
            for (int r = 0; r < S; ++r) m[q * S + r] += L::at(x + (p * S + q) * kB) * z[r];
        }
        for (int k = 0; k < S * S; ++k) L::at(gy + k * kB) = m[k];
      }
    } else {
      for (std::int64_t p = 0; p < s; ++p)
        for (std::int64_t q = 0; q < s; ++q)
          for (std::int64_t r = 0; r < s; ++r) {
            const typename L::Value z = L::at(g + (p * s + r) * kB);
            if (gx != nullptr) L::at(gx + (p * s + q) * kB) += z * L::at(y + (q * s + r) * kB);
            if (gy != nullptr) L::at(gy + (q * s + r) * kB) += z * L::at(x + (p * s + q) * kB);
          }
    }
  }
}

}  // namespace capsfw::kernels
