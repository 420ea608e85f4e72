#pragma once
// What a training step will take, before the first one is made.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include <capsfw/layers/module.hpp>
#include <capsfw/optim/optimizer.hpp>

namespace capsfw {

/// Bytes of a training step. Tensors alone are counted, as memory_stats() does.
struct MemoryEstimate {
  std::int64_t batch = 0;      ///< samples in the step
  std::size_t parameters = 0;  ///< of the network, with its buffers
  std::size_t gradients = 0;   ///< of the parameters
  std::size_t optimizer = 0;   ///< state of the optimizer
  std::size_t others = 0;      ///< tensors that exist already: data, other networks
  std::size_t step = 0;        ///< activations, votes and all that a step adds at its largest
  double per_sample = 0;       ///< what one more sample adds to `step`
  /// A smaller batch that was tried and fits, 0 if none does; where this one exceeds
  /// memory_limit().
  std::optional<std::int64_t> fits = {};

  /// The sum of all.
  std::size_t total() const { return parameters + gradients + optimizer + others + step; }
  /// The part of total() that is not in use yet.
  std::size_t missing() const { return gradients + optimizer + step; }
  /// A batch whose step is smaller by `excess` bytes, with a tenth to spare; 0 if there is none.
  std::int64_t batch_without(std::size_t excess) const;
  /// "a step of 64 samples takes about 812 MB: parameters 33 MB, ...".
  std::string str() const;
};

/// A forward pass over `samples` samples as training makes it: the loss; or nothing, if it has left
/// its gradients at the parameters already.
using StepLoss = std::function<Tensor(std::int64_t samples)>;

/// Measures a step in training mode instead of modelling it: forward and backward, without an
/// update, of the batch and of half of it. Where the batch does not fit into memory_limit() and
/// available_memory(), it is halved until it does, and the line through both points is continued.
/// Where the result exceeds memory_limit(), smaller batches are tried as well (`fits`).
/// Parameters, buffers, generators, mode and optimizer stay as they are, gradients are dropped.
/// Call it between steps, while no other thread makes tensors.   MemoryError if not even one sample
/// fits; ValueError for a batch below 1.
MemoryEstimate estimate_memory(Module& net,
                               Optimizer& optimizer,
                               std::int64_t batch,
                               const StepLoss& loss);

/// MemoryError, with advice, if the step exceeds memory_limit(). Without a limit: the same text as
/// a warning if it exceeds available_memory(), else "".
std::string check_memory(const MemoryEstimate& estimate);

}  // namespace capsfw
