#pragma once
// Derivatives of functions, as functions: products with Jacobians and Hessians, and the matrices
// themselves where they are small. PyTorch's torch.autograd.functional has the same five.
//
// `fn` runs with recording on, on stand-ins of the inputs that require a gradient. What does not
// depend on an input has derivative 0; inputs of integer type have an undefined one. Results are
// plain data unless {.create_graph = true}: then they are recorded and can be differentiated again,
// by the inputs and by whatever else `fn` uses (weights, say).

#include <functional>

#include <capsfw/core/replay.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Options of the functions below.
struct FunctionalOptions {
  bool create_graph = false;  ///< record the results
};

/// Values of a function and a derivative of it.
struct Differentiated {
  TensorList outputs;      ///< fn(inputs)
  TensorList derivatives;  ///< like the inputs (vjp, hvp) or like the outputs (jvp)
};

/// uᵀ J: the gradient of Σ_k ⟨cotangents_k, fn(inputs)_k⟩, one tensor per input. One backward pass.
/// GradError unless there is one cotangent per output; ShapeError if one does not fit.
Differentiated vjp(const Function& fn,
                   const TensorList& inputs,
                   const TensorList& cotangents,
                   FunctionalOptions options = {});

/// J v: the derivative of fn along the tangents, one tensor per output. By double backward: uᵀ J is
/// linear in u, and its own vjp along v is J v. GradError unless there is one tangent per input;
/// ShapeError if one does not fit.
Differentiated jvp(const Function& fn,
                   const TensorList& inputs,
                   const TensorList& tangents,
                   FunctionalOptions options = {});

/// H v for a function with one result of one element: the gradient of ⟨∇fn, v⟩ with v held
/// constant. Two backward passes, no matrix. Errors as for jvp; ShapeError if fn returns more.
Differentiated hvp(const Function& fn,
                   const TensorList& inputs,
                   const TensorList& vectors,
                   FunctionalOptions options = {});

/// ∂fn_i / ∂x_j, of shape [fn.shape..., x.shape...]: one backward pass per element of the result.
Tensor jacobian(const std::function<Tensor(const Tensor&)>& fn,
                const Tensor& x,
                FunctionalOptions options = {});

/// ∂²fn / ∂x_i ∂x_j of a function with one element, of shape [x.shape..., x.shape...]: the jacobian
/// of its gradient. ShapeError if fn returns more; its own gradient needs create_graph.
Tensor hessian(const std::function<Tensor(const Tensor&)>& fn,
               const Tensor& x,
               FunctionalOptions options = {});

}  // namespace capsfw
