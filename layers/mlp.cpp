#include <capsfw/layers/mlp.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {

std::function<Tensor(const Tensor&)> activation(std::string_view name) {
  if (name == "tanh") return [](const Tensor& x) { return tanh(x); };
  if (name == "sigmoid") return [](const Tensor& x) { return sigmoid(x); };
  if (name == "softplus") return [](const Tensor& x) { return softplus(x); };
  if (name == "relu") return [](const Tensor& x) { return relu(x); };
  if (name == "identity") return [](const Tensor& x) { return x; };
  throw ValueError(
      fmt::format("activation: one of tanh, sigmoid, softplus, relu, identity; got '{}'", name));
}

Mlp::Mlp(const std::vector<std::int64_t>& sizes, Rng& rng, const MlpOptions& o) {
  if (sizes.size() < 2)
    throw ValueError(fmt::format("Mlp: at least two sizes, in and out; got {}", sizes.size()));
  for (std::size_t t = 1; t < sizes.size(); ++t) {
    const std::int64_t in = sizes[t - 1], out = sizes[t];
    if (in < 1 || out < 1)
      throw ValueError(fmt::format("Mlp: sizes must be at least 1; got {} and {}", in, out));
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    MlpLayer layer;
    layer.weight = param(fmt::format("weight{}", t), init::uniform({out, in}, bound, rng));
    if (o.bias) layer.bias = param(fmt::format("bias{}", t), init::uniform({out}, bound, rng));
    layer.activation = activation(t + 1 == sizes.size() ? o.last : o.activation);
    layers_.push_back(std::move(layer));
  }
}

Tensor Mlp::forward(const Tensor& x) {
  Tensor h = x.dim() > 2 ? flatten(x, 1) : x;
  for (const MlpLayer& layer : layers_) h = layer.activation(linear(h, layer.weight, layer.bias));
  return h;
}

}  // namespace capsfw
