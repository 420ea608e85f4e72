#pragma once
// Regularizers made of gradients. Each is a number (rank 0) whose graph contains a gradient, to be
// added to a loss and differentiated like any other term:
//
//   Tensor x = images.requires_grad_();
//   const Tensor losses = margin_loss_per_sample(net(x).lengths, targets);
//   const Tensor total = mean(losses) + 0.01 * input_gradient_penalty(losses, x);
//   const TensorList g = grad({total}, net.parameters(), {}, {.allow_unused = true});
//
// (grad() with the parameters as targets: backward() would also work out ∂total/∂x, which nobody
// needs.) `values` holds f_b, one number for each sample, usually its loss. f_b may depend on x_b
// alone: a batch norm in training mode on the way is a GradError that says so. Gradients that are
// zero, or absent because nothing depends on x, count as 0 and are no error.
//
// Input and parameter penalty: Su 2021, An inequality between the input and the parameter gradient
// penalty; Dherin et al. 2021, arXiv 2111.15090. docs/gradient-penalty.md has the whole story.

#include <functional>

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// A batch [B, ...] to one value for each sample [B].
using SampleFunction = std::function<Tensor(const Tensor& x)>;
/// The same of several tensors with one batch axis: images and labels, say.
using BatchFunction = std::function<Tensor(const TensorList& batch)>;

// ---- the input ----

/// (1/B) Σ_b ‖∇_{x_b} f_b‖²: one backward pass of Σ_b f_b gives all gradients. `x` [B, ...] must
/// require a gradient and lead to `values` [B]. Gradient: 2 (∇_θ ∇_x f)ᵀ ∇_x f, by double backward.
/// Drucker, Le Cun 1992, Double backpropagation.   ShapeError unless values are [B]; GradError if x
/// needs no gradient.
Tensor input_gradient_penalty(const Tensor& values, const Tensor& x);
/// The same of f(x).
Tensor input_gradient_penalty(const SampleFunction& f, const Tensor& x);

/// (1/B) Σ_b (‖∇D(x̂_b)‖ − 1)², x̂_b = mix_b real_b + (1 − mix_b) fake_b, norms over all axes but
/// the first; real and fake [B, ...], mix [B]. Differentiable by all of them. A gradient of exactly
/// 0 has norm 0 and passes none on. Gulrajani et al. 2017, Improved Training of Wasserstein GANs,
/// eq (3), weight 10.   ShapeError on sizes that do not fit.
Tensor wgan_gp(const SampleFunction& critic,
               const Tensor& real,
               const Tensor& fake,
               const Tensor& mix);
/// The same with mix_b uniform in [0, 1).
Tensor wgan_gp(const SampleFunction& critic, const Tensor& real, const Tensor& fake, Rng& rng);

/// R1: ½ (1/B) Σ_b ‖∇D(real_b)‖². Mescheder, Geiger, Nowozin 2018, Which Training Methods for GANs
/// do actually Converge?, eq (9), weight γ = 10.
Tensor r1_penalty(const SampleFunction& critic, const Tensor& real);
/// R2: the same on samples of the generator, which are held constant. Eq (10) there.
Tensor r2_penalty(const SampleFunction& critic, const Tensor& fake);

/// An unbiased estimate of (1/B) Σ_b ‖∂outputs_b/∂x_b‖_F²: the mean over `projections` of
/// C ‖∇_{x_b} ⟨p_b, outputs_b⟩‖² with p_b uniform on the unit sphere of R^C; outputs [B, ...] with
/// C elements each, x [B, ...] leading to them. One backward pass per projection. Hoffman, Roberts,
/// Yaida 2019, Robust Learning with Jacobian Regularization, eq (9) and Algorithm 1 (without the
/// factor ½ of its loss).   ValueError for less than one projection; else as above.
Tensor jacobian_penalty(const Tensor& outputs, const Tensor& x, Rng& rng, int projections = 1);

// ---- the parameters ----

/// ‖∇_θ (1/B) Σ_b f_b‖²: the squared norm of the gradient that SGD sees. `values` [B], or the loss
/// itself as one number; batch norm may be in any mode. Gradient: 2 H ∇_θ.
Tensor param_gradient_penalty_batch(const Tensor& values, const TensorList& params);

/// (1/B) Σ_b ‖∇_θ f_b‖², for any model, by one forward and one backward pass per sample: f runs on
/// slices [1, ...] of the batch. ShapeError unless all tensors of the batch have the same first
/// axis and f returns [1].
Tensor param_gradient_penalty_per_sample(const BatchFunction& f,
                                         const TensorList& batch,
                                         const TensorList& params);
/// The same for the layers that per_sample.hpp knows, with one backward pass for the batch and
/// without a loop: `values` [B] computed by `model`, whose trainable parameters are θ.
Tensor param_gradient_penalty_per_sample(const Tensor& values, Module& model);

// ---- without second derivatives ----

/// How to take a difference.
struct DifferenceOptions {
  double step = 1e-2;    ///< ε, the length of the step along the gradient
  bool central = false;  ///< both sides: twice the cost, error O(ε²) in place of O(ε)
};

/// input_gradient_penalty with a gradient by finite differences: the value is exact, and the
/// gradient is (2/B) Σ_b ‖g_b‖ ∇_θ (f_b(x_b + ε g_b/‖g_b‖) − f_b(x_b)) / ε with g_b = ∇_{x_b} f_b
/// held constant, which tends to the exact one for ε → 0. No rule is recorded: the cost is one more
/// forward and backward pass (two if central). `values` = f(x), x requires a gradient. Does not
/// differentiate by what x was made of (then f is called once more); x.grad() of a leaf is no
/// penalty's gradient.   ValueError unless ε > 0.
Tensor input_gradient_penalty_difference(const SampleFunction& f,
                                         const Tensor& values,
                                         const Tensor& x,
                                         DifferenceOptions options = {});

/// param_gradient_penalty_batch with a gradient by finite differences,
/// 2 ‖g‖ (∇L(θ + ε g/‖g‖) − ∇L(θ)) / ε with g = ∇L(θ). `loss` returns one number and must give the
/// same one each time (no fresh dropout). Moves the parameters and puts them back, bit for bit,
/// also if `loss` throws; so call it before the graph of the step is built, which would notice.
/// ValueError unless ε > 0, and for an expanded parameter, whose elements share memory.
Tensor param_gradient_penalty_difference(const std::function<Tensor()>& loss,
                                         const TensorList& params,
                                         DifferenceOptions options = {});

}  // namespace capsfw
