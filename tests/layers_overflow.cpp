// Numbers that leave the range of their type: who says so, and who need not.

#include <cmath>
#include <limits>
#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/heinsen_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Tensor votes(double size) { return (Rng(7).normal({2, 6, 3, 4}, 0, 1) * size).requires_grad_(); }

/// Poses in one op and in plain ops.
Tensor fused(const Tensor& v) {
  return em_routing(v, full({2, 6}, 0.5), zeros({3}), zeros({3}), lambda_schedule(3)).poses;
}
Tensor plain(const Tensor& v) {
  return em_routing_reference(v, full({2, 6}, 0.5), zeros({3}), zeros({3}), lambda_schedule(3))
      .poses;
}

bool finite(const Tensor& x) {
  for (const double v : values(x))
    if (!std::isfinite(v)) return false;
  return true;
}

}  // namespace

TEST_CASE("overflow: the gradient of a routing names routing, size and cause") {
  for (const auto& route : {fused, plain}) {
    const Tensor v = votes(1e15), y = route(v), g = Rng(9).normal(y.shape(), 0, 1);
    const std::string error = message_of<OverflowError>([&] { grad(y, v, g); });
    CHECK(contains(error, "em_routing: a gradient is not finite: the inputs are as large as "));
    CHECK(contains(error, "e+15, squares of f32 overflow above 1.8e+19"));
    CHECK(contains(error, "Hint: "));
  }
}

TEST_CASE("overflow: a cotangent that is not finite passes, as do inputs") {
  for (const auto& route : {fused, plain}) {
    for (const double bad : {kNan, HUGE_VAL}) {
      const Tensor v = votes(1e15), y = route(v);
      CHECK_FALSE(finite(grad(y, v, full(y.shape(), bad))));
    }
    Tensor v = votes(1e15).detach();
    v.mutable_data<float>()[3] = static_cast<float>(kNan);
    v.requires_grad_();
    const Tensor y = route(v);
    CHECK(!finite(y));
    CHECK_FALSE(finite(grad(y, v, ones(y.shape()))));
  }
}

TEST_CASE("overflow: the second derivative is watched where the first one is finite") {
  const Tensor v = votes(1e10), a = full({2, 6}, 0.5), beta = zeros({3});
  const Tensor y = heinsen_routing(v, a, beta, beta, {}).poses;
  const Tensor g = grad(y, v, ones(y.shape()), {.create_graph = true});
  CHECK(finite(g));
  const std::string error = message_of<OverflowError>([&] { grad(g, v, full(g.shape(), 1e30)); });
  CHECK(contains(error, "heinsen_routing: a gradient is not finite"));
}

TEST_CASE("overflow: ordinary votes have the graph that they had") {
  const Tensor v = votes(1.0), y = plain(v);
  CHECK_FALSE(contains(y.grad_fn()->name(), "watch"));
}
