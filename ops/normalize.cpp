#include <capsfw/ops/normalize.hpp>

#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

void check_shape(const Tensor& t,
                 const Shape& want,
                 std::string_view op,
                 std::string_view name,
                 const Tensor& x) {
  if (t.defined() && t.shape() != want)
    throw ShapeError(fmt::format("{}: {} must be {} for x = {}; got {}", op, name, want.str(),
                                 x.shape().str(), t.shape().str()));
}

void check_eps(double eps, std::string_view op) {
  if (!(eps >= 0)) throw ValueError(fmt::format("{}: eps must not be negative; got {}", op, eps));
}

Tensor affine(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Shape& shape) {
  Tensor y = x;
  if (gamma.defined()) y = y * reshape(gamma, shape);
  if (beta.defined()) y = y + reshape(beta, shape);
  return y;
}

/// running ← (1 − momentum) running + momentum · scale · batch, in double.
void update_running(Tensor& running, const Tensor& batch, double momentum, double scale) {
  if (!running.defined()) return;
  std::vector<double> value = running.to_vector<double>();
  const std::vector<double> fresh = batch.to_vector<double>();
  for (std::size_t c = 0; c < value.size(); ++c)
    value[c] = (1 - momentum) * value[c] + momentum * scale * fresh[c];
  running.copy_(from_vector(value));
}

}  // namespace

Tensor batch_norm(const Tensor& x,
                  const Tensor& gamma,
                  const Tensor& beta,
                  Tensor running_mean,
                  Tensor running_var,
                  bool training,
                  double momentum,
                  double eps) {
  if (x.dim() < 2)
    throw ShapeError(fmt::format("batch_norm: takes [B, C, ...]; got {}", x.shape().str()));
  if (!is_floating(x.dtype())) throw_not_floating(x.dtype(), "batch_norm");
  check_eps(eps, "batch_norm");
  if (!(momentum >= 0 && momentum <= 1))
    throw ValueError(fmt::format("batch_norm: momentum must lie in [0, 1]; got {}", momentum));
  const Shape channels = {x.size(1)};
  check_shape(gamma, channels, "batch_norm", "gamma", x);
  check_shape(beta, channels, "batch_norm", "beta", x);
  check_shape(running_mean, channels, "batch_norm", "running_mean", x);
  check_shape(running_var, channels, "batch_norm", "running_var", x);
  Shape shape = Dims::filled(x.dim(), 1);  // of one number per channel
  shape[1] = x.size(1);
  if (!training) {
    if (!running_mean.defined() || !running_var.defined())
      throw ValueError(
          "batch_norm: evaluation needs running_mean and running_var; got an undefined tensor. "
          "Hint: training = true normalises by the batch");
    const Tensor m = to(running_mean.detach(), x.dtype()), v = to(running_var.detach(), x.dtype());
    return affine((x - reshape(m, shape)) * reshape(rsqrt(v + eps), shape), gamma, beta, shape);
  }
  Axes axes = {0};
  std::int64_t n = x.size(0);
  for (int i = 2; i < x.dim(); ++i) {
    axes.push_back(i);
    n *= x.size(i);
  }
  if (n < 2)
    throw ValueError(fmt::format(
        "batch_norm: training needs more than one value per channel; got x = {}. Hint: a larger "
        "batch, or training = false",
        x.shape().str()));
  const Tensor m = mean(x, axes, true), centred = x - m, v = mean(square(centred), axes, true);
  const auto count = static_cast<double>(n);
  update_running(running_mean, m, momentum, 1.0);
  update_running(running_var, v, momentum, count / (count - 1));
  const Tensor y = affine(centred * rsqrt(v + eps), gamma, beta, shape);
  // A mark in the graph: whoever differentiates by samples sees that they depend on each other.
  return record("batch_statistics", {y}, y.detach(), Save::none,
                [](const Saved&, const Tensor& gy) { return gy; });
}

Tensor layer_norm(const Tensor& x, int axes, const Tensor& gamma, const Tensor& beta, double eps) {
  if (axes < 1 || axes > x.dim())
    throw ShapeError(
        fmt::format("layer_norm: normalises between 1 and rank axes; got axes = {}, x = {}", axes,
                    x.shape().str()));
  if (!is_floating(x.dtype())) throw_not_floating(x.dtype(), "layer_norm");
  check_eps(eps, "layer_norm");
  Shape last;
  Axes over;
  for (int i = x.dim() - axes; i < x.dim(); ++i) {
    last.push_back(x.shape()[i]);
    over.push_back(i);
  }
  check_shape(gamma, last, "layer_norm", "gamma", x);
  check_shape(beta, last, "layer_norm", "beta", x);
  const Tensor centred = x - mean(x, over, true);
  const Tensor v = mean(square(centred), over, true);
  return affine(centred * rsqrt(v + eps), gamma, beta, last);
}

Tensor dropout(const Tensor& x, double p, Rng& rng, bool training) {
  if (!(p >= 0 && p <= 1))
    throw ValueError(fmt::format("dropout: p must lie in [0, 1]; got {}", p));
  if (!is_floating(x.dtype())) throw_not_floating(x.dtype(), "dropout");
  if (!training || p == 0) return x;
  const Tensor keep = rng.bernoulli(x.shape(), 1 - p);
  return where(keep, p < 1 ? x * (1 / (1 - p)) : x, 0.0);
}

}  // namespace capsfw
