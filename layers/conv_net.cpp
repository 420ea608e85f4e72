#include <capsfw/layers/conv_net.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {

ConvNetOptions ConvNetOptions::beside(const CapsNetOptions& capsules, std::int64_t se_reduction) {
  if (capsules.capsules.empty() || capsules.primary_kind != PrimaryKind::convolution)
    throw ValueError(
        "ConvNet: the capsule network must have classes and convolutional primary capsules");
  ConvNetOptions o{.image = capsules.image, .convs = capsules.convs};
  o.convs.push_back({.channels = capsules.primary.count * capsules.primary.dim,
                     .kernel = capsules.primary_kernel,
                     .stride = capsules.primary_stride});
  for (ConvStage& stage : o.convs) stage.se_reduction = se_reduction;
  o.conv_init = capsules.conv_init;
  o.classes = capsules.capsules.back().count;
  Rng rng;
  CapsNetOptions bare = capsules;
  bare.decoder = DecoderKind::none;
  const std::int64_t wanted = CapsNet(bare, rng).parameter_count();
  // The count is linear in the hidden units.
  const auto count = [&](std::int64_t n) {
    o.hidden = n;
    return ConvNet(o, rng).parameter_count();
  };
  const std::int64_t one = count(1), per_unit = count(2) - one;
  const double units = 1 + static_cast<double>(wanted - one) / static_cast<double>(per_unit);
  // Fewer units than classes would be a bottleneck, no baseline.
  const std::int64_t got = count(std::max<std::int64_t>(o.classes, std::llround(units)));
  if (std::abs(static_cast<double>(got - wanted)) > 0.02 * static_cast<double>(wanted))
    throw ValueError(fmt::format(
        "ConvNet: no number of hidden units gives the {} parameters of the capsule network; the "
        "nearest, {}, gives {}",
        wanted, o.hidden, got));
  return o;
}

ConvNetOptions ConvNetOptions::two_digits(const Shape& image, std::int64_t classes) {
  const CapsNetOptions capsules = CapsNetOptions::two_digits("kmeans", image, classes);
  return {.image = image,
          .convs = capsules.convs,
          .conv_init = capsules.conv_init,
          .global_pool = true,
          .classes = classes};
}

ConvNet::ConvNet(const ConvNetOptions& options, Rng& rng)
    : ImageClassifier("ConvNet", options.image, options.classes),
      options_(options),
      convs_("ConvNet", options.image, options.convs, rng, options.conv_init) {
  for (const auto& [name, layer] : convs_.layers()) child(name, *layer);
  const Shape& map = convs_.output();
  hidden_ =
      std::make_unique<Linear>(options_.global_pool ? map[0] : map.numel(), options_.hidden, rng);
  child("hidden", *hidden_);
  classes_ = std::make_unique<Linear>(options_.hidden, options_.classes, rng);
  child("classes", *classes_);
  set_any_size(options_.global_pool);
}

ClassifierOutput ConvNet::classify(const Tensor& x, const Tensor& /*labels*/, bool /*decode*/) {
  const Tensor map = convs_(x),
               h = (*hidden_)(options_.global_pool ? mean(map, {2, 3}) : flatten(map, 1)),
               logits = (*classes_)(relu(h));
  return {.lengths = sigmoid(logits), .logits = logits};
}

}  // namespace capsfw
