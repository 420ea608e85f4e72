#include <cmath>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "../core/simd.hpp"
#include "detail/normalize.hpp"

namespace capsfw {
namespace {

/// x [samples, channels, size] in memory. A channel is normalised while it is in the cache; the
/// plain ops walk through the whole tensor once for each of them.
struct Layout {
  explicit Layout(const Tensor& x)
      : samples(x.size(0)), channels(x.size(1)), size(x.numel() / (samples * channels)) {}
  std::int64_t count() const { return samples * size; }
  std::int64_t samples, channels, size;
};

/// Σ f(i) over [begin, end): in several lanes, then in double.
template <class T, class F>
inline double lane_sum(std::int64_t begin, std::int64_t end, const F& f) {
  constexpr std::int64_t kLanes = 16;
  T lanes[kLanes] = {};
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes)
    for (std::int64_t l = 0; l < kLanes; ++l) lanes[l] += f(i + l);
  double total = 0;
  for (; i < end; ++i) total += static_cast<double>(f(i));
  for (const T l : lanes) total += static_cast<double>(l);
  return total;
}

/// Σ f(i) over [0, n): long sums in pieces, so that they keep their digits.
template <class T, class F>
inline double lane_sum(std::int64_t n, const F& f) {
  constexpr std::int64_t kPiece = 1024;
  double total = 0;
  for (std::int64_t i = 0; i < n; i += kPiece)
    total += lane_sum<T>(i, i + kPiece < n ? i + kPiece : n, f);
  return total;
}

/// What is normalised.
template <bool kRelu, class T>
inline T rectified(T v) {
  return kRelu && v < T(0) ? T(0) : v;
}

/// Mean and biased variance of a channel that begins at x.
template <bool kRelu, class T>
inline void moments(const T* x, const Layout& n, double& mean, double& var) {
  const std::int64_t step = n.channels * n.size;
  double sum = 0, squares = 0;
  for (std::int64_t b = 0; b < n.samples; ++b) {
    const T* p = x + b * step;
    sum += lane_sum<T>(n.size, [=](std::int64_t i) { return rectified<kRelu>(p[i]); });
  }
  mean = sum / static_cast<double>(n.count());
  const T m = static_cast<T>(mean);
  for (std::int64_t b = 0; b < n.samples; ++b) {
    const T* p = x + b * step;
    squares += lane_sum<T>(n.size, [=](std::int64_t i) {
      const T v = rectified<kRelu>(p[i]) - m;
      return v * v;
    });
  }
  var = squares / static_cast<double>(n.count());
}

/// Calls body(first channel, last channel) in parallel.
template <class Body>
void each_channel(const Layout& n, const Body& body) {
  parallel_for(n.channels, std::max<std::int64_t>(n.count() / 4, 1),
               [&](std::int64_t begin, std::int64_t end) { body(begin, end); });
}

/// y = (x − m) / √(v + eps) · gamma + beta; where `fit`, m and v are those of x and are set.
template <bool kRelu, class T>
void forward(const T* x,
             const T* gamma,
             const T* beta,
             const Layout& n,
             double eps,
             bool fit,
             T* y,
             double* means,
             double* vars) {
  each_channel(n, [=, &n](std::int64_t begin, std::int64_t end) {
    detail::simd([=] {
      for (std::int64_t c = begin; c < end; ++c) {
        if (fit) moments<kRelu>(x + c * n.size, n, means[c], vars[c]);
        const T m = static_cast<T>(means[c]), shift = beta[c],
                scale = static_cast<T>(1 / std::sqrt(vars[c] + eps)) * gamma[c];
        for (std::int64_t b = 0; b < n.samples; ++b) {
          const std::int64_t at = (b * n.channels + c) * n.size;
          const T* __restrict p = x + at;
          T* __restrict q = y + at;
          for (std::int64_t i = 0; i < n.size; ++i)
            q[i] = (rectified<kRelu>(p[i]) - m) * scale + shift;
        }
      }
    });
  });
}

/// With x̂ = (x − m) / √(v + eps): gbeta = Σ gy, ggamma = Σ gy x̂, and
/// gx = gamma / √(v + eps) · (gy − gbeta / n − x̂ ggamma / n).   gx may be null.
template <bool kRelu, class T>
void backward(const T* x,
              const T* gy,
              const T* gamma,
              const Layout& n,
              const double* means,
              const double* vars,
              double eps,
              T* gx,
              T* ggamma,
              T* gbeta) {
  each_channel(n, [=, &n](std::int64_t begin, std::int64_t end) {
    detail::simd([=] {
      const std::int64_t step = n.channels * n.size;
      for (std::int64_t c = begin; c < end; ++c) {
        double sum = 0, along = 0;
        const double slope = 1 / std::sqrt(vars[c] + eps), count = static_cast<double>(n.count());
        const T m = static_cast<T>(means[c]);
        for (std::int64_t b = 0; b < n.samples; ++b) {
          const T *p = x + c * n.size + b * step, *g = gy + c * n.size + b * step;
          sum += lane_sum<T>(n.size, [=](std::int64_t i) { return g[i]; });
          along += lane_sum<T>(n.size,
                               [=](std::int64_t i) { return g[i] * (rectified<kRelu>(p[i]) - m); });
        }
        along *= slope;
        if (ggamma) ggamma[c] = static_cast<T>(along);
        if (gbeta) gbeta[c] = static_cast<T>(sum);
        if (!gx) continue;
        const T outer = static_cast<T>(slope) * gamma[c], offset = static_cast<T>(sum / count),
                inner = static_cast<T>(along * slope / count);
        for (std::int64_t b = 0; b < n.samples; ++b) {
          const std::int64_t at = c * n.size + b * step;
          const T* __restrict p = x + at;
          const T* __restrict g = gy + at;
          T* __restrict q = gx + at;
          for (std::int64_t i = 0; i < n.size; ++i)
            q[i] = kRelu && !(p[i] > T(0)) ? T(0) : (g[i] - offset - (p[i] - m) * inner) * outer;
        }
      }
    });
  });
}

/// [1, C, 1, ...], the shape of one number per channel of x.
Shape channel_shape(const Tensor& x) {
  Shape shape = Dims::filled(x.dim(), 1);
  shape[1] = x.size(1);
  return shape;
}

Tensor reference(
    const Tensor& given, const Tensor& gamma, const Tensor& beta, double eps, bool first) {
  const Tensor x = first ? relu(given) : given;
  Axes axes = {0};
  for (int i = 2; i < x.dim(); ++i) axes.push_back(i);
  const Tensor centred = x - mean(x, axes, true), v = mean(square(centred), axes, true);
  return detail::scale_and_shift(centred * rsqrt(v + eps), gamma, beta, channel_shape(x));
}

TensorList batch_norm_vjp(const Saved& s, const Tensor& gy0, double eps, bool relu_first) {
  const Tensor x = contiguous_data(s.input(0).detach()), gy = contiguous_data(gy0.detach()),
               gamma = contiguous_data(s.input(1).detach());
  const double* moments = s.input(3).data<double>();
  TensorList out(4);
  for (int i = 0; i < 3; ++i)
    if (s.needs(i)) out[static_cast<std::size_t>(i)] = empty(s.shape(i), x.dtype(), "batch_norm");
  if (x.numel() == 0) return out;
  const Layout n(x);
  visit_float(x, "batch_norm", [&]<class T>() {
    const auto data = [](Tensor& t) { return t.defined() ? t.mutable_data<T>() : nullptr; };
    const auto run = [&]<bool kRelu>() {
      backward<kRelu>(x.data<T>(), gy.data<T>(), gamma.data<T>(), n, moments, moments + n.channels,
                      eps, data(out[0]), data(out[1]), data(out[2]));
    };
    relu_first ? run.template operator()<true>() : run.template operator()<false>();
  });
  return out;
}

/// running ← (1 − momentum) running + momentum · scale · batch, in double.
void update_running(Tensor& running,
                    const std::vector<double>& batch,
                    double momentum,
                    double scale) {
  if (!running.defined()) return;
  std::vector<double> value = running.to_vector<double>();
  for (std::size_t c = 0; c < value.size(); ++c)
    if (std::isfinite(batch[c]))  // NaN would stay for good, also where the step is left out
      value[c] = (1 - momentum) * value[c] + momentum * scale * batch[c];
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
                  double eps,
                  bool relu_first) {
  if (!training && relu_first && is_grad_enabled())
    return batch_norm(relu(x), gamma, beta, running_mean, running_var, false, momentum, eps);
  if (x.dim() < 2)
    throw ShapeError(fmt::format("batch_norm: takes [B, C, ...]; got {}", x.shape().str()));
  check_floating(x, "batch_norm");
  detail::check_eps(eps, "batch_norm");
  if (!(momentum >= 0 && momentum <= 1))
    throw ValueError(fmt::format("batch_norm: momentum must lie in [0, 1]; got {}", momentum));
  const Shape channels = {x.size(1)};
  detail::check_scale(gamma, channels, "batch_norm", "gamma", x);
  detail::check_scale(beta, channels, "batch_norm", "beta", x);
  detail::check_shape(running_mean, channels, "batch_norm", "running_mean", x);
  detail::check_shape(running_var, channels, "batch_norm", "running_var", x);
  if (!training && (!running_mean.defined() || !running_var.defined()))
    throw ValueError(
        "batch_norm: evaluation needs running_mean and running_var; got an undefined tensor. "
        "Hint: training = true normalises by the batch");
  std::int64_t per_channel = x.size(0);
  for (int i = 2; i < x.dim(); ++i) per_channel *= x.size(i);
  if (training && per_channel < 2)
    throw ValueError(fmt::format(
        "batch_norm: training needs more than one value per channel; got x = {}. Hint: a larger "
        "batch, or training = false",
        x.shape().str()));
  const Tensor weight = gamma.defined() ? gamma : ones(channels, x.dtype()),
               bias = beta.defined() ? beta : zeros(channels, x.dtype());
  std::vector<double> means(static_cast<std::size_t>(x.size(1))), vars(means.size());
  if (!training) {
    means = running_mean.to_vector<double>();
    vars = running_var.to_vector<double>();
  }
  Tensor y = empty(x.shape(), x.dtype(), "batch_norm");
  if (x.numel() > 0) {
    const Tensor data = contiguous_data(x.detach()), g = contiguous_data(weight.detach()),
                 b = contiguous_data(bias.detach());
    visit_float(x, "batch_norm", [&]<class T>() {
      const auto run = [&]<bool kRelu>() {
        forward<kRelu>(data.data<T>(), g.data<T>(), b.data<T>(), Layout(data), eps, training,
                       y.mutable_data<T>(), means.data(), vars.data());
      };
      relu_first ? run.template operator()<true>() : run.template operator()<false>();
    });
  }
  if (!training) {
    // Copies: later steps in training mode change the running statistics.
    const Tensor m = to(from_vector(means), x.dtype()),
                 slope = to(rsqrt(from_vector(vars) + eps), x.dtype());
    return record("batch_norm_running", {x, weight, bias, m, slope}, y, Save::inputs,
                  [](const Saved& s, const Tensor& gy) {
                    const Tensor at = s.input(0), w = s.input(1), mean = s.input(3),
                                 rate = s.input(4);
                    const Shape each = channel_shape(at);
                    const auto by_channel = [&](const Tensor& t) {
                      return reshape(sum_to(t, each), {at.size(1)});
                    };
                    TensorList out(5);
                    if (s.needs(0)) out[0] = gy * reshape(w * rate, each);
                    if (s.needs(1)) out[1] = by_channel(gy * (at - reshape(mean, each))) * rate;
                    if (s.needs(2)) out[2] = by_channel(gy);
                    return out;
                  });
  }
  const auto count = static_cast<double>(per_channel);
  update_running(running_mean, means, momentum, 1.0);
  update_running(running_var, vars, momentum, count / (count - 1));
  // The name is a mark in the graph: whoever differentiates by samples sees that they depend on
  // each other (layers/detail/batch_statistics.hpp). The moments save the kernel two passes.
  means.insert(means.end(), vars.begin(), vars.end());
  return record_fused(
      "batch_norm", {x, weight, bias, from_vector(means)}, {y}, Save::inputs,
      [eps, relu_first](const Saved& s, const TensorList& gy) {
        return batch_norm_vjp(s, gy[0], eps, relu_first);
      },
      [eps, relu_first](const TensorList& in) {
        return TensorList{reference(in[0], in[1], in[2], eps, relu_first)};
      })[0];
}

}  // namespace capsfw
