#pragma once
// Private: EM routing as fused kernels. The votes of a sample (or of a patch) are laid out once, or
// made from poses and matrices, in working memory that fits the second cache, and all iterations
// pass over them there. The forward pass keeps the Gaussians of every iteration; the backward pass
// recomputes R from them. Nothing of the size of the votes is kept or made except their gradient,
// where votes are an input.

#include <cstdint>

#include <capsfw/layers/em_routing.hpp>

namespace capsfw::detail {

/// Inputs. Either `votes`, or poses [B, C, P²] with what makes the votes of patch n out of them:
/// child i is the pose child[n, i], and its votes are P_child W_row[i] + offset[i].
struct EmInputs {
  Tensor votes = {};               ///< [S, I, J, D]
  Tensor poses = {}, weight = {};  ///< [B, C, P²], [rows, J, P²]
  Tensor child = {}, row = {},
         offset = {};  ///< i64 [N, I], −1 for no child; i64 [I]; [I, P²] or undefined
  Tensor a_in = {};    ///< [S, I], or [B, C] of the poses
  Tensor beta_a = {}, beta_u = {};  ///< [J]
  Tensor mask = {};                 ///< b8 [S, I]; for poses only if no child is missing
  Tensor lambdas = {};              ///< f64 [T]

  static constexpr int kCount = 11;
  /// Tensors of a node, in the order above; missing ones are tensors [0].
  TensorList list() const;
  static EmInputs from(const TensorList& all);
};

/// Settings, to be captured by a rule.
struct EmSettings {
  EmVariant variant = EmVariant::hinton;
  double eps_var = 0;
  bool detach = false;
  bool assignments = true;  ///< wanted

  EmSettings() = default;
  explicit EmSettings(const EmOptions& o)
      : variant(o.variant), eps_var(o.eps_var), detach(o.detach) {}
};

/// The routing as one op, whose reference is run_em on votes in plain ops. Saves the passes over
/// the votes of the plain ops (eight per iteration, three times that for the gradient), and all
/// tensors of the size of the votes but their gradient. Takes inputs that were checked.
EmRouted record_em(const EmInputs& in, const EmSettings& o);

/// Results, S = B N samples. `state` holds the Gaussians of all iterations [S, T, J, 2 D + 2]: M,
/// variance without eps_var, ln weight, Σ_h ln σ^h. It is memory of type i64, which takes no part
/// in differentiation: no zeros are made for its cotangent.
struct EmValues {
  Tensor poses, activations, variance, assignments, state;
};

/// True for what the kernels take: floating tensors of one type, not empty.
bool fits_fused_em(const EmInputs& in);

/// Runs the iterations; outside any graph.
EmValues fused_em(const EmInputs& in, const EmSettings& o);

/// Cotangents of the results; `assignments` undefined for 0.
struct EmCotangents {
  Tensor poses, activations, variance, assignments;
};
/// Which gradients are wanted.
struct EmNeeds {
  bool votes, poses, weight, a_in, beta_a, beta_u;
};
/// Gradients, as far as they are wanted, in the places of the inputs, given two of the results.
EmInputs fused_em_vjp(const EmInputs& in,
                      const Tensor& state,
                      const Tensor& activations,
                      const EmCotangents& gy,
                      const EmSettings& o,
                      const EmNeeds& needs);

}  // namespace capsfw::detail
