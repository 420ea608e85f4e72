#pragma once
// Capsule layers. B batch, I lower and J upper capsules, D and E their sizes.

#include <optional>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/layers/routing.hpp>

namespace capsfw {

/// Options of PrimaryCapsules.
struct PrimaryCapsulesOptions {
  std::int64_t stride = 2;
  double squash_c = 1.0;
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
  Conv2d conv;

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::int64_t dim_;
  double squash_c_;
};

/// How a child's vote for a parent depends on the pair.
enum class VoteWeights {
  full,       ///< W_ij: a matrix per pair
  shared,     ///< W_j: any number of children
  factorised  ///< W_j W̃_i
};

/// "full", "shared" or "factorised". ValueError listing the names.
VoteWeights vote_weights(std::string_view name);

/// Options of DenseCapsules.
struct DenseCapsulesOptions {
  RoutingOptions routing = {};
  VoteWeights votes = VoteWeights::full;
  std::int64_t inner_dim =
      0;                   ///< size between the factors of `factorised`; 0: the lower capsule size
  bool vote_bias = false;  ///< adds a learned [J, D] to every vote (breaks f(−u) = −f(u))
  bool prior = false;      ///< learned log priors [I, J] as initial logits
  bool noise_class = false;  ///< one more upper capsule takes part in the routing and is dropped
  double keep =
      1.0;  ///< share of the upper capsules that takes part in training (partial sampling)
  double init_std = 0.1;  ///< standard deviation of W (for factors: of their product)
};

/// Fully connected capsules: votes û_{j|i} = W_ij u_i (or a cheaper form), routed by agreement.
/// u [B, I, E] -> v [B, J, D].   Sabour, Frosst, Hinton 2017, section 2; factorised and shared
/// weights: Su 2018.
class DenseCapsules : public Layer {
 public:
  DenseCapsules(std::int64_t lower,
                std::int64_t lower_dim,
                std::int64_t upper,
                std::int64_t upper_dim,
                Rng& rng,
                DenseCapsulesOptions options = {});
  /// Poses and couplings.
  Routed route(const Tensor& u);
  /// û [B, I, J, D].
  Tensor votes(const Tensor& u) const;
  /// May be changed between calls, for example to compare numbers of iterations.
  RoutingOptions& routing() { return options_.routing; }

  Tensor weight;        ///< [I, J, D, E], [J, D, E] or [J, D, M]
  Tensor lower_weight;  ///< [I, M, E], factorised only
  Tensor vote_bias;     ///< [J, D], if asked for
  Tensor prior;         ///< [I, J], if asked for

 protected:
  Tensor forward(const Tensor& u) override { return route(u).poses; }

 private:
  Tensor draw_mask(std::int64_t batch, DType dtype);

  std::int64_t lower_, lower_dim_, upper_;
  DenseCapsulesOptions options_;
  Rng rng_;
};

/// Lengths of capsules: ‖v_j‖, [B, J, D] -> [B, J]; gradient 0 at a zero capsule.
Tensor lengths(const Tensor& poses);

/// Poses with all but the capsules of `labels` i64 [B] set to zero, flattened: [B, J, D] -> [B,
/// J·D]. What the decoder sees: the true label in training, the longest capsule at test.   Sabour
/// et al. 2017, section 4.1.
Tensor mask_poses(const Tensor& poses, const Tensor& labels);

/// The same with explicit factors [B, J].
Tensor mask_poses_by(const Tensor& poses, const Tensor& factors);

}  // namespace capsfw
