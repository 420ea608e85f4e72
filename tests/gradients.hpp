#pragma once
// Are gradients right to second order? For all tests but those of gradcheck itself.

#include <doctest/doctest.h>

#include <capsfw/ops/gradcheck.hpp>

#include "support.hpp"

namespace capsfw::testing {

/// Every element and three directions; under a sanitizer, which is there for memory, one direction.
inline constexpr GradcheckOptions kGradcheck =
    kSanitized ? GradcheckOptions{.directions = 1, .components = 0} : GradcheckOptions{};

/// gradcheck and gradgradcheck.
inline void check_gradients(const Function& fn,
                            const TensorList& inputs,
                            const GradcheckOptions& options = kGradcheck) {
  const GradcheckResult first = gradcheck(fn, inputs, options),
                        second = gradgradcheck(fn, inputs, options);
  CHECK_MESSAGE(first.ok, first.message);
  CHECK_MESSAGE(second.ok, second.message);
}

}  // namespace capsfw::testing
