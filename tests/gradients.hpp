#pragma once
// Are gradients right to second order? For all tests but those of gradcheck itself.

#include <cmath>
#include <functional>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/gradcheck.hpp>
#include <capsfw/ops/reduce.hpp>

#include "support.hpp"

namespace capsfw::testing {

/// Every element and three directions; under a sanitizer, which is there for memory, one direction.
inline constexpr GradcheckOptions kGradcheck =
    kSanitized ? GradcheckOptions{.directions = 1, .components = 0} : GradcheckOptions{};

/// Which inputs a function must depend on. One that it does not read passes every check: 0 is 0.
enum class Reads { all, some };

/// gradcheck and gradgradcheck.
inline void check_gradients(const Function& fn,
                            const TensorList& inputs,
                            const GradcheckOptions& options = kGradcheck,
                            Reads reads = Reads::all) {
  TensorList x, y, gy;
  for (const Tensor& t : inputs) x.push_back(t.detach().requires_grad_());
  for (const Tensor& t : fn(x))
    if (t.requires_grad()) y.push_back(t), gy.push_back(ones_like(t));
  REQUIRE_FALSE(y.empty());
  const TensorList reached = grad(y, x, gy, {.allow_unused = true});
  for (std::size_t i = 0; i < x.size(); ++i) {
    CAPTURE(i);
    CHECK_MESSAGE((reads == Reads::some || reached[i].defined()), "this input is not read");
  }
  const GradcheckResult first = gradcheck(fn, inputs, options),
                        second = gradgradcheck(fn, inputs, options);
  CHECK_MESSAGE(first.ok, first.message);
  CHECK_MESSAGE(second.ok, second.message);
}

/// Is the gradient of a number right by a tensor that lives in a module, which gradcheck cannot
/// exchange? By a difference along one random direction, f64. False, and nothing is compared, where
/// the number does not depend on p.
inline bool check_parameter(const std::function<Tensor()>& value, Tensor p, Rng& rng) {
  const Tensor g = grad(value(), p, {}, {.allow_unused = true});
  if (!g.defined()) return false;
  const Tensor start = empty_like(p).copy_(p), direction = rng.normal(p.shape(), 0, 1, p.dtype());
  const auto at = [&](double step) {
    p.copy_(start + step * direction);
    return value().item();
  };
  constexpr double kEps = 1e-5;
  const double slope = (at(kEps) - at(-kEps)) / (2 * kEps), analytic = sum(g * direction).item();
  p.copy_(start);
  CHECK(std::abs(analytic) > 1e-6);  // else nothing would be compared
  CHECK(std::abs(slope - analytic) < 1e-5 * std::abs(analytic) + 1e-10);
  return true;
}

}  // namespace capsfw::testing
