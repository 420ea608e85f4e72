#pragma once
// Do the samples of a batch depend on each other?

#include <string_view>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// Reads a graph from `values` down to `x` (undefined: all of it). GradError naming the layer if a
/// batch norm in training mode lies on the way: it normalises a sample by the others, so that there
/// is no function of one sample whose gradient could be taken.
void refuse_batch_statistics(const Tensor& values, const Tensor& x, std::string_view who);

/// ShapeError unless `values` is [B] with one number for each sample of `x` [B, ...] (undefined:
/// any B).
void check_per_sample(const Tensor& values, const Tensor& x, std::string_view who);

}  // namespace capsfw::detail
