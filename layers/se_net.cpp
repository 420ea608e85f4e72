#include <capsfw/layers/se_net.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {

SENetOptions SENetOptions::beside(const CapsNetOptions& capsules) {
  SENetOptions o{.image = capsules.image, .convs = capsules.convs};
  o.convs.push_back({.channels = capsules.primary.count * capsules.primary.dim,
                     .kernel = capsules.primary_kernel,
                     .stride = capsules.primary_stride});
  if (capsules.capsules.empty()) throw ValueError("SENet: the capsule network has no classes");
  o.classes = capsules.capsules.back().count;
  Rng rng;
  CapsNetOptions bare = capsules;
  bare.decoder = DecoderKind::none;
  const std::int64_t wanted = CapsNet(bare, rng).parameter_count();
  // The count is linear in the hidden units.
  const auto count = [&](std::int64_t hidden) {
    o.hidden = hidden;
    return SENet(o, rng).parameter_count();
  };
  const std::int64_t one = count(1), per_unit = count(2) - one;
  const double units = 1 + static_cast<double>(wanted - one) / static_cast<double>(per_unit);
  // Fewer units than classes would be a bottleneck, no baseline.
  const std::int64_t got = count(std::max<std::int64_t>(o.classes, std::llround(units)));
  if (std::abs(static_cast<double>(got - wanted)) > 0.02 * static_cast<double>(wanted))
    throw ValueError(fmt::format(
        "SENet: no number of hidden units gives the {} parameters of the capsule network; the "
        "nearest, {}, gives {}",
        wanted, o.hidden, got));
  return o;
}

SENet::SENet(const SENetOptions& options, Rng& rng) : options_(options) {
  const SENetOptions& o = options_;
  if (o.image.rank() != 3 || o.image.numel() < 1)
    throw ShapeError(fmt::format("SENet: an image is [C, H, W]; got {}", o.image.str()));
  std::int64_t channels = o.image[0], h = o.image[1], w = o.image[2];
  for (const ConvStage& stage : o.convs) {
    if (stage.kernel < 1 || stage.stride < 1 || std::min(h, w) < stage.kernel)
      throw ShapeError(fmt::format(
          "SENet: a kernel of {} with stride {} does not fit a map of {} x {}. Hint: a larger "
          "image or smaller kernels",
          stage.kernel, stage.stride, h, w));
    const std::string number = std::to_string(convs_.size() + 1);
    convs_.push_back(std::make_unique<Conv2d>(channels, stage.channels, stage.kernel, rng,
                                              Conv2dOptions{.stride = stage.stride}));
    child("conv" + number, *convs_.back());
    gates_.push_back(
        std::make_unique<SEBlock>(stage.channels, rng, SEBlockOptions{.reduction = o.reduction}));
    child("se" + number, *gates_.back());
    channels = stage.channels;
    h = (h - stage.kernel) / stage.stride + 1;
    w = (w - stage.kernel) / stage.stride + 1;
  }
  hidden_ = std::make_unique<Linear>(channels * h * w, o.hidden, rng);
  child("hidden", *hidden_);
  classes_ = std::make_unique<Linear>(o.hidden, o.classes, rng);
  child("classes", *classes_);
}

Tensor SENet::logits(const Tensor& x) {
  const Shape& image = options_.image;
  if (x.dim() != 4 || Shape{x.size(1), x.size(2), x.size(3)} != image)
    throw ShapeError(fmt::format("SENet: images must be [B, {}, {}, {}]; got {}", image[0],
                                 image[1], image[2], x.shape().str()));
  Tensor h = x;
  for (std::size_t k = 0; k < convs_.size(); ++k) h = (*gates_[k])(relu((*convs_[k])(h)));
  return (*classes_)(relu((*hidden_)(flatten(h, 1))));
}

Tensor SENet::forward(const Tensor& x) { return sigmoid(logits(x)); }

}  // namespace capsfw
