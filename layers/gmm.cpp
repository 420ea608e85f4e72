#include <capsfw/layers/gmm.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include <fmt/format.h>

#include <capsfw/layers/cluster.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/linalg.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/overflow.hpp"

namespace capsfw {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"full", "diag", "spherical", "fixed"};

/// D ln 2π.
double log_volume(const Tensor& x) {
  return static_cast<double>(x.size(-1)) * std::log(2 * std::numbers::pi);
}

void check_means(const Tensor& x, const Tensor& means, const char* who) {
  const bool ranks = (x.dim() == 3 || x.dim() == 2) && means.dim() == x.dim();
  if (!ranks || means.size(-1) != x.size(-1) || (x.dim() == 3 && means.size(0) != x.size(0)))
    throw ShapeError(
        fmt::format("{}: data must be [B, N, D] and means [B, k, D], or [N, D] and [k, D]; got {} "
                    "and {}",
                    who, x.shape().str(), means.shape().str()));
  if (x.size(-2) < 1 || x.size(-1) < 1 || means.size(-2) < 1)
    throw ValueError(fmt::format(
        "{}: at least one point, one dimension and one component; got data {}, means {}", who,
        x.shape().str(), means.shape().str()));
}

/// Shape of the covariance for means [B, k, D].
Shape covariance_shape(const Shape& means, Covariance kind) {
  if (kind == Covariance::fixed) return {};
  Shape shape = means;
  if (kind == Covariance::full) shape.push_back(means.back());
  if (kind == Covariance::spherical) shape.erase(shape.rank() - 1);
  return shape;
}

void check_covariance(const Tensor& means,
                      const Tensor& covariance,
                      Covariance kind,
                      const char* who) {
  const Shape expected = covariance_shape(means.shape(), kind);
  if (!covariance.defined() || covariance.shape() != expected)
    throw ShapeError(fmt::format("{}: the {} covariance of means {} must be {}; got {}", who,
                                 kNames[static_cast<std::size_t>(kind)], means.shape().str(),
                                 expected.str(),
                                 covariance.defined() ? covariance.shape().str() : "none"));
}

void check(const Tensor& x, const GaussianMixture& start, const GmmOptions& o, const char* who) {
  check_means(x, start.means, who);
  check_covariance(start.means, start.covariance, o.covariance, who);
  const Shape weights = covariance_shape(start.means.shape(), Covariance::spherical);
  if (!start.weights.defined() || start.weights.shape() != weights)
    throw ShapeError(fmt::format("{}: the weights of means {} must be {}; got {}", who,
                                 start.means.shape().str(), weights.str(),
                                 start.weights.defined() ? start.weights.shape().str() : "none"));
  if (!(o.eps >= 0) || !std::isfinite(o.eps))
    throw ValueError(fmt::format("{}: eps must be at least 0 and finite; got {}", who, o.eps));
  const auto positive = [&](const Tensor& t, const char* what) {
    if (!all(gt(t.detach(), 0.0)))
      throw ValueError(fmt::format("{}: the first {} must be positive", who, what));
  };
  positive(start.weights, "weights");
  if (o.covariance != Covariance::full) positive(start.covariance, "variances");
}

/// Parameters as EM sees them: weights that are small stay distinct in log space.
struct Parameters {
  Tensor means, covariance, log_weights;
};

Tensor log_prob(const Tensor& x, const Parameters& p, Covariance kind) {
  switch (kind) {
    case Covariance::full:
      return gaussian_log_prob_full(x, p.means, p.covariance);
    case Covariance::diag:
      return gaussian_log_prob_diag(x, p.means, p.covariance);
    default: {
      const Tensor v = kind == Covariance::fixed ? p.covariance : unsqueeze(p.covariance, -1);
      return gaussian_log_prob_diag(x, p.means, broadcast_to(v, p.means.shape()));
    }
  }
}

/// ln R_ij and ln Σ_j π_j N_ij.
struct EStep {
  Tensor log_responsibilities, log_evidence;  // [B, N, k], [B, N, 1]

  EStep(const Tensor& x, const Parameters& p, Covariance kind) {
    const Tensor joint = unsqueeze(p.log_weights, -2) + log_prob(x, p, kind);
    // ln R of the likeliest is far smaller than the joint: with the largest at 0 its digits survive
    const Tensor top = max(joint.detach(), {-1}, true), shifted = joint - top;
    const Tensor rest = logsumexp(shifted, {-1}, true);
    log_responsibilities = shifted - rest;
    log_evidence = top + rest;
  }
  Tensor log_likelihood() const { return sum(log_evidence, {-2, -1}); }
};

/// Σ_i w_ij (x_i − μ_j)(x_i − μ_j)ᵀ + eps, in the form of the kind.
Tensor covariance_of(const Tensor& x, const Tensor& means, const Tensor& w, const GmmOptions& o) {
  const Tensor difference = unsqueeze(x, -3) - unsqueeze(means, -2);  // [B, k, N, D]
  const Tensor weight = unsqueeze(transpose(w), -1);                  // [B, k, N, 1]
  if (o.covariance == Covariance::full)
    return matmul(transpose(difference * weight), difference) + eye(x.size(-1), x.dtype()) * o.eps;
  const Tensor variance = sum(square(difference) * weight, {-2});
  return (o.covariance == Covariance::diag ? variance : mean(variance, {-1})) + o.eps;
}

Parameters m_step(const Tensor& x,
                  const Tensor& log_responsibilities,
                  const Tensor& covariance,
                  const GmmOptions& o) {
  const Tensor w = log_normalize_weights(log_responsibilities);
  Parameters p;
  p.means = matmul(transpose(w), x);
  p.covariance = o.covariance == Covariance::fixed ? covariance : covariance_of(x, p.means, w, o);
  detail::check_overflow("gmm_em", {p.means, p.covariance}, {x});
  p.log_weights = logsumexp(log_responsibilities, {-2}) - std::log(static_cast<double>(x.size(-2)));
  return p;
}

/// EM of one step, telling a user what to do about a covariance that became singular.
Parameters em_step(const Tensor& x, const EStep& e, const Tensor& covariance, const GmmOptions& o) {
  Parameters p = m_step(x, e.log_responsibilities, covariance, o);
  if (o.covariance != Covariance::full && any(le(p.covariance.detach(), 0.0)))
    throw ValueError(
        "gmm_em: the variance of a component became 0. Hint: eps > 0, or fewer components");
  return p;
}

EStep e_step(const Tensor& x, const Parameters& p, Covariance kind) {
  try {
    return EStep(x, p, kind);
  } catch (const ValueError& e) {
    throw ValueError(fmt::format(
        "gmm_em: the covariance of a component is singular ({}). Hint: eps > 0, or fewer "
        "components",
        e.what()));
  }
}

/// Parameters that an iteration moves, as a list; a fixed variance is none of them.
TensorList moving(const Parameters& p, Covariance kind) {
  if (kind == Covariance::fixed) return {p.means, p.log_weights};
  return {p.means, p.log_weights, p.covariance};
}

Parameters parameters_of(const TensorList& state, const TensorList& inputs, Covariance kind) {
  return {state[0], kind == Covariance::fixed ? inputs[1] : state[2], state[1]};
}

Parameters parameters_of(const GaussianMixture& m) {
  return {m.means, m.covariance, log(m.weights)};
}

GaussianMixture mixture_of(const Parameters& p) {
  return {p.means, p.covariance, exp(p.log_weights)};
}

}  // namespace

Tensor gaussian_log_prob_full(const Tensor& x, const Tensor& mean, const Tensor& covariance) {
  check_means(x, mean, "gaussian_log_prob_full");
  check_covariance(mean, covariance, Covariance::full, "gaussian_log_prob_full");
  const Tensor l = cholesky(covariance);
  const Tensor white = triangular_solve(l, transpose(unsqueeze(x, -3) - unsqueeze(mean, -2)));
  const Tensor distances = transpose(sum(square(white), {-2}));  // [B, N, k]
  const Tensor log_det = 2.0 * sum(log(diagonal(l)), {-1});
  return -0.5 * (distances + unsqueeze(log_det + log_volume(x), -2));
}

Tensor gaussian_log_prob_diag(const Tensor& x, const Tensor& mean, const Tensor& variance) {
  check_means(x, mean, "gaussian_log_prob_diag");
  check_covariance(mean, variance, Covariance::diag, "gaussian_log_prob_diag");
  const Tensor squares = square(unsqueeze(x, -2) - unsqueeze(mean, -3));  // [B, N, k, D]
  const Tensor distances = sum(squares / unsqueeze(variance, -3), {-1});
  return -0.5 * (distances + unsqueeze(sum(log(variance), {-1}) + log_volume(x), -2));
}

Covariance covariance_kind(std::string_view name) {
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end())
    throw ValueError(
        fmt::format("covariance_kind: one of {}; got '{}'", fmt::join(kNames, ", "), name));
  return static_cast<Covariance>(it - kNames.begin());
}

GaussianMixture mixture_at(const Tensor& x, const Tensor& means, Covariance kind) {
  check_means(x, means, "mixture_at");
  const Tensor spread = mean(var(x.detach(), {-2}, 0), {-1});
  detail::check_overflow("mixture_at", {spread}, {x});
  const Shape shape = covariance_shape(means.shape(), kind);
  Tensor variance = kind == Covariance::fixed ? mean(spread) : spread;
  // Smaller variances have no finite reciprocal: they count as 0.
  variance = where(ge(variance, smallest_normal(x.dtype())), variance, 1.0);
  while (variance.dim() < shape.rank()) variance = unsqueeze(variance, -1);
  if (kind == Covariance::full) variance = variance * eye(x.size(-1), x.dtype());
  return {means, contiguous(broadcast_to(variance, shape)),
          full(covariance_shape(means.shape(), Covariance::spherical),
               1.0 / static_cast<double>(means.size(-2)), x.dtype())};
}

GmmResult gmm_em(const Tensor& data, const GaussianMixture& start, const GmmOptions& o) {
  check(data, start, o, "gmm_em");
  if (o.iterations < 1)
    throw ValueError(fmt::format("gmm_em: at least 1 iteration; got {}", o.iterations));
  const detail::OverflowWatch watch("gmm_em", data);
  const auto watched = [&](const Parameters& p) {
    const GaussianMixture m = mixture_of(p);
    return GaussianMixture{watch.output(m.means), watch.output(m.covariance),
                           watch.output(m.weights)};
  };
  const Tensor x = watch.input(data);
  Parameters p = parameters_of(
      {watch.input(start.means), watch.input(start.covariance), watch.input(start.weights)});
  TensorList likelihoods;
  Tensor responsibilities;
  for (int t = 1; t <= o.iterations; ++t) {
    const EStep e = e_step(x, p, o.covariance);
    if (o.log_likelihoods) likelihoods.push_back(e.log_likelihood());
    if (t == o.iterations) responsibilities = exp(e.log_responsibilities);
    p = em_step(x, e, p.covariance, o);
  }
  if (!o.log_likelihoods) return {watched(p), watch.output(responsibilities), {}};
  likelihoods.push_back(e_step(x, p, o.covariance).log_likelihood());
  return {watched(p), watch.output(responsibilities), watch.output(stack(likelihoods, -1))};
}

ConvergedGmm gmm_em_converged(const Tensor& x,
                              const GaussianMixture& start,
                              const GmmOptions& o,
                              const FixedPointOptions& fixed) {
  check(x, start, o, "gmm_em_converged");
  TensorList inputs = {x};
  if (o.covariance == Covariance::fixed) inputs.push_back(start.covariance);
  const FixedPoint found = fixed_point(
      [o](const TensorList& state, const TensorList& in) {
        const Parameters p = parameters_of(state, in, o.covariance);
        const EStep e = e_step(in[0], p, o.covariance);
        return moving(em_step(in[0], e, p.covariance, o), o.covariance);
      },
      moving(parameters_of(start), o.covariance), inputs, fixed);
  const Parameters p = parameters_of(found.state, inputs, o.covariance);
  const EStep e = e_step(x, p, o.covariance);
  return {mixture_of(p), exp(e.log_responsibilities), e.log_likelihood(), found.iterations,
          found.converged};
}

}  // namespace capsfw
