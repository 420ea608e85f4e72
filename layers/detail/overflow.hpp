#pragma once
// Private: telling numbers that are too large for their type from a bug.

#include <memory>
#include <string_view>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// OverflowError, naming `who` and the largest input, if a result is not finite although all inputs
/// are, and they are so large that products of them overflow. Anything else passes: what was NaN
/// before stays so. Undefined tensors are left out. Costs a pass over the results.
void check_overflow(std::string_view who, const TensorList& results, const TensorList& inputs);

/// The same for the gradients of a fused kernel. `signs` are results of the forward pass that are
/// as large as the inputs, and small in memory: unless one is large, nothing else is read.
void check_gradient_overflow(std::string_view who,
                             const TensorList& signs,
                             const TensorList& gradients,
                             const TensorList& inputs,
                             const TensorList& cotangents);

/// The same for a function in plain ops, to all orders of gradients:
///
///   const OverflowWatch watch("heinsen_routing", votes);
///   ... of watch.input(votes) ...
///   return watch.output(y);
///
/// Costs a pass over the votes; unless they are large, input() and output() return what they get.
/// Otherwise these are identities in the graph: input() throws the OverflowError when a gradient
/// arrives that is not finite, unless that is what has come in at an output().
class OverflowWatch {
 public:
  /// Looks at `x`, the largest of the inputs.
  OverflowWatch(std::string_view who, const Tensor& x);
  /// x, to be read in place of `x`. Undefined: itself.
  Tensor input(const Tensor& x) const;
  /// y, to be returned in place of `y`. Undefined: itself.
  Tensor output(const Tensor& y) const;

  struct State;  ///< of one call, shared by the nodes of its graph

 private:
  std::shared_ptr<State> state_;
};

}  // namespace capsfw::detail
