#pragma once
// The clusterings of the library behind one interface: from centres on, some iterations at a time.

#include <optional>
#include <string>
#include <vector>

#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/gmm.hpp>

#include "plane.hpp"

namespace capsfw::apps {

/// What to run.
struct ClusterOptions {
  std::string method = "kmeans";  ///< kmeans, kmeans-soft, gmm, fuzzy-kl, fuzzy-entropy
  Covariance covariance = Covariance::full;
  ClusterMetric metric = ClusterMetric::euclid;
  double sharpness = 1;  ///< K of kmeans-soft, 1/α of fuzzy-entropy
  double eps = 1e-6;     ///< of gmm
};

/// True if the length of a centre means nothing.
bool directional(const ClusterOptions& options);
/// "loss", "log_likelihood" or "objective".
std::string score_name(const ClusterOptions& options);
/// Whether score `a` is better than `b`.
bool better(const ClusterOptions& options, double a, double b);

/// A clustering of x [N, D] on its way. Errors are those of the functions of the library.
class ClusterFit {
 public:
  ClusterFit(Tensor x, Tensor centres, ClusterOptions options);
  /// n ≥ 1 more iterations. fuzzy-kl starts afresh: its couplings remember all iterations.
  void advance(int n);

  int iterations() const { return static_cast<int>(scores_.size()) - 1; }
  const Tensor& centres() const { return centres_; }      ///< [k, D]
  const Tensor& couplings() const { return couplings_; }  ///< of these centres [N, k]
  Tensor labels() const;                                  ///< the largest coupling, i64 [N]
  /// As seen on a plane: of a mixture its own, else those of the points by their couplings
  /// [k, 2, 2].
  Tensor covariances(const Plane& plane) const;
  /// Of gmm only.
  const std::optional<GaussianMixture>& mixture() const { return mixture_; }
  /// At the start and after each iteration.
  const std::vector<double>& scores() const { return scores_; }

 private:
  void kmeans(int n);
  void gmm(int n);
  void fuzzy(int n);

  Tensor x_, start_, centres_, couplings_;
  ClusterOptions options_;
  std::optional<GaussianMixture> mixture_;
  std::vector<double> scores_;
};

}  // namespace capsfw::apps
