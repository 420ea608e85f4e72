#pragma once
// Capsule layers. B batch, I lower and J upper capsules, D and E their sizes.

#include <memory>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/layers/routing_table.hpp>
#include <capsfw/layers/votes.hpp>

namespace capsfw {

/// Options of PrimaryCapsules.
struct PrimaryCapsulesOptions {
  std::int64_t stride = 2;  ///< of the convolution
  double squash_c = 1.0;    ///< constant of squash
};

/// The first capsules of a network: a convolution with types · dim channels, regrouped and
/// squashed. Channel c·dim + d at (y, x) is component d of capsule (c·H + y)·W + x. x [B, in, H0,
/// W0] -> [B, types·H·W, dim]. Sabour, Frosst, Hinton 2017, section 4.
class PrimaryCapsules : public Layer {
 public:
  PrimaryCapsules(std::int64_t in,
                  std::int64_t types,
                  std::int64_t dim,
                  std::int64_t kernel,
                  Rng& rng,
                  PrimaryCapsulesOptions options = {});
  Conv2d conv;  ///< makes types · dim channels

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::int64_t dim_;
  double squash_c_;
};

/// Options of DenseCapsules.
struct DenseCapsulesOptions {
  RoutingSpec routing = {};  ///< by name, "kmeans:iterations=2", or typed options of one
  VoteWeights votes = VoteWeights::full;  ///< form of the weights
  std::int64_t inner_dim =
      0;                   ///< size between the factors of `factorised`; 0: the lower capsule size
  bool vote_bias = false;  ///< adds a learned [J, D] to every vote (breaks f(−u) = −f(u))
  bool frobenius = false;  ///< votes by W_ij / ‖W_ij‖_F
  bool noise_class = false;  ///< one more upper capsule takes part in the routing and is dropped
  double keep =
      1.0;  ///< share of the upper capsules that takes part in training (partial sampling)
  double init_std = 0.1;  ///< standard deviation of W (for factors: of their product)
};

/// Fully connected capsules: votes û_{j|i} = W_ij u_i (or a cheaper form), then any routing.
/// u [B, I, E] -> v [B, J, D].   Sabour, Frosst, Hinton 2017, section 2; factorised and shared
/// weights: Su 2018; noise class and partial sampling: He 2018, section 4.
class DenseCapsules : public Layer {
 public:
  /// ValueError for sizes below 1 (the noise class is none of the upper capsules; `lower` may be 0,
  /// any number, where the weights are shared), for a `keep` outside of (0, 1], and for what the
  /// votes and the routing refuse.
  DenseCapsules(std::int64_t lower,
                std::int64_t lower_dim,
                std::int64_t upper,
                std::int64_t upper_dim,
                Rng& rng,
                DenseCapsulesOptions options = {});
  /// Poses, couplings (with the noise class) and activations. `activations` [B, I] are those of
  /// the lower capsules, `exists` b8 [B, I] says which of them are there; both may be undefined.
  Routed route(const Tensor& u,
               const Tensor& activations = {},
               const Tensor& exists = {},
               const RoutingObserver& observe = {});
  /// Routes every window of `rows` neighbours among u [B, R, E], `step` apart, without copies of
  /// their votes: results [B·N, ...]. Shared weights only, and no result where the routing has no
  /// kernel for it (Routing::route_windows): then route() the windows.
  std::optional<Routed> route_windows(const Tensor& u, std::int64_t rows, std::int64_t step);
  /// Starting values of the routing, and a scale of the vote weight, that fit the children u (see
  /// Routing::balance); nothing where the routing has none. Networks do it layer by layer.
  void balance(const Tensor& u, const Tensor& activations = {}, const Tensor& exists = {});
  /// May be changed between calls, for example to compare numbers of iterations.
  Routing& routing() const { return *routing_; }

  VoteTransform votes;  ///< votes(u) is û [B, I, J, D]

 protected:
  Tensor forward(const Tensor& u) override { return route(u).poses; }

 private:
  /// Which parents take part in training; undefined: all.
  Tensor draw_kept(std::int64_t batch);
  Routed finish(Routed out);

  std::int64_t upper_;
  DenseCapsulesOptions options_;
  std::unique_ptr<Routing> routing_;
  Rng rng_;
};

namespace detail {
/// Which parents take part [B, J] b8: a share `keep` of them, at least one, drawn for each sample.
Tensor draw_kept(std::int64_t batch, std::int64_t parents, double keep, Rng& rng);
}  // namespace detail

/// Lengths of capsules: ‖v_j‖, [B, J, D] -> [B, J]; gradient 0 at a zero capsule.
Tensor lengths(const Tensor& poses);

/// Poses with all but the capsules of `labels` i64 [B] set to zero, flattened: [B, J, D] -> [B,
/// J·D]. What the decoder sees: the true label in training, the longest capsule at test.   Sabour
/// et al. 2017, section 4.1.
Tensor mask_poses(const Tensor& poses, const Tensor& labels);

/// The same with explicit factors [B, J], or [1, J] for all samples. ShapeError for others.
Tensor mask_poses_by(const Tensor& poses, const Tensor& factors);

}  // namespace capsfw
