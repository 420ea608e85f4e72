#pragma once
// Private: what the forward and the backward pass of the fused EM routing share: sizes, where
// votes come from, and the steps of one sample. Rows of lower capsules have `pad` lanes.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <capsfw/core/tensor.hpp>

#include "../../ops/kernels/em.hpp"
#include "../../ops/kernels/math.hpp"
#include "em_fused.hpp"

namespace capsfw::detail {

/// All that a sample needs to know, as numbers and pointers.
template <class T>
struct EmPlan {
  std::int64_t samples, patches, i, j, d, t;  ///< S = B N, N, I, J, D, T
  std::int64_t pad, side, children;           ///< lanes of a row, P, C
  const T *votes, *poses, *weight, *offset;   ///< weight [J, P², pad], offset [P², pad]
  const T* none;                              ///< zeros [P²], for missing children
  const std::int64_t* child;
  const T *a_in, *beta_a, *beta_u;
  const bool* mask;
  const double* lambdas;
  EmVariant variant;
  T eps;
  bool activations;  ///< the variant weighs children by a_in

  std::int64_t slab() const { return d * pad; }
  std::int64_t table() const { return j * pad; }
  std::int64_t width() const { return 2 * d + 2; }
  std::int64_t state() const { return t * j * width(); }
  /// M, variance, ln weight and Σ ln σ of iteration `step` and capsule `cap` in a state [T, J, ·].
  template <class P>
  P* at(P* state, std::int64_t step, std::int64_t cap) const {
    return state + (step * j + cap) * width();
  }
};

/// Working memory of one sample, the same in both passes.
template <class T>
struct EmRoom {
  T *votes, *pose;    ///< [J, D, pad], [P², pad]
  T *alpha, *kept;    ///< [pad]: what weighs children; 1 for those that take part, else 0
  T *first, *tables;  ///< R of the first step [pad], of the others [., J, pad]
  T *tops, *shares;   ///< largest joint and 1 / Σ e^(joint − top) over capsules, [., pad]
  T *row, *scratch;   ///< [pad], [pad + 4 D + 64]
  const T** rows;     ///< [pad]

  template <class Take>
  EmRoom(const EmPlan<T>& n, std::int64_t tables_kept, const Take& take, const T** pointers)
      : votes(take(n.j * n.slab())),
        pose(take(n.poses != nullptr ? n.slab() : 0)),
        alpha(take(n.pad)),
        kept(take(n.pad)),
        first(take(n.pad)),
        tables(take(tables_kept * n.table())),
        tops(take(tables_kept * n.pad)),
        shares(take(tables_kept * n.pad)),
        row(take(n.pad)),
        scratch(take(n.pad + 4 * n.d + 64)),
        rows(pointers) {}
  static std::int64_t size(const EmPlan<T>& n, std::int64_t tables_kept) {
    const auto padded = [](std::int64_t k) { return (k + 63) / 64 * 64; };
    return padded(n.j * n.slab()) + padded(n.poses != nullptr ? n.slab() : 0) + 4 * padded(n.pad) +
           padded(tables_kept * n.table()) + 2 * padded(tables_kept * n.pad) +
           padded(n.pad + 4 * n.d + 64);
  }
};

/// Who takes part, with which weight, and the votes or the poses of sample `s`.
template <class L, class T>
inline void em_open(const EmPlan<T>& n, std::int64_t s, const EmRoom<T>& room) {
  const std::int64_t b = s / n.patches;
  const std::int64_t* child = n.child == nullptr ? nullptr : n.child + s % n.patches * n.i;
  for (std::int64_t i = 0; i < n.pad; ++i) {
    const bool there = i < n.i && (child == nullptr || child[i] >= 0) &&
                       (n.mask == nullptr || n.mask[s * n.i + i]);
    room.kept[i] = there ? T(1) : T(0);
    room.first[i] = there ? T(1) / static_cast<T>(n.j) : T(0);
    room.alpha[i] = there ? T(1) : T(0);
    if (there && n.activations)
      room.alpha[i] = child == nullptr ? n.a_in[s * n.i + i] : n.a_in[b * n.children + child[i]];
  }
  constexpr std::int64_t kB = kernels::kEmBlock<T>;
  if (n.poses == nullptr) {  // block by block, in the order of memory
    for (std::int64_t i = 0; i < n.i; ++i) room.rows[i] = n.votes + (s * n.i + i) * n.j * n.d;
    for (std::int64_t i = 0; i < n.i; i += kB) {
      const T** next = i + 2 * kB <= n.i ? room.rows + i + kB : nullptr;
      for (std::int64_t j = 0; j < n.j; ++j)
        kernels::to_block<L>(room.rows + i, next, std::min(kB, n.i - i), j * n.d, n.d,
                             room.votes + j * n.slab() + i * n.d);
    }
    return;
  }
  for (std::int64_t i = 0; i < n.i; ++i)
    room.rows[i] = child[i] < 0 ? n.none : n.poses + (b * n.children + child[i]) * n.d;
  for (std::int64_t i = 0; i < n.i; i += kB)
    kernels::to_block<L, T>(room.rows + i, nullptr, std::min(kB, n.i - i), 0, n.d,
                            room.pose + i * n.d);
}

/// The votes for capsule `cap`, blocks of D rows.
template <class L, class T>
inline const T* em_load(const EmPlan<T>& n, std::int64_t cap, const EmRoom<T>& room) {
  T* v = room.votes + cap * n.slab();
  if (n.poses == nullptr) return v;
  const T* w = n.weight + cap * n.slab();
  if (n.side == 4)
    kernels::em_votes<L, 4>(room.pose, w, n.pad, n.side, v);
  else
    kernels::em_votes<L, 0>(room.pose, w, n.pad, n.side, v);
  if (n.offset != nullptr)
    for (std::int64_t x = 0; x < n.slab(); x += L::size) L::at(v + x) += L::at(n.offset + x);
  return v;
}

/// R of iteration `step` for capsule `cap`; `base` is the first iteration whose table is kept.
template <class T>
inline T* em_shares(const EmPlan<T>& n,
                    const EmRoom<T>& room,
                    std::int64_t step,
                    std::int64_t base,
                    std::int64_t cap) {
  return step == 0 ? room.first : room.tables + (step - base) * n.table() + cap * n.pad;
}

/// ln weight + ln N of the Gaussian `g` for every child, [pad].
template <class L, class T>
inline void em_joint(const EmPlan<T>& n, const T* v, const T* g, T* factor, T* out) {
  for (std::int64_t h = 0; h < n.d; ++h) factor[h] = T(-0.5) / (g[n.d + h] + n.eps);
  const T base = g[2 * n.d] - g[2 * n.d + 1] -
                 static_cast<T>(0.91893853320467274178 * static_cast<double>(n.d));
  kernels::em_exponent<L>(v, g, factor, base, n.pad, n.d, out);
}

/// R = softmax over capsules of a table of joints, 0 for children that do not take part.
template <class T>
inline void em_compete(const EmPlan<T>& n,
                       const T* __restrict kept,
                       T* __restrict x,
                       T* __restrict top,
                       T* __restrict share) {
  const std::int64_t pad = n.pad;
  std::copy_n(x, pad, top);
  for (std::int64_t j = 1; j < n.j; ++j)
    for (std::int64_t i = 0; i < pad; ++i)
      top[i] = x[j * pad + i] > top[i] ? x[j * pad + i] : top[i];
  std::fill_n(share, pad, T(0));
  for (std::int64_t j = 0; j < n.j; ++j)
    for (std::int64_t i = 0; i < pad; ++i) {
      const T e = kernels::exp_nonpositive(x[j * pad + i] - top[i]);
      x[j * pad + i] = e;
      share[i] += e;
    }
  for (std::int64_t i = 0; i < pad; ++i) share[i] = kept[i] / share[i];
  for (std::int64_t j = 0; j < n.j; ++j)
    for (std::int64_t i = 0; i < pad; ++i) x[j * pad + i] *= share[i];
}

/// r'_i = R_i / Σ_i α_i R_i, where 0/0 = 0.
template <class T>
struct EmColumn {
  T data;       ///< Σ_i α_i R_i
  T log_total;  ///< ln Σ_i α_i R_i
  bool empty;   ///< r' = 0
};

/// The weights of the children of a capsule, in `out`. `log_r` writes ln R, for sums that are too
/// small to be divided by.
template <class L, class T, class LogR>
inline EmColumn<T> em_column(
    const EmPlan<T>& n, const EmRoom<T>& room, const T* shares, T* out, const LogR& log_r) {
  using Limits = std::numeric_limits<T>;
  const std::int64_t pad = n.pad;
  EmColumn<T> c{kernels::dot_row<L>(room.alpha, shares, pad), T(0), false};
  const bool logs = n.variant == EmVariant::v1;
  if (c.data > std::sqrt(Limits::min()) && c.data < Limits::infinity()) {
    const T inverse = T(1) / c.data;
    for (std::int64_t i = 0; i < pad; i += L::size) L::at(out + i) = L::at(shares + i) * inverse;
    if (logs) c.log_total = std::log(c.data);
    return c;
  }
  log_r(out);  // R underflows: the largest is moved to 1
  T top = -Limits::infinity(), all = T(0), weighted = T(0);
  for (std::int64_t i = 0; i < pad; ++i)
    if (room.kept[i] != T(0)) top = std::max(top, out[i]);
  if (top == -Limits::infinity()) top = T(0);
  for (std::int64_t i = 0; i < pad; ++i) {
    out[i] = room.kept[i] != T(0) ? std::exp(out[i] - top) : T(0);
    all += out[i];
    weighted += room.alpha[i] * out[i];
  }
  if (logs) c.log_total = top + std::log(weighted);
  c.empty = all == T(0) || weighted / all < Limits::min() / Limits::epsilon();
  const T inverse = c.empty ? T(0) : T(1) / weighted;
  for (std::int64_t i = 0; i < pad; ++i) out[i] *= inverse;
  return c;
}

/// em_column for iteration `step` of the Gaussians `state` [T, J, ·].
template <class L, class T>
inline EmColumn<T> em_weights(const EmPlan<T>& n,
                              const EmRoom<T>& room,
                              const T* state,
                              std::int64_t step,
                              std::int64_t base,
                              std::int64_t cap,
                              T* out) {
  return em_column<L>(n, room, em_shares(n, room, step, base, cap), out, [&](T* log_r) {
    std::fill_n(log_r, n.pad, T(0));
    if (step == 0) return;
    const T *top = room.tops + (step - base) * n.pad, *share = room.shares + (step - base) * n.pad;
    em_joint<L>(n, room.votes + cap * n.slab(), n.at(state, step - 1, cap), room.scratch, log_r);
    for (std::int64_t i = 0; i < n.pad; ++i) log_r[i] += std::log(share[i]) - top[i];
  });
}

/// Room for `n` numbers that is not a tensor of numbers.
template <class T>
Tensor em_memory(std::int64_t n) {
  return empty({(n * static_cast<std::int64_t>(sizeof(T)) + 7) / 8}, DType::i64);
}
template <class T>
T* em_numbers(Tensor& memory) {
  return static_cast<T*>(static_cast<void*>(memory.mutable_data<std::int64_t>()));
}
template <class T>
const T* em_numbers(const Tensor& memory) {
  return static_cast<const T*>(static_cast<const void*>(memory.data<std::int64_t>()));
}

/// Plan of `in`, whose tensors it points into; `keep` holds copies that it made.
template <class T>
EmPlan<T> em_plan(const EmInputs& in, const EmSettings& o, TensorList& keep);

}  // namespace capsfw::detail
