#include <capsfw/layers/se.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

std::int64_t hidden_units(std::int64_t channels, const SEBlockOptions& o) {
  if (channels < 1 || o.reduction < 1 || o.hidden < 0)
    throw ValueError(
        fmt::format("SEBlock: sizes must be at least 1; got {} channels, reduction = {}, hidden = "
                    "{}",
                    channels, o.reduction, o.hidden));
  return o.hidden > 0 ? o.hidden : std::max<std::int64_t>(1, channels / o.reduction);
}

}  // namespace

Tensor se_gate(
    const Tensor& u, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2) {
  return sigmoid(linear(relu(linear(u, w1, b1)), w2, b2));
}

SEBlock::SEBlock(std::int64_t channels, Rng& rng, SEBlockOptions o)
    : fc1(channels, hidden_units(channels, o), rng, {.bias = o.bias}),
      fc2(hidden_units(channels, o), channels, rng, {.bias = o.bias}) {
  child("fc1", fc1);
  child("fc2", fc2);
}

Tensor SEBlock::gate(const Tensor& x) const {
  if (x.dim() != 4 || x.size(1) != fc1.weight.size(1) || x.size(2) < 1 || x.size(3) < 1)
    throw ShapeError(fmt::format("SEBlock '{}': x must be [B, {}, H, W] with H, W >= 1; got {}",
                                 name(), fc1.weight.size(1), x.shape().str()));
  return se_gate(mean(x, {2, 3}), fc1.weight, fc1.bias, fc2.weight, fc2.bias);
}

Tensor SEBlock::forward(const Tensor& x) {
  return x * reshape(gate(x), {x.size(0), x.size(1), 1, 1});
}

SEGate::SEGate(std::int64_t capsules, std::int64_t hidden, Rng& rng, SEGateOptions o)
    : fc1(capsules, hidden, rng, {.bias = o.bias}), fc2(hidden, 1, rng, {.bias = o.bias}) {
  child("fc1", fc1);
  child("fc2", fc2);
}

Tensor SEGate::forward(const Tensor& u) {
  if (u.dim() != 3 || u.size(1) != fc1.weight.size(1))
    throw ShapeError(fmt::format("SEGate '{}': capsules must be [B, {}, d]; got {}", name(),
                                 fc1.weight.size(1), u.shape().str()));
  return squeeze(se_gate(transpose(u, 1, 2), fc1.weight, fc1.bias, fc2.weight, fc2.bias), 2);
}

}  // namespace capsfw
