#pragma once
// Squeeze and excitation: a gate per channel, the cheap alternative to a routing.

#include <capsfw/core/random.hpp>
#include <capsfw/layers/linear.hpp>

namespace capsfw {

/// v = sigmoid(W₂ relu(W₁ u + b₁) + b₂) over the last axis: u [..., C], W₁ [H, C], W₂ [K, H] ->
/// [..., K], in (0, 1); b₁ [H] and b₂ [K] may be undefined.   Composed of linear, relu, sigmoid.
/// ShapeError as linear.   Hu, Shen, Sun 2018, Squeeze-and-Excitation Networks, eq (3).
Tensor se_gate(
    const Tensor& u, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2);

/// Options of SEBlock.
struct SEBlockOptions {
  std::int64_t reduction = 16;  ///< r: the hidden layer has max(1, C / r) units
  std::int64_t hidden = 0;      ///< units of the hidden layer, in place of r; 0: by r
  bool bias = true;             ///< of both linear maps
};

/// Scales each channel of a map by a gate that sees the means of all channels:
///   y = x · se_gate(mean of x over positions)
/// x [B, C, H, W] -> the same. Weights fc1 [C/r, C] and fc2 [C, C/r] start as those of Linear.
/// ShapeError unless x is [B, C, H, W] with H, W ≥ 1; ValueError for sizes below 1.   Hu, Shen, Sun
/// 2018, eqs (2) to (4).
class SEBlock : public Layer {
 public:
  SEBlock(std::int64_t channels, Rng& rng, SEBlockOptions options = {});
  /// The gates of a map [B, C], in (0, 1).
  Tensor gate(const Tensor& x) const;
  Linear fc1, fc2;  ///< down and up again

 protected:
  Tensor forward(const Tensor& x) override;
};

/// Options of SEGate.
struct SEGateOptions {
  bool bias = false;  ///< of both linear maps
};

/// The gate as a head in place of a capsule layer with one upper capsule: every component k of the
/// m capsules U [B, m, d] goes through the same two layers, v_k = sigmoid(W₂ relu(W₁ U_{·k})) with
/// W₁ [hidden, m] and W₂ [1, hidden], which leaves one vector v [B, d] in (0, 1). ShapeError unless
/// U is [B, m, d]; ValueError for sizes below 1.   Hu, Shen, Sun 2018, eq (3), for the function.
class SEGate : public Layer {
 public:
  SEGate(std::int64_t capsules, std::int64_t hidden, Rng& rng, SEGateOptions options = {});
  Linear fc1, fc2;  ///< down and up again

 protected:
  Tensor forward(const Tensor& u) override;
};

}  // namespace capsfw
