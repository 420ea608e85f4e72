#pragma once
// Private: loops over the votes û_ij = W_ij u_i of one child for a few samples, one in each lane of
// a vector. Votes are made in registers from a row of weights that is read as it lies in memory, so
// that no sum crosses a register and one reading of a weight serves all lanes. Saves votes in
// memory: those of a child stay in the first cache until they are summed up.

#include <algorithm>
#include <cstdint>

#include "lanes.hpp"
#include "math.hpp"

namespace capsfw::kernels {

/// Results that are summed at once in registers.
inline constexpr int kVoteLines = 8;

/// Groups that share one reading of a weight where there are registers for their sums.
inline constexpr int kVoteGroups = 2;

/// Calls f.operator()<G>(g) for pieces of [0, groups) of G groups.
template <class L, class F>
inline void for_groups(std::int64_t groups, const F& f) {
  for_rows<sizeof(typename L::Value) == 64 ? kVoteGroups : 1>(groups, f);
}

/// Sizes of a child's votes. E: 8, 16, or 0 if only known at run time.
struct VoteSizes {
  std::int64_t j, d, e;
  std::int64_t weights() const { return j * d * e; }  ///< of one child
};

/// sum[g][k] += Σ_e w[k, e] u_g[e] for K rows and G groups, which are `u_group` apart.
template <class L, int E, int K, int G, class T>
inline void add_products(const T* w,
                         const T* u,
                         std::int64_t u_group,
                         std::int64_t e_count,
                         typename L::Value (&sum)[G][K]) {
  const auto add = [=, &sum](std::int64_t e, std::int64_t row) {
    typename L::Value x[G];
    for (int g = 0; g < G; ++g) x[g] = L::at(u + g * u_group + e * L::size);
    for (int k = 0; k < K; ++k)
      for (int g = 0; g < G; ++g) sum[g][k] += w[k * row + e] * x[g];
  };
  if constexpr (E > 0) [&]<int... e>(std::integer_sequence<int, e...>) {
      (add(e, E), ...);
    }
  (std::make_integer_sequence<int, E>());
  else for (std::int64_t e = 0; e < e_count; ++e) add(e, e_count);
}

/// s [G, J D, lanes] += Σ_i W_i u_i for `rows` children of G groups.
template <class L, int E, int G, class T>
inline void add_votes(
    VoteSizes n, const T* w, const T* u, std::int64_t u_group, std::int64_t rows, T* s) {
  const std::int64_t size = n.j * n.d * L::size;
  for_rows<kVoteLines>(n.j * n.d, [&]<int K>(std::int64_t x) {
    typename L::Value sum[G][K];
    for (int g = 0; g < G; ++g)
      for (int k = 0; k < K; ++k) sum[g][k] = L::at(s + g * size + (x + k) * L::size);
    for (std::int64_t i = 0; i < rows; ++i)
      add_products<L, E>(w + i * n.weights() + x * n.e, u + i * n.e * L::size, u_group, n.e, sum);
    for (int g = 0; g < G; ++g)
      for (int k = 0; k < K; ++k) L::at(s + g * size + (x + k) * L::size) = sum[g][k];
  });
}

/// The votes of some children of G groups, and dots[g][k][m][j] = ⟨û_gkj, x[g][m]_j⟩ for `count`
/// tables x[g][m] [J, D, lanes] a group. The votes [G, children, J, D, lanes] are stored unless
/// null.
template <class L, int E, int G, class T>
inline void make_votes(VoteSizes n,
                       const T* w,
                       const T* u,
                       std::int64_t u_group,
                       std::int64_t children,
                       const T* const* x,
                       std::int64_t count,
                       T* votes,
                       T* dots) {
  using Value = typename L::Value;
  const std::int64_t table = n.j * L::size, size = n.d * table;
  std::fill_n(dots, G * children * count * table, T(0));
  for (std::int64_t j = 0; j < n.j; ++j)  // the tables' rows j stay in the first cache
    for (std::int64_t k = 0; k < children; ++k)
      for_rows<kVoteLines>(n.d, [&]<int K>(std::int64_t d) {
        const std::int64_t at = j * n.d + d;
        Value vote[G][K] = {};
        add_products<L, E>(w + k * n.weights() + at * n.e, u + k * n.e * L::size, u_group, n.e,
                           vote);
        const auto use = [=](const Value(&own)[K], int g) {
          const std::int64_t child = g * children + k;
          if (votes != nullptr)
            for (int h = 0; h < K; ++h) L::at(votes + child * size + (at + h) * L::size) = own[h];
          for (std::int64_t m = 0; m < count; ++m) {
            const T* p = x[g * count + m] + at * L::size;
            Value sum[4] = {};  // none waits for long
            for (int h = 0; h < K; ++h) sum[h % 4] += own[h] * L::at(p + h * L::size);
            L::at(dots + (child * count + m) * table + j * L::size) +=
                (sum[0] + sum[1]) + (sum[2] + sum[3]);
          }
        };
        use(vote[0], 0);  // a loop over g would keep the votes in memory
        if constexpr (G == 2) use(vote[1], 1);
      });
}

/// c [J, lanes] = softmax_j(c + prior_j + bias_j), in place; `prior` [J] and `bias` [J, lanes] may
/// be null; `leaky` adds a logit 0, whose share is dropped.
template <class L, class T>
inline void softmax_votes(std::int64_t j, const T* prior, const T* bias, bool leaky, T* c) {
  using Value = typename L::Value;
  const auto at = [](auto* p, std::int64_t k) -> auto& { return L::at(p + k * L::size); };
  if (prior != nullptr)
    for (std::int64_t k = 0; k < j; ++k) at(c, k) += prior[k];
  if (bias != nullptr)
    for (std::int64_t k = 0; k < j; ++k) at(c, k) += at(bias, k);
  Value top = leaky ? Value{} : Value(at(c, 0));
  for (std::int64_t k = 0; k < j; ++k) {
    const Value x = at(c, k);
    top = x > top ? x : top;
  }
  for (std::int64_t k = 0; k < j; ++k) at(c, k) -= top;
  alignas(64) T rest[L::size];
  L::at(rest) = -top;
  for (std::int64_t k = 0; k < j * L::size; ++k) c[k] = exp_nonpositive(c[k]);
  for (std::int64_t k = 0; k < L::size; ++k) rest[k] = exp_nonpositive(rest[k]);
  Value total = leaky ? Value(L::at(rest)) : Value{};
  for (std::int64_t k = 0; k < j; ++k) total += at(c, k);
  const Value share = T(1) / total;
  for (std::int64_t k = 0; k < j; ++k) at(c, k) *= share;
}

/// g_j <- c_j (g_j − Σ_k c_k g_k): the softmax applied backwards, in place.
template <class L, class T>
inline void softmax_votes_vjp(std::int64_t j, const T* c, T* g) {
  typename L::Value mean{};
  for (std::int64_t k = 0; k < j; ++k) mean += L::at(c + k * L::size) * L::at(g + k * L::size);
  for (std::int64_t k = 0; k < j; ++k)
    L::at(g + k * L::size) = L::at(c + k * L::size) * (L::at(g + k * L::size) - mean);
}

/// s [J D, lanes] += Σ_k c_k û_k over R children; their weights are `c_row` apart, votes J D lanes.
template <class L, int R, class T>
inline void add_weighted(VoteSizes n, const T* votes, const T* c, std::int64_t c_row, T* s) {
  const std::int64_t row = n.j * n.d * L::size;
  for (std::int64_t j = 0; j < n.j; ++j) {
    typename L::Value share[R];
    for (int k = 0; k < R; ++k) share[k] = L::at(c + k * c_row + j * L::size);
    const std::int64_t end = (j + 1) * n.d * L::size;
    for (std::int64_t x = j * n.d * L::size; x < end; x += L::size) {
      typename L::Value sum = L::at(s + x);
      for (int k = 0; k < R; ++k) sum += share[k] * L::at(votes + k * row + x);
      L::at(s + x) = sum;
    }
  }
}

/// gû_d [D, lanes] of one vote for parent j: rest_j (unless null) and, of each of `count`
/// iterations, c_j gs_j + gb_j v_j. x: v and gs of each [J, D, lanes]; tables: c and gb of each [J,
/// lanes]. Without `through` the couplings are constants.
template <class L, class T>
inline void gather_vote(VoteSizes n,
                        const T* const* x,
                        const T* tables,
                        std::int64_t count,
                        bool through,
                        const T* rest,
                        std::int64_t j,
                        T* gu) {
  using Value = typename L::Value;
  const std::int64_t table = n.j * L::size;
  for_rows<kVoteLines>(n.d, [&]<int K>(std::int64_t d) {
    const std::int64_t at = (j * n.d + d) * L::size;
    Value sum[K] = {};
    if (rest != nullptr)
      for (int k = 0; k < K; ++k) sum[k] = L::at(rest + at + k * L::size);
    for (std::int64_t t = 0; t < count; ++t) {
      const Value c = L::at(tables + 2 * t * table + j * L::size);
      for (int k = 0; k < K; ++k) sum[k] += c * L::at(x[2 * t + 1] + at + k * L::size);
      if (!through) continue;
      const Value g = L::at(tables + (2 * t + 1) * table + j * L::size);
      for (int k = 0; k < K; ++k) sum[k] += g * L::at(x[2 * t] + at + k * L::size);
    }
    for (int k = 0; k < K; ++k) L::at(gu + (d + k) * L::size) = sum[k];
  });
}

/// gu_e [E, lanes] += Σ_d w[d, e] gû_d: one parent's part in the gradient of a child.
template <class L, class T>
inline void add_child_gradient(VoteSizes n, const T* w, const T* gvotes, T* gu) {
  for_rows<kVoteLines>(n.e, [&]<int K>(std::int64_t e) {
    typename L::Value sum[K];
    for (int k = 0; k < K; ++k) sum[k] = L::at(gu + (e + k) * L::size);
    for (std::int64_t d = 0; d < n.d; ++d) {
      const typename L::Value g = L::at(gvotes + d * L::size);
      for (int k = 0; k < K; ++k) sum[k] += w[d * n.e + e + k] * g;
    }
    for (int k = 0; k < K; ++k) L::at(gu + (e + k) * L::size) = sum[k];
  });
}

/// gw[d, e] (+)= Σ over lanes and `groups` of gû_d u_e, for one parent. Groups are `g_row` and
/// `u_row` apart.
template <class L, class T>
inline void add_weight_gradient(VoteSizes n,
                                const T* gvotes,
                                std::int64_t g_row,
                                const T* u,
                                std::int64_t u_row,
                                std::int64_t groups,
                                bool add,
                                T* gw) {
  constexpr int kMost = std::min(kVoteLines, L::size),
                kRows = sizeof(typename L::Value) == 64 ? 2 : 1;
  using Value = typename L::Value;
  for_rows<kRows>(n.d, [&]<int R>(std::int64_t d) {
    for_rows<kMost>(n.e, [&]<int K>(std::int64_t e) {
      Value sum[R][K] = {};
      for (std::int64_t g = 0; g < groups; ++g) {
        Value y[R];
        for (int r = 0; r < R; ++r) y[r] = L::at(gvotes + g * g_row + (d + r) * L::size);
        for (int k = 0; k < K; ++k) {
          const Value x = L::at(u + g * u_row + (e + k) * L::size);
          for (int r = 0; r < R; ++r) sum[r][k] += y[r] * x;
        }
      }
      for (int r = 0; r < R; ++r) {
        T out[K];
        L::template sums<K>(sum[r], out);
        T* to = gw + (d + r) * n.e + e;
        for (int k = 0; k < K; ++k) to[k] = add ? to[k] + out[k] : out[k];
      }
    });
  });
}

}  // namespace capsfw::kernels
