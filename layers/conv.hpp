#pragma once

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/ops/conv.hpp>

namespace capsfw {

/// Options of Conv2d; numbers hold for rows and columns.
struct Conv2dOptions {
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t dilation = 1;
  std::int64_t groups = 1;
  bool bias = true;
};

/// Cross-correlation (see conv2d): x [B, in, H, W] -> [B, out, Ho, Wo]. Weight [out, in/groups, k,
/// k] and bias [out] start uniform in ±1/√fan_in.
class Conv2d : public Layer {
 public:
  Conv2d(
      std::int64_t in, std::int64_t out, std::int64_t kernel, Rng& rng, Conv2dOptions options = {});
  /// Stride, padding, dilation and groups.
  const ConvOptions& geometry() const { return geometry_; }
  Tensor weight, bias;

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  ConvOptions geometry_;
};

}  // namespace capsfw
