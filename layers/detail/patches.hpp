#pragma once
// Private: which child stands where in which patch.

#include <vector>

#include <capsfw/layers/conv_capsules.hpp>

#include "em_loop.hpp"

namespace capsfw::detail {

/// The children of all positions of a map with `types` · `map` capsules.
struct PatchIndex {
  Dims size;                         ///< positions of the output
  std::int64_t positions, children;  ///< N and children of a patch I
  bool padded;
  std::vector<std::int64_t> child;  ///< of patch n and place i at [n·I + i]; −1 in the padding

  /// Number 0 instead of −1: indices that can be read from.
  Tensor readable() const;
  /// b8 [N, I]; undefined without padding.
  Tensor mask() const;
};

/// ShapeError or ValueError as capsule_patches. `map`: {H, W} or {L}.
PatchIndex index_patches(std::int64_t types, const Dims& map, const PatchOptions& options);

/// [B, N, I, ...] from x [B, C, map..., ...].
Tensor take_patches(const Tensor& x, const PatchIndex& index);

/// [B·N, J, ...] -> [B, J, size..., ...].
Tensor to_map(const Tensor& x, std::int64_t batch, const Dims& size);

/// Whole rows of [B·N, I] from one of patches [N, I].
Tensor repeat_for_batch(const Tensor& mask, std::int64_t batch);

/// Every child is shared out among all patches that hold it.
EmCompetition compete_for_children(const PatchIndex& index,
                                   std::int64_t batch,
                                   std::int64_t parents,
                                   DType dtype);

}  // namespace capsfw::detail
