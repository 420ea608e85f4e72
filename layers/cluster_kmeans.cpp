#include <capsfw/layers/cluster.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/overflow.hpp"

namespace capsfw {
namespace {

void check_sharpness(double sharpness, const char* who) {
  if (!(sharpness > 0) || !std::isfinite(sharpness))
    throw ValueError(
        fmt::format("{}: the sharpness K must be positive and finite; got {}", who, sharpness));
}

void check_pair(const Tensor& u, const Tensor& v, const char* who) {
  const bool ranks = (u.dim() == 3 || u.dim() == 2) && v.dim() == u.dim();
  if (!ranks || v.size(-1) != u.size(-1) || (u.dim() == 3 && v.size(0) != u.size(0)))
    throw ShapeError(
        fmt::format("{}: data must be [B, N, D] and centres [B, k, D], or [N, D] and "
                    "[k, D]; got {} and {}",
                    who, u.shape().str(), v.shape().str()));
  if (u.size(-2) < 1 || v.size(-2) < 1)
    throw ValueError(fmt::format("{}: at least one point and one centre; got data {}, centres {}",
                                 who, u.shape().str(), v.shape().str()));
}

void check_options(const KmeansOptions& o, const char* who) {
  check_sharpness(o.sharpness, who);
  if (o.iterations < 1)
    throw ValueError(fmt::format("{}: at least 1 iteration; got {}", who, o.iterations));
}

Tensor distances_of(const Tensor& u, const Tensor& v, ClusterMetric metric) {
  if (metric == ClusterMetric::inner) return neg(matmul(u, transpose(safe_normalize(v))));
  // Two passes: ‖u‖² − 2⟨u, v⟩ + ‖v‖² would cancel.
  const Tensor d = sum(square(unsqueeze(u, -2) - unsqueeze(v, -3)), {-1});
  detail::check_overflow("cluster_distances", {d}, {u, v});
  return d;
}

/// Σ_i w_ij u_i.
Tensor centres_of(const Tensor& weights, const Tensor& u) { return matmul(transpose(weights), u); }

/// Distances as the couplings and the loss see them: both come from one log-sum.
struct SoftAssignment {
  Tensor log_couplings, log_sums;  // ln c_ij [B, N, k], ln Σ_j e^(−K d_ij) [B, N, 1]

  SoftAssignment(const Tensor& u, const Tensor& v, const KmeansOptions& o) {
    const Tensor logits = distances_of(u, v, o.metric) * -o.sharpness;
    // ln c of the nearest centre is far smaller than −K d: with the largest at 0 its digits survive
    const Tensor top = max(logits.detach(), {-1}, true), shifted = logits - top;
    const Tensor rest = logsumexp(shifted, {-1}, true);
    log_couplings = shifted - rest;
    log_sums = top + rest;
  }
  Tensor loss(double sharpness) const { return sum(log_sums, {-2, -1}) / -sharpness; }
  Tensor centres(const Tensor& u, ClusterMetric metric) const {
    return centres_of(
        metric == ClusterMetric::euclid ? log_normalize_weights(log_couplings) : exp(log_couplings),
        u);
  }
};

/// The smallest total that is divided by: 1 / total and what is multiplied with it stay finite.
double smallest_total(DType dtype) {
  return visit_float(dtype, "log_normalize_weights", []<class T>() {
    using Limits = std::numeric_limits<T>;
    return static_cast<double>(Limits::min()) / static_cast<double>(Limits::epsilon());
  });
}

/// A sample as rows of numbers.
struct Points {
  std::vector<double> values;
  std::int64_t count, dim;

  /// Where squares leave the range of double: the same times a power of two, which changes no digit
  /// and no odds.
  void bring_into_range() {
    double largest = 0;
    for (const double v : values) largest = std::max(largest, std::abs(v));
    int exponent = 0;
    std::frexp(largest, &exponent);
    if (std::abs(exponent) < 400) return;
    for (double& v : values) v = std::ldexp(v, -exponent);
  }

  double distance(std::int64_t a, std::int64_t b) const {
    const double *p = values.data() + a * dim, *q = values.data() + b * dim;
    double sum = 0;
    for (std::int64_t d = 0; d < dim; ++d) sum += (p[d] - q[d]) * (p[d] - q[d]);
    return sum;
  }
};

/// An index drawn with probability weights[i] / Σ weights; their sum must be positive.
std::int64_t draw(const std::vector<double>& weights, Rng& rng) {
  double total = 0;
  for (const double w : weights) total += w;
  double left = rng.uniform() * total;
  std::int64_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] <= 0) continue;
    last = static_cast<std::int64_t>(i);  // rounding may leave a little after the last of them
    if ((left -= weights[i]) < 0) break;
  }
  return last;
}

std::vector<std::int64_t> choose_centres(const Points& points, std::int64_t k, Rng& rng) {
  const auto n = static_cast<std::size_t>(points.count);
  std::vector<std::int64_t> chosen{rng.below(points.count)};
  std::vector<double> nearest(n, INFINITY), unchosen(n, 1.0);
  while (static_cast<std::int64_t>(chosen.size()) < k) {
    const std::int64_t latest = chosen.back();
    unchosen[static_cast<std::size_t>(latest)] = 0;
    bool any_apart = false;
    for (std::size_t i = 0; i < n; ++i) {
      nearest[i] = std::min(nearest[i], points.distance(static_cast<std::int64_t>(i), latest));
      any_apart = any_apart || nearest[i] > 0;
    }
    chosen.push_back(draw(any_apart ? nearest : unchosen, rng));
  }
  return chosen;
}

}  // namespace

Tensor smooth_max(const Tensor& x, double sharpness, int axis) {
  check_sharpness(sharpness, "smooth_max");
  return logsumexp(x * sharpness, {axis}) / sharpness;
}

Tensor smooth_min(const Tensor& x, double sharpness, int axis) {
  check_sharpness(sharpness, "smooth_min");
  return logsumexp(x * -sharpness, {axis}) / -sharpness;
}

Tensor log_normalize_weights(const Tensor& log_weights, const Tensor& activation) {
  if (log_weights.dim() < 2)
    throw ShapeError(fmt::format("log_normalize_weights: log weights must be [..., I, J]; got {}",
                                 log_weights.shape().str()));
  const Tensor empty_columns =
      eq(max(log_weights.detach(), {-2}, true), -INFINITY);  // 0/0 where R itself is 0
  const bool has_empty = any(empty_columns);
  Tensor w = softmax(has_empty ? where(empty_columns, 0.0, log_weights) : log_weights, -2);
  if (has_empty) w = where(empty_columns, 0.0, w);
  if (!activation.defined()) return w;
  Shape expected = log_weights.shape();
  expected.erase(expected.rank() - 1);
  if (activation.shape() != expected)
    throw ShapeError(
        fmt::format("log_normalize_weights: the activation must be {} for log weights {}; got {}",
                    expected.str(), log_weights.shape().str(), activation.shape().str()));
  w = w * unsqueeze(activation, -1);
  const Tensor total = sum(w, {-2}, true), none = lt(total.detach(), smallest_total(w.dtype()));
  return where(none, 0.0, shares(where(none, 1.0, w), -2));
}

ClusterMetric cluster_metric(std::string_view name) {
  if (name == "euclid") return ClusterMetric::euclid;
  if (name == "inner") return ClusterMetric::inner;
  throw ValueError(fmt::format("cluster_metric: must be 'euclid' or 'inner'; got '{}'", name));
}

Tensor cluster_distances(const Tensor& u, const Tensor& v, ClusterMetric metric) {
  check_pair(u, v, "cluster_distances");
  return distances_of(u, v, metric);
}

Tensor smoothed_kmeans_loss(const Tensor& u,
                            const Tensor& v,
                            double sharpness,
                            ClusterMetric metric) {
  check_pair(u, v, "smoothed_kmeans_loss");
  return sum(smooth_min(distances_of(u, v, metric), sharpness), {-1});
}

Tensor hard_kmeans_loss(const Tensor& u, const Tensor& v, ClusterMetric metric) {
  check_pair(u, v, "hard_kmeans_loss");
  return sum(min(distances_of(u, v, metric), {-1}), {-1});
}

Clustering kmeans_soft(const Tensor& data, const Tensor& centres, const KmeansOptions& o) {
  check_pair(data, centres, "kmeans_soft");
  check_options(o, "kmeans_soft");
  const detail::OverflowWatch watch("kmeans_soft", data);
  const Tensor u = watch.input(data);
  Tensor v = watch.input(centres), c;
  TensorList losses;
  for (int t = 1; t <= o.iterations; ++t) {
    const SoftAssignment a(u, v, o);
    if (o.losses) losses.push_back(a.loss(o.sharpness));
    if (t == o.iterations) c = exp(a.log_couplings);
    v = a.centres(u, o.metric);
  }
  if (o.losses) losses.push_back(SoftAssignment(u, v, o).loss(o.sharpness));
  return {watch.output(v), watch.output(c), watch.output(o.losses ? stack(losses, -1) : Tensor())};
}

Clustering kmeans_hard(const Tensor& u, const Tensor& centres, const KmeansOptions& o) {
  check_pair(u, centres, "kmeans_hard");
  check_options(o, "kmeans_hard");
  Tensor v = centres, c;
  TensorList losses;
  const auto keep_loss = [&](const Tensor& distances) {
    if (o.losses) losses.push_back(sum(min(distances, {-1}), {-1}));
  };
  for (int t = 1; t <= o.iterations; ++t) {
    const Tensor distances = distances_of(u, v, o.metric);
    keep_loss(distances);
    c = one_hot(argmin(distances, -1), v.size(-2), u.dtype());
    const Tensor count = unsqueeze(sum(c, {-2}), -1);
    Tensor moved = centres_of(c, u);
    if (o.metric == ClusterMetric::euclid) moved = moved / maximum(count, 1.0);
    v = where(gt(count, 0.0), moved, v);
  }
  if (o.losses) keep_loss(distances_of(u, v, o.metric));
  return {v, c, o.losses ? stack(losses, -1) : Tensor()};
}

Tensor kmeans_plus_plus(const Tensor& u, std::int64_t k, Rng& rng) {
  if (u.dim() == 2) return squeeze(kmeans_plus_plus(unsqueeze(u, 0), k, rng), 0);
  if (u.dim() != 3)
    throw ShapeError(
        fmt::format("kmeans_plus_plus: data must be [B, N, D] or [N, D]; got {}", u.shape().str()));
  const std::int64_t n = u.size(1), dim = u.size(2);
  if (k < 1 || k > n)
    throw ValueError(fmt::format(
        "kmeans_plus_plus: the number of centres must be at least 1 and at most that of the "
        "points, {}; got {}",
        n, k));
  if (!all(isfinite(u))) throw ValueError("kmeans_plus_plus: the data must be finite");
  std::vector<std::int64_t> indices;
  for (std::int64_t b = 0; b < u.size(0); ++b) {
    Points points{select(u.detach(), 0, b).to_vector<double>(), n, dim};
    points.bring_into_range();
    for (const std::int64_t i : choose_centres(points, k, rng)) indices.push_back(i);
  }
  const Tensor index = unsqueeze(from_vector(indices, {u.size(0), k}), -1);
  return gather(u, 1, contiguous(broadcast_to(index, {u.size(0), k, dim})));
}

ConvergedKmeans kmeans_soft_converged(const Tensor& u,
                                      const Tensor& centres,
                                      const KmeansOptions& o,
                                      const FixedPointOptions& fixed) {
  check_pair(u, centres, "kmeans_soft_converged");
  check_sharpness(o.sharpness, "kmeans_soft_converged");
  const FixedPoint found = fixed_point(
      [o](const TensorList& state, const TensorList& in) -> TensorList {
        return {SoftAssignment(in[0], state[0], o).centres(in[0], o.metric)};
      },
      {centres}, {u}, fixed);
  const SoftAssignment a(u, found.state[0], o);
  return {found.state[0], exp(a.log_couplings), a.loss(o.sharpness), found.iterations,
          found.converged};
}

}  // namespace capsfw
