#pragma once
// Capsule convolution with any routing.

#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/conv_capsules.hpp>

namespace capsfw {

/// What ConvCapsules::route returns: N = Ho·Wo (or Lo) positions, I = C·kh·kw children of each.
struct ConvRouted {
  Tensor poses;             ///< [B, J, Ho, Wo, D] or [B, J, Lo, D]
  Tensor couplings;         ///< [B, N, I, J], with the noise class; 0 for children in the padding
  Tensor activations = {};  ///< [B, J, Ho, Wo] or [B, J, Lo]; undefined: the lengths of the poses
};

/// Convolutional vector capsules: every position routes the C·kh·kw capsules in its patch
/// (capsule_patches) to J types, with weights shared by the positions. A dense layer of capsules
/// runs on all patches at once, so all its options work here too: any routing by name, every form
/// of votes (`full` and `factorised` have weights for each place in the patch, `matrix` takes poses
/// of P² numbers), a noise class, and partial sampling, drawn for each position. Children in the
/// padding do not exist (Votes::exists). x [B, C, H, W, E] with a kernel of two numbers, [B, C, L,
/// E] with one; H and W may differ. Takes memory for B·N·I·J·D votes; on sequences with shared
/// weights, where the routing has a kernel for windows, for B·N·I·J couplings.
///
/// Every patch routes alone. EM routing in which all parents that see a child compete for it, at
/// any position, is ConvMatrixCapsules with Competition::child.   Hinton, Sabour, Frosst 2018,
/// section 4 (patches); Zhao et al. 2018, section 2.3 (sequences). ValueError for sizes below 1 or
/// a kernel that has not one or two numbers; ShapeError unless x fits.
class ConvCapsules : public Layer {
 public:
  ConvCapsules(std::int64_t in,
               std::int64_t in_dim,
               std::int64_t types,
               std::int64_t dim,
               const PatchOptions& patches,
               Rng& rng,
               DenseCapsulesOptions options = {});
  /// `activations` [B, C, H, W] (or [B, C, L]) are those of the lower capsules, `exists` b8 of the
  /// same shape says which of them are there, as in sequences of different lengths; both may be
  /// undefined. `observe` sees the patches as a batch of B·N. Without `couplings` these may be
  /// undefined, which can save a copy of them. EM routing has no answer for a patch
  /// without any child: ValueError.
  ConvRouted route(const Tensor& x,
                   const Tensor& activations = {},
                   const Tensor& exists = {},
                   const RoutingObserver& observe = {},
                   bool couplings = true);
  /// DenseCapsules::balance for the patches of x.
  void balance(const Tensor& x);
  /// May be changed between calls.
  Routing& routing() const { return patch.routing(); }

  DenseCapsules patch;  ///< the layer that runs on every patch

 protected:
  Tensor forward(const Tensor& x) override { return route(x, {}, {}, {}, false).poses; }

 private:
  std::int64_t in_, in_dim_;
  PatchOptions patches_;
};

}  // namespace capsfw
