#pragma once
// Private: what routing by agreement, normalised means and entropy-regularised routing have in
// common, so that they share their kernels. Iteration t = 1, ..., n of all of them is
//   c_ij = softmax_j(⟨û_ij, V_j⟩ + prior_ij),   S_j = Σ_i c_ij û_ij
// and only the next V differs: Σ of all squash(S) so far, or the direction of the last S.

#include <array>
#include <cmath>
#include <cstdint>

#include <capsfw/layers/routing.hpp>

#include "../../ops/kernels/long_capsule.hpp"

namespace capsfw::detail {

/// Trivially copyable, so that the rule of a node may hold it.
struct AgreementRule {
  enum class Kind {
    dynamic,  ///< V ← V + squash_c(S); poses squash_c(S)
    kmeans,  ///< V ← scale S / ‖S‖; poses squash_c(S); the first couplings are uniform in any case
    entropy  ///< V ← scale_t S / ‖S‖; poses S / (1 + max_k ‖S_k‖)
  };
  static constexpr int kMostScales = 16;

  Kind kind = Kind::dynamic;
  int sums = 3;  ///< n
  double squash_c = 1.0;
  bool leaky = false;                           ///< an extra logit 0 takes its share and is dropped
  bool detach = false;                          ///< couplings are constants
  std::array<double, kMostScales> scales = {};  ///< of V after iteration t; kmeans: the first

  bool accumulates() const { return kind == Kind::dynamic; }
  /// The couplings of the first iteration are the same for all children.
  bool uniform_start(bool has_prior) const { return kind == Kind::kmeans || !has_prior; }
  bool leaky_start() const { return leaky && kind != Kind::kmeans; }
  double scale(std::int64_t t) const {
    return kind == Kind::entropy ? scales[static_cast<std::size_t>(t)] : scales[0];
  }
  /// Of the function, for messages and graphs.
  const char* name() const;

  /// Poses of the sums S [B, J, D] of the last iteration.
  Tensor poses(const Tensor& s) const;
  /// V of the last iteration [B, J, D], from the sums of all [B, n, J, D].
  Tensor centres(const Tensor& sums) const;
  /// Couplings of the last iteration.
  Tensor couplings(const Tensor& votes,
                   const Tensor& sums,
                   const Tensor& prior,
                   const Tensor& mask) const;
};

/// What is optional in a routing.
struct AgreementInputs {
  Tensor prior = {};  ///< [I, J]
  Tensor mask = {};   ///< kept upper capsules [B, J], not 0
};

/// Poses [B, J, D], couplings of the last iteration [B, I, J], sums of all [B, n, J, D] in plain
/// ops: the function that the kernels compute.
TensorList route_in_plain_ops(const AgreementRule& rule,
                              const Tensor& votes,
                              const AgreementInputs& in);

/// The mask as something to add to logits: 0 for kept capsules, −∞ for the others; undefined
/// without a mask. ValueError where none is kept.
Tensor bias_of(const AgreementRule& rule, const Tensor& mask, DType dtype);

/// V after iteration t, given S of that iteration, in place, for each capsule.
template <class T>
void next_centres(const AgreementRule& rule,
                  std::int64_t t,
                  const T* s,
                  T* v,
                  std::int64_t capsules,
                  std::int64_t d) {
  const T c = static_cast<T>(rule.squash_c), scale = static_cast<T>(rule.scale(t));
  for (std::int64_t j = 0; j < capsules; ++j, s += d, v += d) {
    T sq = T(0);
    for (std::int64_t e = 0; e < d; ++e) sq += s[e] * s[e];
    if (kernels::too_long(sq)) {
      const double square = kernels::dot_f64(s, s, d), own = rule.accumulates() ? 1 : 0,
                   f = rule.accumulates() ? kernels::squash_factor(square, rule.squash_c)
                                          : rule.scale(t) / std::sqrt(square);
      for (std::int64_t e = 0; e < d; ++e)
        v[e] = static_cast<T>(own * static_cast<double>(v[e]) + f * static_cast<double>(s[e]));
      continue;
    }
    if (rule.accumulates()) {
      const T f = std::sqrt(sq) / (c + sq);
      for (std::int64_t e = 0; e < d; ++e) v[e] += f * s[e];
    } else if (kernels::too_short(sq)) {
      const kernels::ShortCapsule<T> small(s, d);
      const T f = small.n == T(0) ? T(0) : scale / small.n;
      for (std::int64_t e = 0; e < d; ++e) v[e] = f * small.t(s[e]);
    } else {
      const T f = scale / std::sqrt(sq);
      for (std::int64_t e = 0; e < d; ++e) v[e] = f * s[e];
    }
  }
}

/// gs += the gradient g of V after iteration t, pulled back to S of that iteration; 0 where S = 0.
template <class T>
void add_centres_vjp(const AgreementRule& rule,
                     std::int64_t t,
                     const T* s,
                     const T* g,
                     T* gs,
                     std::int64_t capsules,
                     std::int64_t d) {
  const T c = static_cast<T>(rule.squash_c), scale = static_cast<T>(rule.scale(t));
  for (std::int64_t j = 0; j < capsules; ++j, s += d, g += d, gs += d) {
    T sq = T(0), dot = T(0);
    for (std::int64_t e = 0; e < d; ++e) sq += s[e] * s[e], dot += s[e] * g[e];
    if (!rule.accumulates() && kernels::too_short(sq)) {
      const kernels::ShortCapsule<T> small(s, d);
      if (small.n == T(0)) continue;
      T along = T(0);
      for (std::int64_t e = 0; e < d; ++e) along += small.t(s[e]) / small.n * g[e];
      const T f = small.t(scale / small.n);
      for (std::int64_t e = 0; e < d; ++e) gs[e] += f * (g[e] - along * (small.t(s[e]) / small.n));
      continue;
    }
    if (sq == T(0)) continue;
    if (kernels::too_long(sq)) {
      const double square = kernels::dot_f64(s, s, d), along = kernels::dot_f64(s, g, d),
                   f = rule.accumulates() ? kernels::squash_factor(square, rule.squash_c)
                                          : rule.scale(t) / std::sqrt(square),
                   h = rule.accumulates() ? kernels::squash_radial(square, along, rule.squash_c)
                                          : -f * along / square;
      for (std::int64_t e = 0; e < d; ++e)
        gs[e] += static_cast<T>(f * static_cast<double>(g[e]) + h * static_cast<double>(s[e]));
      continue;
    }
    const T n = std::sqrt(sq), w = c + sq;
    const T f = rule.accumulates() ? n / w : scale / n,
            h = rule.accumulates() ? (c - sq) / (w * w) / n * dot : -f * (dot / sq);
    for (std::int64_t e = 0; e < d; ++e) gs[e] += f * g[e] + h * s[e];
  }
}

}  // namespace capsfw::detail
