#pragma once
// Routings without agreement, to hold the others against, and attention pooling.

#include <capsfw/layers/routing_table.hpp>

namespace capsfw {

/// Options of UniformRouting.
struct UniformRoutingOptions {
  static constexpr const char* kRouting = "uniform";
  double squash_c = 1.0;  ///< constant of squash
};

/// v_j = squash_c(Σ_i û_{j|i} / J): what every routing is before its first iteration.
class UniformRouting : public Routing {
 public:
  using Options = UniformRoutingOptions;
  UniformRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int uniform_iterations() const override { return 1; }

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

/// Options of RandomRouting.
struct RandomRoutingOptions {
  static constexpr const char* kRouting = "random";
  double std = 1.0;        ///< of the logits
  std::uint64_t seed = 0;  ///< of the noise
  double squash_c = 1.0;   ///< constant of squash
};

/// v_j = squash_c(Σ_i c_ij û_{j|i}) with c_ij = softmax_j(ε_ij), ε ~ N(0, std²) drawn from the
/// seed: the same for every sample and every call, so that the layer remains a function.
class RandomRouting : public Routing {
 public:
  using Options = RandomRoutingOptions;
  /// ValueError for a negative std.
  RandomRouting(const RoutingSize& size, const Options& options, Rng& rng);

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

/// Options of LongestVoteRouting.
struct LongestVoteRoutingOptions {
  static constexpr const char* kRouting = "longest";
  double squash_c = 1.0;  ///< constant of squash
};

/// v_j = squash_c(û_{j|i*}), i* the child with the longest vote for j (the first one on ties).
/// Couplings are one-hot over the children, constants to the gradient.
class LongestVoteRouting : public Routing {
 public:
  using Options = LongestVoteRoutingOptions;
  LongestVoteRouting(const RoutingSize& size, const Options& options, Rng& rng);

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

/// Options of PoolRouting.
struct PoolRoutingOptions {
  static constexpr const char* kRouting = "pool";
  int iterations = 3;     ///< r, weighted sums
  double squash_c = 1.0;  ///< constant of squash
};

/// Attention pooling, for every parent by itself: from b_ij = 0 repeat r times
///   c_ij = softmax_i(b_ij) (over the children);  v_j = Σ_i c_ij û_{j|i};
///   b_ij += ⟨û_{j|i}, squash_c(v_j)⟩
/// The result is the last v_j, not squashed: its length may exceed 1. With a single parent this is
/// a routing in which the children compete for it.
class PoolRouting : public Routing {
 public:
  using Options = PoolRoutingOptions;
  /// ValueError for less than 1 iteration or c ≤ 0.
  PoolRouting(const RoutingSize& size, const Options& options, Rng& rng);
  int iterations() const override { return options_.iterations; }
  void set_iterations(int n) override;

 protected:
  Routed forward(const Votes& votes, const RoutingObserver& observe) override;

 private:
  Options options_;
};

void describe(OptionText& text, UniformRoutingOptions& options);
void describe(OptionText& text, RandomRoutingOptions& options);
void describe(OptionText& text, LongestVoteRoutingOptions& options);
void describe(OptionText& text, PoolRoutingOptions& options);

}  // namespace capsfw
