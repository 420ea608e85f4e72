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
  Decoder(std::int64_t in, const std::vector<std::int64_t>& hidden, std::int64_t out, Rng& rng);

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::vector<std::unique_ptr<Linear>> layers_;
};

/// A small convolutional decoder: a linear layer to `channels` maps of a quarter of the size, then
/// twice nearest-neighbour enlargement and a 3x3 convolution. [B, in] -> [B, C, H, W] in (0, 1),
/// any H and W; about a tenth of the arithmetic and a fiftieth of the parameters of the fully
/// connected one at 28x28.
class ConvDecoder : public Layer {
 public:
  ConvDecoder(std::int64_t in, const Shape& image, Rng& rng, std::int64_t channels = 16);

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  Shape image_;
  std::int64_t channels_, h_, w_;
  Linear expand_;
  Conv2d middle_, last_;
};

}  // namespace capsfw
