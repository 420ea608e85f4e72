#pragma once
// Bounds on gradients, between backward() and step().

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Options of clip_grad_norm.
struct ClipOptions {
  bool error_if_nonfinite = false;  ///< ValueError when the norm is NaN or infinite
};

/// n = √Σ g² over all elements of the gradients of `params`; if n > max_norm, every g becomes
/// g · max_norm / n. Returns n, as it was before: in double, the same bits for any thread count.
///
/// Parameters without a gradient do not count, and one listed twice counts once. If n is not finite
/// the gradients stay as they are. They are replaced, not written to, since backward() may have
/// left one tensor in several places. An infinite `max_norm` only measures. ValueError unless
/// max_norm >= 0.
/// Source: Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural
/// networks", algorithm 1.
double clip_grad_norm(const TensorList& params, double max_norm, ClipOptions options = {});

/// Every element of every gradient becomes min(max(g, -limit), limit); NaN stays. The gradients are
/// replaced, as above. ValueError unless limit >= 0.
void clip_grad_value(const TensorList& params, double limit);

}  // namespace capsfw
