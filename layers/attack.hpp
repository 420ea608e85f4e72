#pragma once
// Adversarial examples by input gradients: images that are changed by at most ε per pixel so that
// the loss grows. `losses` maps images x [B, ...] to one loss for each, which may depend on its own
// image alone. Parameters are held constant. Results are plain data.

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/penalty.hpp>

namespace capsfw {

/// Options of the attacks.
struct AttackOptions {
  double epsilon = 0.1;      ///< largest change of a pixel
  double low = 0, high = 1;  ///< pixels stay within
  int steps = 10;            ///< pgd only
  double step_size = 0;      ///< pgd only; 0: 2.5 ε / steps, which crosses the box
  bool random_start = true;  ///< pgd only: start anywhere within ε
};

/// clamp(x + ε sign(∇ₓ loss), low, high): one step. Goodfellow, Shlens, Szegedy 2015, Explaining
/// and Harnessing Adversarial Examples, section 4.   ValueError for a negative ε, low > high,
/// pixels outside of these or NaN, and a loss or a gradient that is NaN.
Tensor fgsm(const SampleFunction& losses, const Tensor& x, const AttackOptions& options = {});

/// Steps like that of fgsm, each projected back to within ε of x and into [low, high]. Madry et al.
/// 2018, Towards Deep Learning Models Resistant to Adversarial Attacks, section 2.1. Keeps for each
/// image the iterate with the largest loss, so that more steps are never worse.   ValueError as
/// fgsm, in any step, and for less than one step or a step size that is negative or infinite.
Tensor pgd(const SampleFunction& losses, const Tensor& x, const AttackOptions& options, Rng& rng);

}  // namespace capsfw
