#pragma once

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/ops/conv.hpp>

namespace capsfw {

/// Options of Conv2d; numbers hold for rows and columns.
struct Conv2dOptions {
  std::int64_t stride = 1;    ///< pixels between places
  std::int64_t padding = 0;   ///< zeros on every side
  std::int64_t dilation = 1;  ///< pixels between taps
  std::int64_t groups = 1;    ///< of channels
  bool bias = true;           ///< add one number a channel
};

/// Cross-correlation (see conv2d): x [B, in, H, W] -> [B, out, Ho, Wo]. Weight [out, in/groups, k,
/// k] and bias [out] start uniform in ±1/√fan_in.
class Conv2d : public Layer {
 public:
  Conv2d(
      std::int64_t in, std::int64_t out, std::int64_t kernel, Rng& rng, Conv2dOptions options = {});
  /// Stride, padding, dilation and groups.
  const ConvOptions& geometry() const { return geometry_; }
  Tensor weight, bias;  ///< [out, in / groups, k, k], [out]

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  ConvOptions geometry_;
};

/// Options of ConvTranspose2d; numbers hold for rows and columns.
struct ConvTranspose2dOptions {
  std::int64_t stride = 1;          ///< of the input grid, in pixels of the output
  std::int64_t padding = 0;         ///< cut off on every side
  std::int64_t output_padding = 0;  ///< rows and columns added at the end, see conv_transpose2d
  std::int64_t dilation = 1;        ///< pixels between taps
  std::int64_t groups = 1;          ///< of channels
  bool bias = true;                 ///< add one number a channel
};

/// The adjoint of a Conv2d of the same kernel, stride and padding (see conv_transpose2d), which
/// makes small maps large: x [B, in, H, W] -> [B, out, Ho, Wo], Ho = (H − 1) stride − 2 padding +
/// dilation (k − 1) + output_padding + 1. Weight [in, out/groups, k, k] and bias [out] start
/// uniform in ±1/√(out/groups · k²), as in PyTorch.   Zeiler et al. 2010, Deconvolutional Networks.
class ConvTranspose2d : public Layer {
 public:
  ConvTranspose2d(std::int64_t in,
                  std::int64_t out,
                  std::int64_t kernel,
                  Rng& rng,
                  ConvTranspose2dOptions options = {});
  /// Stride, padding, dilation and groups.
  const ConvOptions& geometry() const { return geometry_; }
  Tensor weight, bias;  ///< [in, out / groups, k, k], [out]

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  ConvOptions geometry_;
  Dims output_padding_;
};

}  // namespace capsfw
