#include <capsfw/layers/basic.hpp>

#include <fmt/format.h>

#include <capsfw/ops/normalize.hpp>

namespace capsfw {
namespace {

std::int64_t checked_size(std::int64_t n, const char* who) {
  if (n < 1) throw ValueError(fmt::format("{}: the size must be at least 1; got {}", who, n));
  return n;
}

}  // namespace

Dropout::Dropout(double p, Rng& rng) : p_(p), rng_(rng.split()) {
  if (!(p >= 0 && p < 1)) throw ValueError(fmt::format("Dropout: p must lie in [0, 1); got {}", p));
  generator("rng", rng_);
}

Tensor Dropout::forward(const Tensor& x) { return dropout(x, p_, rng_, training()); }

BatchNorm2d::BatchNorm2d(std::int64_t channels, NormOptions options) : options_(options) {
  const Shape shape{checked_size(channels, "BatchNorm2d")};
  weight = param("weight", ones(shape));
  bias = param("bias", zeros(shape));
  mean_ = buffer("running_mean", zeros(shape));
  var_ = buffer("running_var", ones(shape));
}

Tensor BatchNorm2d::forward(const Tensor& x) {
  return batch_norm(x, weight, bias, mean_, var_, training(), options_.momentum, options_.eps,
                    options_.relu_first);
}

LayerNorm::LayerNorm(std::int64_t size, NormOptions options) : options_(options) {
  const Shape shape{checked_size(size, "LayerNorm")};
  weight = param("weight", ones(shape));
  bias = param("bias", zeros(shape));
}

Tensor LayerNorm::forward(const Tensor& x) { return layer_norm(x, 1, weight, bias, options_.eps); }

GroupNorm::GroupNorm(std::int64_t groups, std::int64_t channels, NormOptions options)
    : groups_(groups), options_(options) {
  if (groups < 1 || channels < 1 || channels % groups != 0)
    throw ValueError(fmt::format(
        "GroupNorm: sizes must be at least 1 and channels divisible by groups; got groups = {}, "
        "channels = {}",
        groups, channels));
  weight = param("weight", ones({channels}));
  bias = param("bias", zeros({channels}));
}

Tensor GroupNorm::forward(const Tensor& x) {
  return group_norm(x, groups_, weight, bias, options_.eps);
}

void Sequential::append(std::unique_ptr<Layer> layer) {
  child(std::to_string(layers_.size()), *layer);
  layers_.push_back(std::move(layer));
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& layer : layers_) y = (*layer)(y);
  return y;
}

}  // namespace capsfw
