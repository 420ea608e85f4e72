#pragma once
// Are gradients right to second order? For all tests but those of gradcheck itself.

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/gradcheck.hpp>

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

}  // namespace capsfw::testing
