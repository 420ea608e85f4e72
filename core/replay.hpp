#pragma once
// One mechanism for three things: gradients of fused kernels to any order, checkpointing, and ops
// with a gradient of the user's own.

#include <functional>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>

namespace capsfw {

/// A function of tensors, as gradcheck and vjp take it.
using Function = std::function<TensorList(const TensorList&)>;
/// (inputs, outputs, cotangents of the outputs) -> cotangents of the inputs, written in public ops.
using CustomVjp =
    std::function<TensorList(const TensorList&, const TensorList&, const TensorList&)>;

/// vjp of `fn` at `inputs` by running it again: the cotangents of the inputs. `fn` sees aliases, so
/// the walk stops there; the result is recorded if recording is on. Inputs without `needs` give
/// undefined tensors (all are needed when `needs` is empty).
TensorList replay(const Function& fn,
                  const TensorList& inputs,
                  const TensorList& cotangents,
                  const std::vector<bool>& needs = {});

/// fn(inputs) without keeping its intermediate results: the backward pass runs `fn` again. `fn`
/// must return the same values each time (draw random masks from an Rng that it copies), and get
/// all that requires a gradient from `inputs`, parameters as well: GradError in the backward pass,
/// and no gradients at all where no input requires one.
TensorList checkpoint(const Function& fn, const TensorList& inputs);

/// An op of the user's own: `forward` runs unrecorded, `vjp` gives its gradient. Higher orders
/// follow if `vjp` is written in differentiable ops.
TensorList custom_vjp(std::string_view name,
                      const TensorList& inputs,
                      const Function& forward,
                      CustomVjp vjp);

/// Records a fused kernel: `kernel(saved, gy)` is its fast vjp, and `reference(inputs)` the same
/// function in plain ops, which is differentiated instead when the gradient itself is recorded.
/// Both may capture only trivially copyable values. The kernel may read what `save` names; inputs
/// are always saved.
template <class Kernel, class Reference>
TensorList record_fused(std::string_view name,
                        const TensorList& inputs,
                        TensorList outputs,
                        Save save,
                        Kernel kernel,
                        Reference reference) {
  const int n = static_cast<int>(inputs.size());
  return record_many(name, inputs, std::move(outputs), save | Save::inputs,
                     [=](const Saved& s, const TensorList& gy) -> TensorList {
                       if (!is_grad_enabled()) return kernel(s, gy);
                       TensorList in;
                       std::vector<bool> needs;
                       for (int i = 0; i < n; ++i) {
                         in.push_back(s.input(i));
                         needs.push_back(s.needs(i));
                       }
                       return replay(reference, in, gy, needs);
                     });
}

}  // namespace capsfw
