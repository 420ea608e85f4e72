#pragma once
// Capsules that look at a neighbourhood: every position of the output routes the capsules in its
// patch, with weights shared by all positions. B batch, C lower and J upper capsule types, N =
// Ho·Wo positions, P the side of a pose matrix.

#include <functional>

#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/em_routing.hpp>

namespace capsfw {

/// Geometry of patches; {rows, columns}, or a single number each for sequences.
struct PatchOptions {
  Dims kernel = {3, 3};  ///< height, width
  Dims stride = {};      ///< of the kernel's rank; empty: 1
  Dims padding = {};     ///< positions outside the map, on both sides, below the kernel; empty: 0
};

/// What capsule_patches returns.
struct Patches {
  Tensor values;  ///< [B, N, C·kh·kw, ...]; 0 where there is no child
  Tensor mask;    ///< b8 [N, C·kh·kw]: false where there is no child; undefined without padding
  Dims size;      ///< {Ho, Wo}, or {Lo}; N is their product
};

/// The children of every output position. x [B, C, H, W, ...] with a kernel of two numbers,
/// [B, C, L, ...] with one. Position (y, x) sees the children (c, y·s + ky − pad, x·s + kx − pad),
/// with index (c·kh + ky)·kw + kx; Ho = ⌊(H + 2 pad − kh) / s⌋ + 1. Children that no patch reaches,
/// because the stride leaves a border, get gradient 0.   Composed of index_select. ShapeError if
/// the kernel is larger than the padded map; ValueError for numbers out of range.
Patches capsule_patches(const Tensor& x, const PatchOptions& options);

/// Routes votes [B·N, I, J, D] given which of the children exist: b8 [B·N, I], undefined if all do.
using PatchRouting = std::function<Tensor(const Tensor& votes, const Tensor& mask)>;

/// Convolutional vector capsules with any routing to poses [B·N, J, D]. x [B, C, H, W, E] or
/// [B, C, L, E]; weight [C·kh·kw, J, D, E], or [J, D, E] shared by all children. -> [B, J, Ho, Wo,
/// D] or [B, J, Lo, D].
Tensor conv_caps(const Tensor& x,
                 const Tensor& weight,
                 const PatchOptions& patches,
                 const PatchRouting& route);

/// conv_caps with routing by agreement inside every patch. Children in the padding have coupling 0.
/// Hinton, Sabour, Frosst 2018, section 4 (patches); Zhao et al. 2018, section 2.3 (shared
/// weights).
Tensor conv_caps_dynamic(const Tensor& x,
                         const Tensor& weight,
                         const PatchOptions& patches,
                         const DynamicRoutingOptions& routing = {});

/// Who shares out a child in conv_caps_em.
enum class Competition {
  patch,  ///< the J parents at one position: every patch routes alone
  child   ///< all parents that see the child, at any position
};

/// "patch" or "child". ValueError listing the names.
Competition competition(std::string_view name);

/// Options of conv_caps_em.
struct ConvEmOptions {
  EmOptions em = {};  ///< without `init` and `mask`; `observe` sees tensors [B·N, ...]
  Competition competition = Competition::patch;  ///< who competes for a child
  bool assignments = true;                       ///< return R; undefined otherwise
};

/// What conv_caps_em returns.
struct ConvEmRouted {
  Tensor poses;        ///< [B, J, Ho, Wo, P, P]
  Tensor activations;  ///< [B, J, Ho, Wo]
  Tensor assignments;  ///< R [B, N, I, J], I = C·kh·kw; 0 for children in the padding
  Tensor variance;     ///< [B, J, Ho, Wo, P, P]
};

/// Convolutional matrix capsules. pose [B, C, H, W, P, P], activation [B, C, H, W], votes P_i W_ij
/// with weight [C·kh·kw, J, P, P], beta_a and beta_u [J]. With Competition::child
///   ln R_nij = L_nij − ln Σ_{(n', i'): the same child} Σ_j' e^(L_n'i'j'),  L = ln a_nj + ln
///   N(V_nij),
/// starting from 1 / (J · positions that see the child); the M step of a position sums over its own
/// patch. Both agree where patches do not overlap.   Hinton, Sabour, Frosst 2018, section 4 and
/// Procedure 1.   Fused for Competition::patch: votes are never stored, unless `observe` is given.
/// ShapeError and ValueError as em_routing and capsule_patches.
ConvEmRouted conv_caps_em(const Tensor& pose,
                          const Tensor& activation,
                          const Tensor& weight,
                          const Tensor& beta_a,
                          const Tensor& beta_u,
                          const std::vector<double>& lambdas,
                          const PatchOptions& patches,
                          const ConvEmOptions& options = {});

/// Adds the scaled row (y + ½)/H and column (x + ½)/W of the child to two elements of its votes [B,
/// C, H, W, J, P, P]. `at`: their places in the flattened pose; empty: the first two elements of
/// the right-hand column, {P − 1, 2P − 1}, as in Hinton, Sabour, Frosst 2018, section 4. Other
/// codes take {0, 1}.   ShapeError unless the places are in the pose.
Tensor coordinate_addition(const Tensor& votes, const Dims& at = {});

/// Options of class_caps_em.
struct ClassEmOptions {
  EmOptions em = {};            ///< of the routing
  bool coordinates = true;      ///< coordinate_addition
  Dims coordinate_places = {};  ///< `at` of coordinate_addition
};

/// The last layer: EM routing of all C·H·W children, (c·H + y)·W + x, to J classes, with weight [C,
/// J, P, P] shared by the positions. Fused as conv_caps_em. pose [B, C, H, W, P, P], activation [B,
/// C, H, W] -> poses [B, J, P²].
EmRouted class_caps_em(const Tensor& pose,
                       const Tensor& activation,
                       const Tensor& weight,
                       const Tensor& beta_a,
                       const Tensor& beta_u,
                       const std::vector<double>& lambdas,
                       const ClassEmOptions& options = {});

}  // namespace capsfw
