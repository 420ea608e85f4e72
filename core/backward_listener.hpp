#pragma once
// To hear of gradients as they become complete, while the backward pass still runs: whoever sends
// them away may begin with the first one.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Told on its own thread, while a BackwardListenerGuard names it, how backward() comes on. Not
/// told of grad().
class BackwardListener {
 public:
  virtual ~BackwardListener() = default;
  /// The gradient at `leaf` is complete; what remains of the pass does not touch it.
  virtual void leaf_done(const Tensor& leaf) = 0;
  /// The rule of an op has been applied, and the next one follows.
  virtual void rule_done() = 0;
};

/// Makes `listener` that of this thread while alive. The listener must outlive it.
class BackwardListenerGuard {
 public:
  explicit BackwardListenerGuard(BackwardListener* listener);
  ~BackwardListenerGuard();
  BackwardListenerGuard(const BackwardListenerGuard&) = delete;
  BackwardListenerGuard& operator=(const BackwardListenerGuard&) = delete;

 private:
  BackwardListener* previous_;
};

}  // namespace capsfw
