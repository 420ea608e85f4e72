#include <capsfw/layers/attack.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/batch_statistics.hpp"

namespace capsfw {
namespace {

void check(const AttackOptions& o, const Tensor& x, const char* who) {
  if (!(o.epsilon >= 0 && std::isfinite(o.epsilon)) || !(o.low <= o.high))
    throw ValueError(
        fmt::format("{}: epsilon must be at least 0 and low at most high; got {}, [{}, {}]", who,
                    o.epsilon, o.low, o.high));
  if (x.numel() == 0 || all(logical_and(ge(x, o.low), le(x, o.high)))) return;
  throw ValueError(
      fmt::format("{}: images {} must lie within [{}, {}]; got values from {} to {}. Hint: low and "
                  "high are the range of the pixels",
                  who, x.shape().str(), o.low, o.high, min(x).item(), max(x).item()));
}

/// What is NaN has no sign and is not the largest: an attack would end in NaN, or never move.
void refuse_nan(const Tensor& y, const char* what, const char* who) {
  if (any(isnan(y)))
    throw ValueError(
        fmt::format("{}: the {} {} must not be NaN. Hint: an AnomalyGuard around the "
                    "attack names the op that makes the first one",
                    who, what, y.shape().str()));
}

/// Losses [B] at x, and sign(∇ₓ loss).
struct Slope {
  Tensor losses, sign;
};

Slope slope(const SampleFunction& losses, const Tensor& x, const char* who) {
  const GradModeGuard recording(true);
  const Tensor at = x.detach().requires_grad_(), values = losses(at);
  detail::check_per_sample(values, at, who);
  detail::refuse_batch_statistics(values, at, who);
  Tensor g;
  if (values.requires_grad()) g = grad(sum(values), at, {}, {.allow_unused = true});
  const NoGradGuard no_grad;
  refuse_nan(values.detach(), "losses", who);
  if (g.defined()) refuse_nan(g, "gradient of the losses at the images", who);
  return {values.detach(), g.defined() ? sign(g) : zeros_like(x)};
}

}  // namespace

Tensor fgsm(const SampleFunction& losses, const Tensor& x, const AttackOptions& o) {
  check(o, x, "fgsm");
  const Tensor direction = slope(losses, x, "fgsm").sign;
  const NoGradGuard no_grad;
  return clamp(x.detach() + direction * o.epsilon, o.low, o.high);
}

Tensor pgd(const SampleFunction& losses, const Tensor& x, const AttackOptions& o, Rng& rng) {
  check(o, x, "pgd");
  if (o.steps < 1 || !(o.step_size >= 0 && std::isfinite(o.step_size)))
    throw ValueError(
        fmt::format("pgd: at least 1 step, of a finite size of at least 0; got {} and {}", o.steps,
                    o.step_size));
  const NoGradGuard no_grad;
  const Tensor from = x.detach();
  const double step = o.step_size > 0 ? o.step_size : 2.5 * o.epsilon / o.steps;
  const auto project = [&](const Tensor& y) {
    return clamp(maximum(minimum(y, from + o.epsilon), from - o.epsilon), o.low, o.high);
  };
  Tensor at = o.random_start
                  ? project(from + rng.uniform(x.shape(), -o.epsilon, o.epsilon, x.dtype()))
                  : from;
  Shape per_image = Dims::filled(x.dim(), 1);
  per_image[0] = x.size(0);
  Tensor best, best_losses;
  for (int k = 0; k <= o.steps; ++k) {
    const Slope s = slope(losses, at, "pgd");
    if (!best.defined()) {
      best = at;
      best_losses = s.losses;
    } else {
      const Tensor better = gt(s.losses, best_losses);
      best = where(reshape(better, per_image), at, best);
      best_losses = where(better, s.losses, best_losses);
    }
    if (k < o.steps) at = project(at + s.sign * step);
  }
  return best;
}

}  // namespace capsfw
