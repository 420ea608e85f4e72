#pragma once
// Reverse-mode differentiation of the recorded graph.

#include <functional>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Options of grad().
struct GradOptions {
  bool create_graph = false;  ///< record the gradient itself, for derivatives of higher order
  bool retain_graph = false;  ///< keep what the rules saved, so that the graph can be used again
  bool allow_unused =
      false;  ///< an input that the outputs do not depend on gives an undefined tensor
};

/// Σ_k ∂⟨outputs_k, grad_outputs_k⟩ / ∂inputs, one tensor per input. Pure: no `.grad` is touched.
/// Results may share memory, with each other and with `grad_outputs`: copy one before changing it
/// in place. `grad_outputs` defaults to ones for outputs of one element. GradError if an output or
/// input needs no gradient, if an input is unused, or if the graph was freed; ShapeError on a
/// cotangent of the wrong shape.
TensorList grad(const TensorList& outputs,
                const TensorList& inputs,
                const TensorList& grad_outputs = {},
                GradOptions options = {});

/// grad() of one tensor with respect to one tensor.
Tensor grad(const Tensor& output,
            const Tensor& input,
            const Tensor& grad_output = {},
            GradOptions options = {});

/// Adds ∂loss/∂leaf to `.grad` of every leaf below `loss`, except where requires_grad_(false) was
/// called since: nothing is computed for those. Never records: use grad() for higher order.
/// `grad_output` defaults to 1 for a loss of one element. GradError if the loss needs no
/// gradient, has several elements and no cotangent, or the graph was freed; ShapeError on a
/// cotangent of the wrong shape.
void backward(const Tensor& loss, const Tensor& grad_output = {}, bool retain_graph = false);

/// True if ops are recorded now, on this thread.
bool is_grad_enabled();

/// Switches recording for its lifetime, on this thread.
class GradModeGuard {
 public:
  explicit GradModeGuard(bool enabled);
  ~GradModeGuard();
  GradModeGuard(const GradModeGuard&) = delete;
  GradModeGuard& operator=(const GradModeGuard&) = delete;

 private:
  bool previous_;
};

/// Recording off for its lifetime: evaluation, weight updates.
struct NoGradGuard : GradModeGuard {
  NoGradGuard() : GradModeGuard(false) {}
};

}  // namespace capsfw
