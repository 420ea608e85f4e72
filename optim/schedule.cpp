#include <capsfw/optim/schedule.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw {
namespace {

template <class V>
void require(bool ok, std::string_view rule, V value) {
  if (!ok) throw ValueError(fmt::format("{}; got {}", rule, value));
}

/// `rate` as a function of the step in floating point, behind the check of the step.
template <class F>
Schedule of(F rate) {
  return [rate](std::int64_t t) -> double {
    require(t >= 0, "schedule: the step must be at least 0", t);
    return rate(static_cast<double>(t));
  };
}

void require_rate(double lr, const char* who) {
  require(std::isfinite(lr) && lr >= 0, fmt::format("{}: lr must be finite and >= 0", who), lr);
}

void require_decay(double gamma, std::int64_t every, const char* who) {
  require(gamma > 0 && gamma <= 1, fmt::format("{}: gamma must lie in (0, 1]", who), gamma);
  require(every >= 1, fmt::format("{}: every must be at least 1", who), every);
}

}  // namespace

Schedule constant_rate(double lr) {
  require_rate(lr, "constant_rate");
  return of([lr](double) { return lr; });
}

Schedule step_decay(double lr, std::int64_t every, double gamma) {
  require_rate(lr, "step_decay");
  require_decay(gamma, every, "step_decay");
  const double period = static_cast<double>(every);
  return of([=](double t) { return lr * std::pow(gamma, std::floor(t / period)); });
}

Schedule exponential_decay(double lr, double gamma, std::int64_t every) {
  require_rate(lr, "exponential_decay");
  require_decay(gamma, every, "exponential_decay");
  const double period = static_cast<double>(every);
  return of([=](double t) { return lr * std::pow(gamma, t / period); });
}

Schedule cosine_decay(double lr, std::int64_t steps, double lr_min) {
  require_rate(lr, "cosine_decay");
  require(steps >= 1, "cosine_decay: steps must be at least 1", steps);
  require(lr_min >= 0 && lr_min <= lr, "cosine_decay: lr_min must lie in [0, lr]", lr_min);
  const double end = static_cast<double>(steps);
  return of([=](double t) {
    const double phase = std::min(t / end, 1.0);
    return lr_min + (lr - lr_min) * (1 + std::cos(std::numbers::pi * phase)) / 2;
  });
}

Schedule warm_up(std::int64_t steps, Schedule then) {
  require(steps >= 0, "warm_up: steps must be at least 0", steps);
  if (!then) throw ValueError("warm_up: needs a schedule to warm up to; got an empty one");
  return [steps, then = std::move(then)](std::int64_t t) {
    const double rate = then(t);
    const double share = t < steps ? static_cast<double>(t + 1) / static_cast<double>(steps) : 1;
    return share * rate;
  };
}

void apply(const Schedule& rate, std::int64_t step, Optimizer& optimizer) {
  optimizer.set_lr(rate(step));
}

}  // namespace capsfw
