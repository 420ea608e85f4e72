#pragma once
// Learning rates as pure functions of the step: a run that continues needs the number of its step
// and nothing else.
//
//   const Schedule rate = warm_up(500, cosine_decay(1e-3, 20000));
//   for (std::int64_t step = first; step < 20000; ++step) {
//     apply(rate, step, optimizer);
//     ...
//
// A step is whatever the caller counts: updates or epochs. Any callable will do as a schedule.

#include <cstdint>
#include <functional>

#include <capsfw/optim/optimizer.hpp>

namespace capsfw {

/// Learning rate at step 0, 1, ... Those below throw ValueError for a negative step.
using Schedule = std::function<double(std::int64_t)>;

/// lr(t) = lr. ValueError unless lr is finite and >= 0; so for all schedules.
Schedule constant_rate(double lr);

/// lr(t) = lr · γ^⌊t / every⌋: PyTorch's StepLR. ValueError unless 0 < γ <= 1 and every >= 1.
Schedule step_decay(double lr, std::int64_t every, double gamma = 0.1);

/// lr(t) = lr · γ^(t / every): PyTorch's ExponentialLR for every = 1, without stairs in between.
/// ValueError unless 0 < γ <= 1 and every >= 1.
Schedule exponential_decay(double lr, double gamma, std::int64_t every = 1);

/// lr(t) = lr_min + (lr - lr_min) · (1 + cos(π t / steps)) / 2 up to t = steps, then lr_min:
/// PyTorch's CosineAnnealingLR over its first half period. ValueError unless steps >= 1 and
/// 0 <= lr_min <= lr.
/// Source: Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts",
/// eq. 5, one run without restarts.
Schedule cosine_decay(double lr, std::int64_t steps, double lr_min = 0);

/// lr(t) = min(1, (t + 1) / steps) · then(t): rises in equal parts to then(steps - 1) and is `then`
/// from there on, so that the length of `then` includes the warm-up. ValueError if steps < 0 or
/// `then` is empty.
/// Source: Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2 (gradual warm-up).
Schedule warm_up(std::int64_t steps, Schedule then);

/// optimizer.set_lr(rate(step)): for the update that comes next.
void apply(const Schedule& rate, std::int64_t step, Optimizer& optimizer);

}  // namespace capsfw
