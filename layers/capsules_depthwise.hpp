#pragma once
// Primary capsules by depthwise convolution.

#include <functional>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// Options of DepthwisePrimaryCapsules.
struct DepthwisePrimaryCapsulesOptions {
  Dims kernel = {0, 0};     ///< {rows, columns}; 0: the whole map
  std::int64_t stride = 1;  ///< of the convolution
  /// What bounds the capsules [B, I, dim]; undefined: squash_exp, as in the paper.
  std::function<Tensor(const Tensor&)> squash = {};
};

/// Capsules from a map by one filter per channel: x [B, types·dim, H, W] -> [B, types·Ho·Wo, dim],
/// regrouped as by PrimaryCapsules (channel c·dim + d at (y, x) is component d of capsule (c·Ho +
/// y)·Wo + x). With a kernel as large as the map every type is a single capsule, which sees all of
/// it for types·dim·H·W weights, types·dim times fewer than a full convolution. Weight [types·dim,
/// 1, kh, kw] He-normal, bias [types·dim] 0.   ShapeError unless x fits the map that was announced;
/// ValueError for sizes below 1 or a kernel larger than the map.   Mazzia, Salvetti, Chiaberge
/// 2021, Efficient-CapsNet, section 3.
class DepthwisePrimaryCapsules : public Layer {
 public:
  /// `map`: {H, W} of the inputs.
  DepthwisePrimaryCapsules(std::int64_t types,
                           std::int64_t dim,
                           const Dims& map,
                           Rng& rng,
                           DepthwisePrimaryCapsulesOptions options = {});
  /// Number of capsules, types·Ho·Wo.
  std::int64_t count() const { return types_ * out_[0] * out_[1]; }
  /// {Ho, Wo}.
  const Dims& positions() const { return out_; }
  Tensor weight, bias;  ///< parameters, one kernel a channel

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::int64_t types_, dim_;
  Dims map_, out_;
  DepthwisePrimaryCapsulesOptions options_;
};

}  // namespace capsfw
