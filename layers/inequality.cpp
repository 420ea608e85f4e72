#include <capsfw/layers/inequality.hpp>

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/spectral.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/batch_statistics.hpp"

namespace capsfw {
namespace {

Tensor norm_of(const Tensor& w, SpectralMethod method) {
  return method == SpectralMethod::exact ? spectral_norm(w) : power_iteration(w).sigma;
}

/// ‖∇ₓh_t‖² of every sample, layer after layer. Of J = ∇ₓh [B, n_t, n] or, where inputs are many,
/// of J Jᵀ [B, n_t, n_t], whose norm is the square.
class Jacobian {
 public:
  Jacobian(const std::vector<MlpLayer>& layers, const Tensor& x) : x_(x) {
    for (const MlpLayer& layer : layers) gram_ = gram_ && layer.weight.size(0) < x.size(1);
  }
  Tensor square_norm(SpectralMethod method) const {
    if (!now_.defined()) return ones({x_.size(0)}, x_.dtype());  // the identity
    return gram_ ? norm_of(now_, method) : square(norm_of(now_, method));
  }
  /// From h_t to h_{t+1}: J ← diag(slope) W J.
  void pass(const Tensor& weight, const Tensor& slope) {
    const Tensor d = unsqueeze(slope, -1);
    if (!gram_) {
      now_ = d * (now_.defined() ? matmul(weight, now_) : weight);
    } else {
      const Tensor left = now_.defined() ? matmul(weight, now_) : weight;
      now_ = d * matmul(left, transpose(weight)) * unsqueeze(slope, -2);
    }
  }

 private:
  Tensor x_, now_;
  bool gram_ = true;
};

Tensor row_squares(const Tensor& x) { return sum(square(x), {1}); }

/// g(z).
Tensor activated(const MlpLayer& layer, const Tensor& z) {
  return layer.activation ? layer.activation(z) : z;
}

/// g'(z) of an elementwise g.
Tensor slope(const MlpLayer& layer, const Tensor& z) {
  const GradModeGuard recording(true);
  const Tensor at = z.detach().requires_grad_();
  const Tensor y = activated(layer, at);
  return y.requires_grad() ? grad(sum(y), at) : zeros_like(z);
}

/// gradients, with zeros where nothing depends on an input.
TensorList filled_gradients(const Tensor& y, const TensorList& x) {
  TensorList g(x.size());
  if (y.requires_grad()) g = grad({sum(y)}, x, {}, {.allow_unused = true});
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!g[i].defined()) g[i] = zeros_like(x[i]);
  return g;
}

void update(Tightness& worst,
            const Tensor& lhs,
            const Tensor& rhs,
            const char* which,
            std::int64_t layers) {
  const auto a = lhs.to_vector<double>(), b = rhs.to_vector<double>();
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double ratio = a[i] == 0 && b[i] >= 0 ? 0 : a[i] / b[i];
    if (ratio <= worst.ratio || std::isnan(worst.ratio)) continue;
    const auto at = static_cast<std::int64_t>(i);
    worst.ratio = ratio;
    worst.where =
        layers == 0 ? fmt::format("{}, sample {}", which, at)
                    : fmt::format("{} of layer {}, sample {}", which, at % layers + 1, at / layers);
  }
}

}  // namespace

InequalityTerms inequality_terms(const std::vector<MlpLayer>& layers,
                                 const Tensor& x,
                                 const SampleFunction& f,
                                 SpectralMethod method) {
  if (layers.empty()) throw ValueError("inequality_terms: at least one layer");
  if (x.dim() != 2)
    throw ShapeError(fmt::format("inequality_terms: x must be [B, n]; got {}", x.shape().str()));
  const std::int64_t batch = x.size(0);
  TensorList h, z;
  TensorList deltas;
  {
    const GradModeGuard recording(true);
    h.push_back(x.detach().requires_grad_());
    for (const MlpLayer& layer : layers) {
      z.push_back(linear(h.back(), layer.weight, layer.bias));
      h.push_back(activated(layer, z.back()));
    }
    const Tensor values = f(h.back());
    detail::check_per_sample(values, x, "inequality_terms");
    TensorList targets = z;
    targets.push_back(h[0]);
    deltas = filled_gradients(values, targets);
  }
  const NoGradGuard no_grad;
  InequalityTerms out;
  out.gx2 = row_squares(deltas.back());
  TensorList h2, w2, j2, lhs_w, rhs_w, lhs_b, rhs_b;
  Jacobian jacobian(layers, x);
  for (std::size_t t = 0; t < layers.size(); ++t) {
    const Tensor weight = layers[t].weight.detach();
    h2.push_back(row_squares(h[t].detach()));
    w2.push_back(broadcast_to(square(norm_of(weight, method)), {batch}));
    j2.push_back(jacobian.square_norm(method));
    const Tensor gain = w2.back() * j2.back(), dead = eq(gain, 0.0);
    const Tensor left = where(dead, 0.0, out.gx2 / where(dead, 1.0, gain));
    const Tensor right = row_squares(deltas[t]);
    const bool bias = layers[t].bias.defined();
    lhs_w.push_back(left * h2.back());
    rhs_w.push_back(right * h2.back());
    lhs_b.push_back(bias ? left : zeros_like(left));
    rhs_b.push_back(bias ? right : zeros_like(right));
    if (t + 1 < layers.size()) jacobian.pass(weight, slope(layers[t], z[t]));
  }
  out.h2 = stack(h2, 1);
  out.w2 = stack(w2, 1);
  out.j2 = stack(j2, 1);
  out.lhs_w = stack(lhs_w, 1);
  out.rhs_w = stack(rhs_w, 1);
  out.lhs_b = stack(lhs_b, 1);
  out.rhs_b = stack(rhs_b, 1);
  out.lhs = sum(out.lhs_w + out.lhs_b, {1});
  out.rhs = sum(out.rhs_w + out.rhs_b, {1});
  return out;
}

Tightness tightness(const InequalityTerms& terms) {
  Tightness worst;
  const std::int64_t layers = terms.lhs_w.size(1);
  update(worst, terms.lhs_w, terms.rhs_w, "(w)", layers);
  update(worst, terms.lhs_b, terms.rhs_b, "(b)", layers);
  update(worst, terms.lhs, terms.rhs, "(f)", 0);
  return worst;
}

}  // namespace capsfw
