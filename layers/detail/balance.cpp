#include "balance.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw::detail {

void scale_to_half_length(const TensorList& weights, const std::function<Tensor()>& run) {
  double before = -1;  // the length does not move where weights are normalised
  for (int i = 0; i < 20; ++i) {
    const double length = std::clamp(mean(lengths(run())).item(), 1e-6, 1 - 1e-6);
    if (std::abs(length - 0.5) < 0.02 || std::abs(length - before) < 1e-7) break;
    before = length;
    for (Tensor w : weights) w.copy_(w * std::sqrt((1 - length) / length));
  }
}

void scale(Tensor weight, double factor) {
  if (std::isfinite(factor)) weight.copy_(weight * factor);
}

void scale_to_unit_variance(const Tensor& votes, const Tensor& weight) {
  scale(weight, 1 / std::sqrt(mean(var(votes, {1})).item()));
}

void balance_em(const EmLayer& layer) {
  constexpr double kSaved = 1;  // nats per dimension of a vote
  const NoGradGuard no_grad;
  const auto mean_log_sigma = [&] { return 0.5 * mean(log(layer.variance())).item(); };
  scale(layer.weight, std::exp(-mean_log_sigma()));
  const double log_sigma = mean_log_sigma(), dims = layer.dims;
  if (layer.variant == EmVariant::v1 || !std::isfinite(log_sigma)) return;
  const double per_vote = -dims * kSaved;  // of the cost, where n votes count n times
  double u = -log_sigma - kSaved;          // variant hinton, where β_u stands once per dimension
  if (layer.variant != EmVariant::hinton) u *= dims;
  if (layer.variant == EmVariant::eq12)
    u = (per_vote - dims * (log_sigma + 0.5 + 0.5 * std::log(2 * std::numbers::pi))) /
        std::max(layer.data, 1e-9);
  const bool counts = layer.variant == EmVariant::hinton || layer.variant == EmVariant::v4;
  Tensor(layer.beta_u).fill_(u);
  Tensor(layer.beta_a).fill_(counts ? per_vote * layer.data : per_vote);
}

}  // namespace capsfw::detail
