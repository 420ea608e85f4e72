#include "cluster_fit.hpp"

#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>

namespace capsfw::apps {

bool directional(const ClusterOptions& o) {
  return o.method.starts_with("fuzzy") ||
         (o.method.starts_with("kmeans") && o.metric == ClusterMetric::inner);
}

std::string score_name(const ClusterOptions& o) {
  return o.method == "gmm"               ? "log_likelihood"
         : o.method.starts_with("fuzzy") ? "objective"
                                         : "loss";
}

bool better(const ClusterOptions& o, double a, double b) {
  return o.method == "gmm" ? a > b : a < b;
}

ClusterFit::ClusterFit(Tensor x, Tensor centres, ClusterOptions options)
    : x_(std::move(x)), start_(std::move(centres)), centres_(start_), options_(std::move(options)) {
  if (options_.method == "gmm") mixture_ = mixture_at(x_, start_, options_.covariance);
  advance(0);
}

void ClusterFit::advance(int n) {
  if (options_.method == "gmm")
    gmm(n);
  else if (options_.method.starts_with("fuzzy"))
    fuzzy(n);
  else
    kmeans(n);
}

void ClusterFit::kmeans(int n) {
  const auto run = options_.method == "kmeans" ? kmeans_hard : kmeans_soft;
  KmeansOptions o{.iterations = n, .sharpness = options_.sharpness, .metric = options_.metric};
  if (n > 0) {
    const Clustering r = run(x_, centres_, o);
    centres_ = r.centres;
    const auto losses = r.losses.to_vector<double>();
    scores_.insert(scores_.end(), losses.begin() + 1, losses.end());
  }
  // Couplings come with the centres before them: one more iteration for those of the last.
  o.iterations = 1;
  o.losses = scores_.empty();
  const Clustering next = run(x_, centres_, o);
  couplings_ = next.couplings;
  if (scores_.empty()) scores_.push_back(next.losses.to_vector<double>()[0]);
}

void ClusterFit::gmm(int n) {
  GmmOptions o{.iterations = n, .covariance = options_.covariance, .eps = options_.eps};
  if (n > 0) {
    const GmmResult r = gmm_em(x_, *mixture_, o);
    mixture_ = r.mixture;
    const auto values = r.log_likelihoods.to_vector<double>();
    scores_.insert(scores_.end(), values.begin() + 1, values.end());
  }
  o.iterations = 1;
  o.log_likelihoods = scores_.empty();
  const GmmResult next = gmm_em(x_, *mixture_, o);
  couplings_ = next.responsibilities;
  centres_ = mixture_->means;
  if (scores_.empty()) scores_.push_back(next.log_likelihoods.to_vector<double>()[0]);
}

void ClusterFit::fuzzy(int n) {
  const bool kl = options_.method == "fuzzy-kl";
  const auto run = [&](const Tensor& from, int iterations) {
    return kl ? kl_clustering(x_, from, iterations)
              : entropy_clustering(x_, from,
                                   std::vector<double>(static_cast<std::size_t>(iterations),
                                                       1 / options_.sharpness));
  };
  if (n == 0) {
    // F(c, s) of the start is the first of the three values of the first iteration.
    scores_ = {run(start_, 1).objectives.to_vector<double>()[0]};
    const Tensor logits = matmul(x_, transpose(kl ? squash(start_) : safe_normalize(start_), 0, 1));
    couplings_ = softmax(kl ? logits : logits * options_.sharpness, 1);
    return;
  }
  const FuzzyClustering r = kl ? run(start_, iterations() + n) : run(centres_, n);
  centres_ = r.centres;
  couplings_ = r.couplings;
  const auto values = r.objectives.to_vector<double>();
  if (kl) scores_.resize(1);
  for (std::size_t i = 2; i < values.size(); i += 3) scores_.push_back(values[i]);
}

Tensor ClusterFit::labels() const { return argmax(couplings_, 1); }

Tensor ClusterFit::covariances(const Plane& plane) const {
  const Tensor across = transpose(plane.axes, 0, 1);  // [D, 2]
  if (mixture_) {
    const Tensor& c = mixture_->covariance;
    if (options_.covariance == Covariance::full) return matmul(matmul(plane.axes, c), across);
    const Tensor variances = options_.covariance == Covariance::diag ? c : unsqueeze(c, 1);
    return matmul(plane.axes * unsqueeze(variances, 1), across);
  }
  const Tensor points = plane.points(x_), centres = plane.points(centres_);
  TensorList out;
  for (std::int64_t j = 0; j < centres.size(0); ++j) {
    const Tensor w = narrow(couplings_, 1, j, 1), shift = points - narrow(centres, 0, j, 1);
    const double total = sum(w).item();
    out.push_back(matmul(transpose(shift * w, 0, 1), shift) / (total > 0 ? total : 1.0));
  }
  return stack(out);
}

}  // namespace capsfw::apps
