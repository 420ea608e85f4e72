#pragma once
// Decoders: from the poses of one class to an image.

#include <vector>

#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/linear.hpp>

namespace capsfw {

/// Masked poses [B, in] -> relu layers of the given sizes -> sigmoid [B, out]. Sabour, Frosst,
/// Hinton 2017, fig. 2: 160 -> 512 -> 1024 -> 784.
class Decoder : public Layer {
 public:
  /// ValueError for a size below 1.
  Decoder(std::int64_t in, const std::vector<std::int64_t>& hidden, std::int64_t out, Rng& rng);

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::vector<std::unique_ptr<Linear>> layers_;
};

/// A small convolutional decoder: a linear layer to `channels` maps of a quarter of the size, then
/// two transposed 4x4 convolutions of stride 2, relu between them and a sigmoid at the end. [B, in]
/// -> [B, C, H, W] in (0, 1), any H and W.
class ConvDecoder : public Layer {
 public:
  /// ShapeError unless the image is [C, H, W]; ValueError for a size below 1.
  ConvDecoder(std::int64_t in, const Shape& image, Rng& rng, std::int64_t channels = 16);

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  Shape image_;
  std::int64_t channels_, h_, w_;
  Linear expand_;
  Tensor middle_, middle_bias_, last_, last_bias_;
};

}  // namespace capsfw
