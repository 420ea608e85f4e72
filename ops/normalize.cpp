#include <capsfw/ops/normalize.hpp>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/normalize.hpp"

namespace capsfw {
namespace detail {

void check_shape(const Tensor& t,
                 const Shape& want,
                 std::string_view op,
                 std::string_view name,
                 const Tensor& x) {
  if (t.defined() && t.shape() != want)
    throw ShapeError(fmt::format("{}: {} must be {} for x = {}; got {}", op, name, want.str(),
                                 x.shape().str(), t.shape().str()));
}

void check_scale(const Tensor& t,
                 const Shape& want,
                 std::string_view op,
                 std::string_view name,
                 const Tensor& x) {
  check_shape(t, want, op, name, x);
  if (t.defined() && t.dtype() != x.dtype())
    throw DTypeError(fmt::format("{}: {} must be of the type of x; got x = {} {}, {} = {} {}", op,
                                 name, name_of(x.dtype()), x.shape().str(), name,
                                 name_of(t.dtype()), t.shape().str()));
}

void check_eps(double eps, std::string_view op) {
  if (!(eps >= 0)) throw ValueError(fmt::format("{}: eps must not be negative; got {}", op, eps));
}

Tensor scale_and_shift(const Tensor& x,
                       const Tensor& gamma,
                       const Tensor& beta,
                       const Shape& shape) {
  Tensor y = x;
  if (gamma.defined()) y = y * reshape(gamma, shape);
  if (beta.defined()) y = y + reshape(beta, shape);
  return y;
}

}  // namespace detail

namespace {

/// Cubes of the deviations from a mean overflow f32 soon after it, then the squares.
constexpr double kLargeVariance = 1e18;

/// centred / √(v + eps), where v is large by way of centred / max |centred|.
Tensor unit_variance(const Tensor& centred, const Tensor& v, const Axes& over, double eps) {
  const Tensor most = max(abs(centred.detach()), over, true);
  const Tensor large = logical_and(gt(v.detach(), kLargeVariance), isfinite(most));
  const Tensor unit = where(large, most, 1.0), scaled = centred / unit;
  return scaled * rsqrt(mean(square(scaled), over, true) + eps / square(unit));
}

}  // namespace

Tensor layer_norm(const Tensor& x, int axes, const Tensor& gamma, const Tensor& beta, double eps) {
  if (axes < 1 || axes > x.dim())
    throw ShapeError(
        fmt::format("layer_norm: normalises between 1 and rank axes; got axes = {}, x = {}", axes,
                    x.shape().str()));
  check_floating(x, "layer_norm");
  detail::check_eps(eps, "layer_norm");
  Shape last;
  Axes over;
  for (int i = x.dim() - axes; i < x.dim(); ++i) {
    last.push_back(x.shape()[i]);
    over.push_back(i);
  }
  detail::check_scale(gamma, last, "layer_norm", "gamma", x);
  detail::check_scale(beta, last, "layer_norm", "beta", x);
  const Tensor centred = x - mean(x, over, true);
  const Tensor v = mean(square(centred), over, true);
  const Tensor y = any(gt(v.detach(), kLargeVariance)) ? unit_variance(centred, v, over, eps)
                                                       : centred * rsqrt(v + eps);
  return detail::scale_and_shift(y, gamma, beta, last);
}

Tensor group_norm(
    const Tensor& x, std::int64_t groups, const Tensor& gamma, const Tensor& beta, double eps) {
  if (groups < 1)
    throw ValueError(fmt::format("group_norm: groups must be at least 1; got {}", groups));
  if (x.dim() < 2 || x.size(1) % groups != 0)
    throw ShapeError(fmt::format(
        "group_norm: takes x [B, C, ...] with C divisible by groups; got x = {}, groups = {}",
        x.shape().str(), groups));
  check_floating(x, "group_norm");
  detail::check_eps(eps, "group_norm");
  const Shape channels = {x.size(1)};
  detail::check_scale(gamma, channels, "group_norm", "gamma", x);
  detail::check_scale(beta, channels, "group_norm", "beta", x);
  Shape per_channel = Dims::filled(x.dim(), 1);
  per_channel[1] = x.size(1);
  Tensor y = x;
  if (x.numel() > 0) {  // else no group has a mean
    const Tensor grouped = reshape(x, {x.size(0), groups, x.numel() / (x.size(0) * groups)});
    y = reshape(layer_norm(grouped, 1, {}, {}, eps), x.shape());
  }
  return detail::scale_and_shift(y, gamma, beta, per_channel);
}

Tensor dropout(const Tensor& x, double p, Rng& rng, bool training) {
  if (!(p >= 0 && p <= 1))
    throw ValueError(fmt::format("dropout: p must lie in [0, 1]; got {}", p));
  check_floating(x, "dropout");
  if (!training || p == 0) return x;
  const Tensor keep = rng.bernoulli(x.shape(), 1 - p);
  return where(keep, p < 1 ? x * (1 / (1 - p)) : x, 0.0);
}

}  // namespace capsfw
