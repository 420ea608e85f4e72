#include <capsfw/layers/decoder.hpp>

#include <fmt/format.h>

#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

/// Each pixel four times: [B, C, H, W] -> [B, C, 2H, 2W].
Tensor enlarge(const Tensor& x) {
  const std::int64_t b = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  return reshape(broadcast_to(reshape(x, {b, c, h, 1, w, 1}), {b, c, h, 2, w, 2}),
                 {b, c, 2 * h, 2 * w});
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
    : image_(image),
      channels_(channels),
      h_((image[1] + 3) / 4),
      w_((image[2] + 3) / 4),
      expand_(in, channels * h_ * w_, rng),
      middle_(channels, channels, 3, rng, {.padding = 1}),
      last_(channels, image[0], 3, rng, {.padding = 1}) {
  child("expand", expand_);
  child("middle", middle_);
  child("last", last_);
}

Tensor ConvDecoder::forward(const Tensor& x) {
  const Tensor small = reshape(relu(expand_(x)), {x.size(0), channels_, h_, w_});
  const Tensor y = last_(enlarge(relu(middle_(enlarge(small)))));
  return sigmoid(narrow(narrow(y, 2, 0, image_[1]), 3, 0, image_[2]));
}

}  // namespace capsfw
