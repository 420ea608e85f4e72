#include <capsfw/layers/decoder.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

/// The transposed 4x4 convolution of stride 2: [B, I, H, W] -> [B, O, 2H, 2W] with weight [I, O, 4,
/// 4].
Tensor twice_as_large(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  return conv_transpose2d(x, weight, bias, {.stride = {2, 2}, .padding = {1, 1}});
}

const Shape& checked_image(const Shape& image, std::int64_t channels) {
  if (image.rank() != 3)
    throw ShapeError(fmt::format("ConvDecoder: the image must be [C, H, W]; got {}", image.str()));
  if (image[0] < 1 || image[1] < 1 || image[2] < 1 || channels < 1)
    throw ValueError(
        fmt::format("ConvDecoder: sizes must be at least 1; got an image of {} and {} channels",
                    image.str(), channels));
  return image;
}

}  // namespace

Decoder::Decoder(std::int64_t in,
                 const std::vector<std::int64_t>& hidden,
                 std::int64_t out,
                 Rng& rng) {
  std::vector<std::int64_t> sizes = hidden;
  sizes.push_back(out);
  for (std::int64_t n : sizes) {
    layers_.push_back(std::make_unique<Linear>(in, n, rng));
    child(fmt::format("fc{}", layers_.size()), *layers_.back());
    in = n;
  }
}

Tensor Decoder::forward(const Tensor& x) {
  Tensor h = x;
  for (const auto& layer : layers_)
    h = layer == layers_.back() ? sigmoid((*layer)(h)) : relu((*layer)(h));
  return h;
}

ConvDecoder::ConvDecoder(std::int64_t in, const Shape& image, Rng& rng, std::int64_t channels)
    : image_(checked_image(image, channels)),
      channels_(channels),
      h_((image[1] + 3) / 4),
      w_((image[2] + 3) / 4),
      expand_(in, channels * h_ * w_, rng) {
  child("expand", expand_);
  // Each output pixel of a transposed 4x4 convolution of stride 2 sees 2x2 taps of every input
  // channel.
  const double std = std::sqrt(2.0 / static_cast<double>(4 * channels));
  middle_ = param("middle", init::normal({channels, channels, 4, 4}, std, rng));
  middle_bias_ = param("middle_bias", zeros({channels}));
  last_ = param("last", init::normal({channels, image[0], 4, 4}, std, rng));
  last_bias_ = param("last_bias", zeros({image[0]}));
}

Tensor ConvDecoder::forward(const Tensor& x) {
  const Tensor small = reshape(relu(expand_(x)), {x.size(0), channels_, h_, w_});
  const Tensor y =
      twice_as_large(relu(twice_as_large(small, middle_, middle_bias_)), last_, last_bias_);
  return sigmoid(narrow(narrow(y, 2, 0, image_[1]), 3, 0, image_[2]));
}

}  // namespace capsfw
