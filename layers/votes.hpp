#pragma once
// Votes with weights of their own: what each child says about each parent.

#include <string>
#include <string_view>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/routing.hpp>

namespace capsfw {

/// How a child's vote for a parent depends on the pair.
enum class VoteWeights {
  full,        ///< W_ij u_i: a transformation matrix for each pair
  shared,      ///< W_j u_i: any number of children
  factorised,  ///< W_j W̃_i u_i
  matrix       ///< P_i W_ij, poses as P x P matrices: far fewer numbers than `full`
};

/// "full", "shared", "factorised" or "matrix". ValueError listing the names.
VoteWeights vote_weights(std::string_view name);

/// Options of VoteTransform.
struct VoteOptions {
  VoteWeights weights = VoteWeights::full;  ///< form of the weights
  std::int64_t inner_dim = 0;  ///< M, between the factors of `factorised`; 0: the child's size
  bool bias = false;           ///< a learned [J, D], added to every vote
  bool frobenius = false;      ///< every matrix divided by its Frobenius norm (not `factorised`)
  double init_std = 0.1;       ///< standard deviation of W (for factors: of their product)
};

/// Votes û_{j|i} [B, I, J, D] of children u [B, I, E].   Sabour, Frosst, Hinton 2017, eq (2);
/// shared and factorised: Su 2018, From K-Means to Capsule; matrix: Hinton, Sabour, Frosst 2018,
/// section 2 (E = D = P²); Frobenius normalisation: Wang, Liu 2018. ValueError for sizes below 1,
/// for `matrix` unless E = D is a square, and for `frobenius` with factors. ShapeError unless u
/// fits.
class VoteTransform : public Module {
 public:
  /// `who` names the layer in messages. size.children is a fixed number, except for `shared`,
  /// where 0 says that there is none.
  VoteTransform(std::string who, const RoutingSize& size, Rng& rng, VoteOptions options = {});
  /// The votes [B, I, J, D] of u [B, I, E].
  Tensor operator()(const Tensor& u) const;
  /// The same as a product that is not carried out; without a weight if it is none (`matrix`, or
  /// votes with a bias).
  VoteProduct product(const Tensor& u) const;
  const RoutingSize& size() const { return size_; }  ///< sizes that it was made for

  Tensor weight;  ///< [I, J, D, E]; shared [J, D, E]; factorised [J, D, M]; matrix [I, J, P, P]
  Tensor lower_weight;  ///< [I, M, E], factorised only
  Tensor bias;          ///< [J, D], if asked for

 private:
  void check(const Tensor& u) const;
  std::string who_;
  RoutingSize size_;
  VoteOptions options_;
};

}  // namespace capsfw
