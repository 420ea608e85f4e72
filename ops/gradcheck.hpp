#pragma once
// Are the gradients of a function right? For ops of the library and of its users.

#include <cstdint>
#include <string>

#include <capsfw/core/replay.hpp>

namespace capsfw {

/// Options of gradcheck() and gradgradcheck().
struct GradcheckOptions {
  double eps = 1e-6;             ///< step of the differences
  double rtol = 1e-5;            ///< the error may reach atol + rtol |numeric|
  double atol = 1e-6;            ///< see rtol
  std::uint64_t seed = 0;        ///< of directions and cotangents
  int directions = 3;            ///< random directions per input
  std::int64_t components = 64;  ///< inputs of at most this many elements: every element, too
};

/// What a check found: the number of derivatives compared, or the first thing that is wrong.
struct GradcheckResult {
  bool ok = false;      ///< no difference larger than allowed
  std::string message;  ///< the worst difference and where; says why if not ok
  explicit operator bool() const { return ok; }  ///< ok
};

/// Compares the gradient of Σ_k ⟨c_k, fn(inputs)_k⟩ with random cotangents c_k, one input at a
/// time, with (f(x + eps d) − f(x − eps d)) / 2 eps. The message names the worst derivative: input,
/// element or direction, numeric, analytic, error. Not ok as well: a NaN or an infinity in a value
/// or gradient, results that differ from run to run, nodes of the graph that stay alive. `fn` runs
/// with recording on, on copies of the inputs that require a gradient; outputs of integer type are
/// ignored.   DTypeError unless inputs and floating outputs are f64: f32 has too few digits for
/// differences.   ValueError for options out of range, or if there is nothing to check.
GradcheckResult gradcheck(const Function& fn,
                          const TensorList& inputs,
                          const GradcheckOptions& options = {});

/// gradcheck() of (inputs, cotangents) -> grad(fn(inputs), inputs, cotangents): the second order.
/// Inputs from number inputs.size() on are the cotangents.
GradcheckResult gradgradcheck(const Function& fn,
                              const TensorList& inputs,
                              const GradcheckOptions& options = {});

}  // namespace capsfw
