#include <capsfw/layers/em_routing.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include <capsfw/layers/cluster.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/em_fused.hpp"
#include "detail/em_loop.hpp"
#include "detail/overflow.hpp"
#include "detail/require_shape.hpp"

namespace capsfw {
namespace {

const double kLog2Pi = std::log(2 * std::numbers::pi);

bool uses_activation(EmVariant v) {
  return v == EmVariant::v3 || v == EmVariant::v4 || v == EmVariant::hinton;
}

/// Σ_h ln σ^h = ½ Σ_h ln var^h.
Tensor sum_log_sigma(const Tensor& variance) { return sum(log(variance), {-1}) * 0.5; }

/// −½ (V − M)² / var summed over the dimensions, from the squares: [B, I, J].
Tensor exponent(const Tensor& squares, const Tensor& variance) {
  return agreement(squares, -0.5 * reciprocal(variance));
}

/// The rest of ln N: −Σ_h ln σ^h − D/2 ln 2π [B, J].
Tensor log_normalizer(const Tensor& log_sigma, std::int64_t d) {
  return -log_sigma - 0.5 * kLog2Pi * static_cast<double>(d);
}

Tensor squared_distances(const Tensor& votes, const Tensor& mean) {
  return square(votes - unsqueeze(mean, 1));
}

/// Gaussians, and what an E step needs of them.
struct Mixture {
  Tensor poses, variance, activations;
  Tensor squares;     ///< (V − M)² [B, I, J, D]
  Tensor log_sigma;   ///< Σ_h ln σ^h [B, J]
  Tensor log_weight;  ///< ln a_j or ln π_j [B, J]

  /// ln weight_j + ln N(V_ij; M_j, var_j).
  Tensor joint() const {
    return exponent(squares, variance) +
           unsqueeze(log_weight + log_normalizer(log_sigma, squares.size(-1)), 1);
  }
};

/// What an M step looks at besides ln R.
struct Given {
  Tensor votes, a_in, beta_a, beta_u;

  Given detached() const {
    const auto cut = [](const Tensor& t) { return t.defined() ? t.detach() : t; };
    return {cut(votes), cut(a_in), cut(beta_a), cut(beta_u)};
  }
};

Tensor cost_of(
    const Given& in, const Mixture& m, const Tensor& r, const Tensor& big_r, EmVariant v) {
  const auto data = [&] { return sum(big_r * unsqueeze(in.a_in, -1), {1}); };
  const double d = static_cast<double>(in.votes.size(-1));
  switch (v) {
    case EmVariant::v4:
      return (in.beta_u + m.log_sigma) * data();
    case EmVariant::hinton:
      return (d * in.beta_u + m.log_sigma) * data();
    case EmVariant::eq12: {
      const Tensor density = exponent(m.squares, m.variance) +
                             unsqueeze(log_normalizer(m.log_sigma, in.votes.size(-1)), 1);
      return in.beta_u * sum(big_r, {1}) + cluster_entropy(r, density);
    }
    default:  // v2 and v3
      return (in.beta_u + m.log_sigma) * sum(r, {1});
  }
}

Mixture m_step(
    const Given& in, const Tensor& log_r, const Tensor& big_r, double lambda, const EmOptions& o) {
  const Tensor r = log_normalize_weights(log_r, uses_activation(o.variant) ? in.a_in : Tensor());
  Mixture m;
  m.poses = weighted_sum(r, in.votes);
  m.squares = squared_distances(in.votes, m.poses);
  m.variance = weighted_sum(r, m.squares) + o.eps_var;
  m.log_sigma = sum_log_sigma(m.variance);
  if (o.variant == EmVariant::v1) {
    const Tensor children = o.mask.defined() ? sum(to(o.mask, r.dtype()), {1}, true)
                                             : scalar(static_cast<double>(r.size(1)), r.dtype());
    m.log_weight = logsumexp(log_r, {1}) - log(children);
    m.activations = exp(m.log_weight);
  } else {
    const Tensor logit = lambda * (in.beta_a - cost_of(in, m, r, big_r, o.variant));
    m.log_weight = logsigmoid(logit);
    m.activations = sigmoid(logit);
  }
  return m;
}

Mixture given_mixture(const Tensor& votes, const EmInit& init, bool detach) {
  const auto seen = [&](const Tensor& t) { return detach ? t.detach() : t; };
  Mixture m;
  m.poses = seen(init.mean);
  m.variance = seen(init.variance);
  m.squares = squared_distances(votes, m.poses);
  m.log_sigma = sum_log_sigma(m.variance);
  m.log_weight = log(seen(init.weight));
  return m;
}

}  // namespace

namespace detail {

EmCompetition compete_over_parents(std::int64_t parents, DType dtype) {
  return {scalar(-std::log(static_cast<double>(parents)), dtype), [](const Tensor& joint) {
            // ln Σ e^joint rounds like the largest joint, ln R of a winner is far smaller: with the
            // largest at 0 its digits survive.
            return log_softmax(joint - max(joint.detach(), {-1}, true), -1);
          }};
}

bool plain_only(const EmOptions& o) {
  return o.observe || o.init.mean.defined() || o.kept.defined();
}

void check_em(const char* who,
              const Shape& votes,
              const Tensor* a_in,
              const Tensor& beta_a,
              const Tensor& beta_u,
              const std::vector<double>& lambdas,
              const EmOptions& o) {
  if (votes.rank() != 4 || votes[1] < 1 || votes[2] < 1 || votes[3] < 1)
    throw ShapeError(fmt::format("{}: votes must be [B, I, J, D] with I, J, D at least 1; got {}",
                                 who, votes.str()));
  if (lambdas.empty())
    throw ValueError(
        fmt::format("{}: at least one lambda, one for each iteration. Hint: "
                    "lambda_schedule(3)",
                    who));
  if (!(o.eps_var >= 0 && std::isfinite(o.eps_var)))
    throw ValueError(
        fmt::format("{}: eps_var must be at least 0 and finite; got {}", who, o.eps_var));
  const std::int64_t b = votes[0], i = votes[1], j = votes[2], d = votes[3];
  const auto expect = [&](const Tensor& t, const Shape& shape, const char* what, bool needed) {
    if (!t.defined() && needed)
      throw ValueError(
          fmt::format("{}: this variant needs {} {}; got none", who, what, shape.str()));
    detail::require_shape(who, t, shape, what, votes);
  };
  const bool init = o.init.mean.defined() || o.init.variance.defined() || o.init.weight.defined();
  if (a_in != nullptr) expect(*a_in, {b, i}, "a_in", uses_activation(o.variant));
  expect(beta_a, {j}, "beta_a", o.variant != EmVariant::v1);
  expect(beta_u, {j}, "beta_u", o.variant != EmVariant::v1);
  expect(o.mask, {b, i}, "the mask", false);
  expect(o.kept, {b, j}, "'kept'", false);
  expect(o.init.mean, {b, j, d}, "the initial mean", init);
  expect(o.init.variance, {b, j, d}, "the initial variance", init);
  expect(o.init.weight, {b, j}, "the initial weight", init);
  for (const Tensor& t : {o.mask, o.kept})
    if (t.defined() && t.dtype() != DType::b8)
      throw DTypeError(
          fmt::format("{}: the mask and 'kept' must be b8; got {}", who, name_of(t.dtype())));
  if (o.kept.defined()) detail::kept_of(o.kept, who);
  if (o.mask.defined() && any(eq(sum(to(o.mask, DType::f32), {1}), 0.0)))
    throw ValueError(fmt::format("{}: the mask keeps no child of some sample", who));
}

EmRouted run_em(const Tensor& given_votes,
                const Tensor& given_a_in,
                const Tensor& beta_a,
                const Tensor& beta_u,
                const std::vector<double>& lambdas,
                const EmOptions& o,
                const EmCompetition& competition) {
  const OverflowWatch watch("em_routing", given_votes);
  const Tensor votes = watch.input(given_votes), a_in = watch.input(given_a_in);
  const Given last{votes, a_in, beta_a, beta_u};
  // Detached: whatever feeds the R of the last M step is a constant.
  const Given earlier = o.detach ? last.detached() : last;
  const auto masked = [&](const Tensor& log_r) {
    return o.mask.defined() ? where(unsqueeze(o.mask, -1), log_r, -INFINITY) : log_r;
  };
  // Parents that are not kept leave the competition before it is normalised.
  const auto normalized = [&](const Tensor& joint) {
    return masked(competition.normalize(
        o.kept.defined() ? where(unsqueeze(o.kept, 1), joint, -INFINITY) : joint));
  };
  const Shape shape{votes.size(0), votes.size(1), votes.size(2)};
  // Kept parents share what all of them would have had.
  Tensor log_r = masked(o.kept.defined()
                            ? log(detail::uniform_couplings(votes.detach(), o.kept)) +
                                  (competition.log_start + std::log(static_cast<double>(shape[2])))
                            : broadcast_to(competition.log_start, shape));
  Mixture m;
  if (o.init.mean.defined()) {
    m = given_mixture(earlier.votes, o.init, o.detach);
    log_r = normalized(m.joint());
  }
  EmRouted out;
  for (std::size_t t = 0; t < lambdas.size(); ++t) {
    if (t > 0) log_r = normalized(m.joint());
    const Tensor big_r = exp(log_r);
    m = m_step(t + 1 == lambdas.size() ? last : earlier, log_r, big_r, lambdas[t], o);
    out = {m.poses, m.activations, big_r, m.variance};
    if (o.observe) o.observe(out);
  }
  check_overflow("em_routing", {out.poses, out.activations, out.variance}, {votes});
  return {watch.output(out.poses), watch.output(out.activations), watch.output(out.assignments),
          watch.output(out.variance)};
}

}  // namespace detail

EmVariant em_variant(std::string_view name) {
  constexpr std::array<std::string_view, 6> kNames = {"v1", "v2", "v3", "v4", "hinton", "eq12"};
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end())
    throw ValueError(fmt::format("em_variant: one of {}; got '{}'", fmt::join(kNames, ", "), name));
  return static_cast<EmVariant>(it - kNames.begin());
}

EmRouted em_routing(const Tensor& votes,
                    const Tensor& a_in,
                    const Tensor& beta_a,
                    const Tensor& beta_u,
                    const std::vector<double>& lambdas,
                    const EmOptions& options) {
  if (detail::plain_only(options))
    return em_routing_reference(votes, a_in, beta_a, beta_u, lambdas, options);
  detail::check_em("em_routing", votes.shape(), &a_in, beta_a, beta_u, lambdas, options);
  const detail::EmInputs inputs{.votes = votes,
                                .a_in = a_in,
                                .beta_a = beta_a,
                                .beta_u = beta_u,
                                .mask = options.mask,
                                .lambdas = from_vector(lambdas)};
  return detail::record_em(inputs, detail::EmSettings(options));
}

EmRouted em_routing_reference(const Tensor& votes,
                              const Tensor& a_in,
                              const Tensor& beta_a,
                              const Tensor& beta_u,
                              const std::vector<double>& lambdas,
                              const EmOptions& options) {
  detail::check_em("em_routing", votes.shape(), &a_in, beta_a, beta_u, lambdas, options);
  return detail::run_em(votes, a_in, beta_a, beta_u, lambdas, options,
                        detail::compete_over_parents(votes.size(2), votes.dtype()));
}

Tensor vote_log_density(const Tensor& votes, const Tensor& mean, const Tensor& variance) {
  if (votes.dim() != 4 || mean.shape() != Shape{votes.size(0), votes.size(2), votes.size(3)} ||
      variance.shape() != mean.shape())
    throw ShapeError(
        fmt::format("vote_log_density: votes [B, I, J, D], mean and variance [B, J, D]; got {}, {} "
                    "and {}",
                    votes.shape().str(), mean.shape().str(), variance.shape().str()));
  return exponent(squared_distances(votes, mean), variance) +
         unsqueeze(log_normalizer(sum_log_sigma(variance), votes.size(3)), 1);
}

Tensor cluster_entropy(const Tensor& r, const Tensor& log_density) {
  if (r.dim() != 3 || r.shape() != log_density.shape())
    throw ShapeError(fmt::format("cluster_entropy: r and log_density [B, I, J]; got {} and {}",
                                 r.shape().str(), log_density.shape().str()));
  return -sum(r * log_density, {1});
}

Tensor cluster_entropy_closed(const Tensor& r, const Tensor& variance) {
  if (r.dim() != 3 || variance.dim() != 3 || r.size(0) != variance.size(0) ||
      r.size(2) != variance.size(1))
    throw ShapeError(
        fmt::format("cluster_entropy_closed: r [B, I, J] and variance [B, J, D]; got {} and {}",
                    r.shape().str(), variance.shape().str()));
  const std::int64_t d = variance.size(2);
  return 0.5 * static_cast<double>(d) - log_normalizer(sum_log_sigma(variance), d) * sum(r, {1});
}

std::vector<double> lambda_schedule(int n, double final_lambda, double base) {
  std::vector<double> out;
  for (int t = 1; t <= n; ++t) out.push_back(final_lambda * (1 - std::pow(base, t)));
  return out;
}

double lambda_growth(double step, double total, double low, double high) {
  if (!(total > 0))
    throw ValueError(fmt::format("lambda_growth: total must be positive; got {}", total));
  return low + (high - low) * std::clamp(step / total, 0.0, 1.0);
}

}  // namespace capsfw
