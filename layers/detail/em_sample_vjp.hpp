#pragma once
// The backward pass of EM routing for one sample, with the votes of one capsule at a time in cache.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "em_plan.hpp"

namespace capsfw::detail {

/// Cotangents of the results, and where gradients go; null where there is none.
template <class T>
struct EmFlow {
  const T *state, *activations, *gposes, *gactivations, *gvariance, *gassignments;
  T *votes, *poses, *a_in, *beta_a, *beta_u;  ///< β [S, J]
  bool stream;  ///< the gradient of the votes is written past the caches
};

/// Working memory of the backward pass of one piece.
template <class T>
struct EmBack {
  T* gl;  ///< gradient of ln R, then of the joint, of iterations base .. T − 1 [·, J, pad]
  T* gaussians;       ///< M, gM, 2 gvar, 1 / var of all iterations [T, J, 4 D]
  T* rows;            ///< r of all iterations for one capsule [T, pad]
  T* gvotes;          ///< of one capsule [D, pad]
  T *gpose, *galpha;  ///< [P², pad], [pad]
  T* sums;            ///< [pad]
  T* zeros;           ///< [pad]
  T* scrap;           ///< what missing children get [D]
  T* weight;          ///< gradient of the weight of the piece [J, P², pad]; null if not wanted
  T** targets;        ///< [pad]
};

template <class L, class T>
class EmSampleVjp {
 public:
  EmSampleVjp(const EmPlan<T>& n,
              const EmRoom<T>& room,
              const EmBack<T>& back,
              const EmFlow<T>& flow,
              std::int64_t s,
              bool detach)
      : n_(n),
        room_(room),
        back_(back),
        flow_(flow),
        s_(s),
        base_(detach ? n.t - 1 : 0),
        state_(flow.state + s * n.state()) {}

  /// With M_t, v_t (variance without eps_var, var_t = v_t + eps_var), w_t (weight of the E step) of
  /// the forward pass, x = V − M_t, and gM_t, gvar_t, gw_t what arrives there, for t = T, ..., 1:
  ///   the cost and the activation applied backwards: gN (of Σ_i α_i R_ij), more gvar_t
  ///   y_ij = r'_ij c_ij + R_ij gN_j,  c_ij = Σ_h x (gM_t + gvar_t x) − Σ_h gvar_t v_t
  ///   gα_i += Σ_j y_ij;  g ln R_ij = α_i y_ij
  ///   gjoint_ij = g ln R_ij − R_ij Σ_k g ln R_ik
  ///   gM_(t−1) = Σ_i gjoint x / var,  gvar_(t−1) = ½ Σ_i gjoint (x² / var² − 1 / var),
  ///   gw_(t−1) = Σ_i gjoint / w  with x and var of t − 1
  /// The gradient of r is centred, because Σ_i r_ij x = 0 and Σ_i r_ij x² = v.
  void run() {
    em_open<L>(n_, s_, room_);
    recompute_shares();
    std::fill_n(back_.galpha, n_.pad, T(0));
    if (n_.poses != nullptr) std::fill_n(back_.gpose, n_.slab(), T(0));
    for (std::int64_t t = n_.t - 1; t >= base_; --t) {
      for (std::int64_t j = 0; j < n_.j; ++j) m_step(t, j);
      if (t > base_) e_step(t);
    }
    for (std::int64_t j = 0; j < n_.j; ++j) gather(j);
    hand_out();
  }

 private:
  T* gaussian(std::int64_t t, std::int64_t j) const {
    return back_.gaussians + (t * n_.j + j) * 4 * n_.d;
  }
  T* gl(std::int64_t t, std::int64_t j) const {
    return back_.gl + (t - first_table()) * n_.table() + j * n_.pad;
  }
  /// The first iteration with a table of R of its own.
  std::int64_t first_table() const { return std::max<std::int64_t>(base_, 1); }
  T* tables(std::int64_t t) const { return room_.tables + (t - first_table()) * n_.table(); }

  void recompute_shares() {
    for (std::int64_t j = 0; j < n_.j; ++j) {
      em_load<L>(n_, j, room_);
      for (std::int64_t t = first_table(); t < n_.t; ++t)
        em_joint<L>(n_, room_.votes + j * n_.slab(), n_.at(state_, t - 1, j), room_.scratch,
                    tables(t) + j * n_.pad);
    }
    for (std::int64_t t = first_table(); t < n_.t; ++t) {
      const std::int64_t at = (t - first_table()) * n_.pad;
      em_compete(n_, room_.kept, tables(t), room_.tops + at, room_.shares + at);
    }
  }

  EmColumn<T> weights(std::int64_t t, std::int64_t j, T* out) const {
    return em_weights<L>(n_, room_, state_, t, first_table(), j, out);
  }

  void m_step(std::int64_t t, std::int64_t j) {
    const std::int64_t d = n_.d, pad = n_.pad;
    const T *v = room_.votes + j * n_.slab(), *g = n_.at(state_, t, j);
    T *gm = gaussian(t, j) + d, *gv = gm + d, *precision = gv + d, glog_weight = T(0),
      gactivation = T(0);
    std::copy_n(g, d, gaussian(t, j));
    for (std::int64_t h = 0; h < d; ++h) precision[h] = T(1) / (g[d + h] + n_.eps);
    if (t + 1 == n_.t) {
      const std::int64_t at = s_ * n_.j + j;
      std::copy_n(flow_.gposes + at * d, d, gm);
      std::copy_n(flow_.gvariance + at * d, d, gv);
      gactivation = flow_.gactivations[at];
    } else {
      kernels::em_moments<L>(v, gl(t + 1, j), g, pad, d, gm, gv);
      glog_weight = kernels::sum_row<L>(gl(t + 1, j), pad);
      for (std::int64_t h = 0; h < d; ++h) {
        gm[h] *= precision[h];
        gv[h] = T(0.5) * precision[h] * (gv[h] * precision[h] - glog_weight);
      }
    }
    const EmColumn<T> column = weights(t, j, room_.row);
    const T gdata = close_capsule(t, j, column, glog_weight, gactivation, g, gv, precision);
    T centre = n_.variant == EmVariant::v1 ? glog_weight + gactivation * std::exp(g[2 * d]) : T(0);
    for (std::int64_t h = 0; h < d; ++h) centre -= gv[h] * g[d + h];
    const bool wants_shares = t > base_, wants_alpha = flow_.a_in != nullptr;
    if (wants_shares || wants_alpha) {
      T* c = back_.sums;
      kernels::em_slope<L>(v, g, gm, gv, centre, pad, d, c);
      const T* shares = em_shares(n_, room_, t, first_table(), j);
      for (std::int64_t i = 0; i < pad; i += L::size) {
        const typename L::Value y = L::at(room_.row + i) * L::at(c + i) + L::at(shares + i) * gdata;
        L::at(back_.galpha + i) += y;
        if (wants_shares) L::at(gl(t, j) + i) = L::at(room_.alpha + i) * y;
      }
      if (wants_shares && t + 1 == n_.t && flow_.gassignments != nullptr)
        for (std::int64_t i = 0; i < n_.i; ++i)
          gl(t, j)[i] += shares[i] * flow_.gassignments[(s_ * n_.i + i) * n_.j + j];
    }
    for (std::int64_t h = 0; h < d; ++h) gv[h] *= T(2);
  }

  /// The cost and the activation applied backwards: adds to gvar and to the gradients of β; returns
  /// the gradient of Σ_i α_i R_ij.
  T close_capsule(std::int64_t t,
                  std::int64_t j,
                  const EmColumn<T>& column,
                  T glog_weight,
                  T gactivation,
                  const T* g,
                  T* gv,
                  const T* precision) {
    if (n_.variant == EmVariant::v1) return T(0);
    const std::int64_t d = n_.d;
    const T a = flow_.activations[s_ * n_.j + j], rest = -std::expm1(g[2 * d]),
            log_sigma = g[2 * d + 1];
    // Of the sigmoid from its rounded value, as sigmoid() itself has it.
    const T glogit = glog_weight * rest + gactivation * a * (T(1) - a);
    const T gbeta_a = static_cast<T>(n_.lambdas[t]) * glogit, gcost = -gbeta_a;
    const T bu = n_.beta_u[j], one = column.empty ? T(0) : T(1), size = static_cast<T>(d);
    T gbeta_u = one * gcost, glog_sigma = one * gcost, gdata = T(0);
    switch (n_.variant) {
      case EmVariant::v4:
        gbeta_u = glog_sigma = column.data * gcost;
        gdata = (bu + log_sigma) * gcost;
        break;
      case EmVariant::hinton:
        glog_sigma = column.data * gcost;
        gbeta_u = size * glog_sigma;
        gdata = (size * bu + log_sigma) * gcost;
        break;
      case EmVariant::eq12:
        gbeta_u = column.data * gcost;
        gdata = bu * gcost;
        for (std::int64_t h = 0; h < d; ++h)  // of ½ Σ_h v / (v + eps_var)
          gv[h] += T(0.5) * gcost * n_.eps * precision[h] * precision[h];
        break;
      default:
        break;
    }
    for (std::int64_t h = 0; h < d; ++h) gv[h] += T(0.5) * glog_sigma * precision[h];
    const std::int64_t at = s_ * n_.j + j;
    if (flow_.beta_a != nullptr) flow_.beta_a[at] += gbeta_a;
    if (flow_.beta_u != nullptr) flow_.beta_u[at] += gbeta_u;
    return gdata;
  }

  /// The softmax over capsules applied backwards, in place.
  void e_step(std::int64_t t) {
    T* __restrict g = gl(t, 0);
    T* __restrict sum = back_.sums;
    const T* __restrict r = tables(t);
    const std::int64_t pad = n_.pad;
    std::fill_n(sum, pad, T(0));
    for (std::int64_t j = 0; j < n_.j; ++j)
      for (std::int64_t i = 0; i < pad; ++i) sum[i] += g[j * pad + i];
    for (std::int64_t j = 0; j < n_.j; ++j)
      for (std::int64_t i = 0; i < pad; ++i) g[j * pad + i] -= r[j * pad + i] * sum[i];
  }

  template <int N, bool kAdd>
  void gather_terms(std::int64_t j, std::int64_t t) const {
    std::array<kernels::EmTerm<T>, N> terms;
    for (std::int64_t k = 0; k < N; ++k) {
      terms[static_cast<std::size_t>(k)] = {back_.rows + (t + k - base_) * n_.pad,
                                            t + k + 1 < n_.t ? gl(t + k + 1, j) : back_.zeros,
                                            gaussian(t + k, j)};
    }
    kernels::em_vote_gradient<L, N, kAdd>(room_.votes + j * n_.slab(), terms.data(), n_.pad, n_.d,
                                          back_.gvotes);
  }

  template <bool kAdd>
  void gather_some(std::int64_t j, std::int64_t t, std::int64_t count) const {
    if (count == 1) return gather_terms<1, kAdd>(j, t);
    if (count == 2) return gather_terms<2, kAdd>(j, t);
    gather_terms<3, kAdd>(j, t);
  }

  /// The gradient of the votes for capsule j, from all iterations, and what follows from it.
  void gather(std::int64_t j) {
    const bool wants_pose = flow_.poses != nullptr, wants_weight = back_.weight != nullptr;
    if (flow_.votes == nullptr && !wants_pose && !wants_weight) return;
    for (std::int64_t t = base_; t < n_.t; ++t) {
      T* r = back_.rows + (t - base_) * n_.pad;
      weights(t, j, r);
      for (std::int64_t i = 0; i < n_.pad; i += L::size) L::at(r + i) *= L::at(room_.alpha + i);
    }
    for (std::int64_t t = base_; t < n_.t; t += kernels::kEmTerms) {
      const std::int64_t count = std::min<std::int64_t>(kernels::kEmTerms, n_.t - t);
      if (t == base_)
        gather_some<false>(j, t, count);
      else
        gather_some<true>(j, t, count);
    }
    if (flow_.votes != nullptr) {
      for (std::int64_t i = 0; i < n_.i; ++i)
        back_.targets[i] = flow_.votes + ((s_ * n_.i + i) * n_.j + j) * n_.d;
      if constexpr (std::is_same_v<T, float>)
        if (flow_.stream) return put<kernels::Rows::stream>(back_.gvotes);
      return put<kernels::Rows::write>(back_.gvotes);
    }
    const T* w = n_.weight + j * n_.slab();
    T *gpose = wants_pose ? back_.gpose : nullptr,
      *gw = wants_weight ? back_.weight + j * n_.slab() : nullptr;
    if (n_.side == 4)
      kernels::em_votes_vjp<L, 4>(room_.pose, w, back_.gvotes, n_.pad, n_.side, gpose, gw);
    else
      kernels::em_votes_vjp<L, 0>(room_.pose, w, back_.gvotes, n_.pad, n_.side, gpose, gw);
  }

  /// Blocks [I / B, D, B] to the rows at `targets`.
  template <kernels::Rows kRows>
  void put(const T* from) const {
    constexpr std::int64_t kB = kernels::kEmBlock<T>;
    for (std::int64_t i = 0; i < n_.i; i += kB)
      kernels::from_block<L, kRows>(from + i * n_.d, std::min(kB, n_.i - i), n_.d,
                                    back_.targets + i);
  }

  /// Gradients of the poses and of a_in to where they belong.
  void hand_out() const {
    const std::int64_t b = s_ / n_.patches;
    const std::int64_t* child = n_.child == nullptr ? nullptr : n_.child + s_ % n_.patches * n_.i;
    if (flow_.a_in != nullptr)
      for (std::int64_t i = 0; i < n_.i; ++i)
        if (room_.kept[i] != T(0)) {
          if (child == nullptr)
            flow_.a_in[s_ * n_.i + i] = back_.galpha[i];
          else
            flow_.a_in[b * n_.children + child[i]] += back_.galpha[i];
        }
    if (flow_.poses == nullptr) return;
    for (std::int64_t i = 0; i < n_.i; ++i)
      back_.targets[i] =
          child[i] < 0 ? back_.scrap : flow_.poses + (b * n_.children + child[i]) * n_.d;
    put<kernels::Rows::add>(back_.gpose);
  }

  const EmPlan<T>& n_;
  const EmRoom<T>& room_;
  const EmBack<T>& back_;
  const EmFlow<T>& flow_;
  std::int64_t s_, base_;
  const T* state_;
};

}  // namespace capsfw::detail
