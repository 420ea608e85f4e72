#include <capsfw/layers/capsnet.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules_depthwise.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/balance.hpp"

namespace capsfw {
CapsNetOptions CapsNetOptions::paper(const Shape& image, std::int64_t classes) {
  CapsNetOptions o;
  o.image = image;
  o.convs = {{256, 9, 1}};
  o.capsules = {{classes, 16}};
  return o;
}

CapsNetOptions CapsNetOptions::compact(const Shape& image, std::int64_t classes) {
  CapsNetOptions o;
  o.image = image;
  o.convs = {{32, 5, 1}, {64, 5, 2}};
  o.primary = {16, 8};
  o.primary_kernel = 5;
  o.capsules = {{classes, 16}};
  o.decoder = DecoderKind::convolutional;
  return o;
}

CapsNetOptions CapsNetOptions::small(const Shape& image, std::int64_t classes) {
  CapsNetOptions o;
  o.image = image;
  o.convs = {{16, 5, 2}};
  o.primary = {8, 8};
  o.primary_kernel = 5;
  o.capsules = {{classes, 8}};
  o.decoder = DecoderKind::none;
  return o;
}

CapsNetOptions CapsNetOptions::efficient(const Shape& image, std::int64_t classes) {
  CapsNetOptions o;
  o.image = image;
  o.convs = {{32, 5, 1, true}, {64, 3, 1, true}, {64, 3, 1, true}, {128, 3, 2, true}};
  o.conv_init = "kaiming_normal";
  o.primary_kind = PrimaryKind::depthwise;
  o.primary = {16, 8};
  o.primary_kernel = 0;
  o.primary_stride = 1;
  o.capsules = {{classes, 16}};
  // He-normal, with the fan of a parent over all children: 16 capsules of 8 in each of the classes.
  o.dense = {.routing = "self-attention",
             .init_std = std::sqrt(2 / (128 * static_cast<double>(classes)))};
  return o;
}

CapsNetOptions CapsNetOptions::two_digits(const RoutingSpec& routing,
                                          const Shape& image,
                                          std::int64_t classes) {
  CapsNetOptions o;
  o.image = image;
  o.convs = {{64, 3}, {.channels = 64, .kernel = 3, .pool = 2}, {128, 3}, {128, 3}};
  o.conv_init = "xavier_uniform";
  o.primary_kind = PrimaryKind::positions;
  o.capsules = {{classes, 16}};
  // Glorot, Bengio 2010 for a matrix [16 J, 128].
  o.dense = {.routing = routing,
             .votes = VoteWeights::shared,
             .init_std = std::sqrt(2 / (128 + 16 * static_cast<double>(classes)))};
  o.decoder = DecoderKind::none;
  return o;
}

CapsNet::CapsNet(const CapsNetOptions& options, Rng& rng)
    : ImageClassifier(
          "CapsNet", options.image, options.capsules.empty() ? 0 : options.capsules.back().count),
      options_(options),
      convs_("CapsNet", options.image, options.convs, rng, options.conv_init) {
  const CapsNetOptions& o = options_;
  if (o.capsules.empty()) throw ValueError("CapsNet: at least one dense capsule layer");
  for (const auto& [name, layer] : convs_.layers()) child(name, *layer);
  CapsuleSize lower = add_primary(rng);
  for (const CapsuleSize& upper : o.capsules) {
    const bool last = dense_.size() + 1 == o.capsules.size();
    DenseCapsulesOptions dense = o.dense;
    dense.noise_class = dense.noise_class && last;
    dense.keep = last ? dense.keep : 1.0;
    dense_.push_back(std::make_unique<DenseCapsules>(lower.count, lower.dim, upper.count, upper.dim,
                                                     rng, dense));
    child(o.capsules.size() == 1 ? "digits" : fmt::format("capsules{}", dense_.size()),
          *dense_.back());
    lower = upper;
  }
  if (o.decoder == DecoderKind::fully_connected)
    decoder_ =
        std::make_unique<Decoder>(lower.count * lower.dim, o.decoder_hidden, o.image.numel(), rng);
  if (o.decoder == DecoderKind::convolutional)
    decoder_ = std::make_unique<ConvDecoder>(lower.count * lower.dim, o.image, rng);
  if (decoder_) child("decoder", *decoder_);
  const bool balances = std::any_of(dense_.begin(), dense_.end(),
                                    [](const auto& l) { return l->routing().balances(); });
  if (dense_.size() > 1 || balances) balance(rng);
  set_any_size(o.dense.votes == VoteWeights::shared && dense_.size() == 1 &&
               !dense_[0]->routing().fixes_children() && !decoder_ &&
               o.primary_kind != PrimaryKind::depthwise);
}

CapsuleSize CapsNet::add_primary(Rng& rng) {
  const CapsNetOptions& o = options_;
  const Shape& map = convs_.output();
  std::int64_t dim = o.primary.dim;
  if (o.primary_kind == PrimaryKind::positions) {
    primary_ = std::make_unique<Activation>(
        [](const Tensor& x) { return transpose(flatten(x, 2, 3), 1, 2); });
    primary_grid_ = {1, map[1], map[2]};
    dim = map[0];
  } else if (o.primary_kind == PrimaryKind::depthwise) {
    if (o.primary.count * o.primary.dim != map[0])
      throw ValueError(fmt::format(
          "CapsNet: depthwise primary capsules {}x{} need as many channels; the map has {}",
          o.primary.count, o.primary.dim, map[0]));
    auto layer = std::make_unique<DepthwisePrimaryCapsules>(
        o.primary.count, o.primary.dim, Dims{map[1], map[2]}, rng,
        DepthwisePrimaryCapsulesOptions{.kernel = {o.primary_kernel, o.primary_kernel},
                                        .stride = o.primary_stride});
    primary_grid_ = {o.primary.count, layer->positions()[0], layer->positions()[1]};
    primary_ = std::move(layer);
  } else {
    const auto positions = [&](std::int64_t n) {
      return detail::conv_size("CapsNet", "primary", n, o.primary_kernel, o.primary_stride);
    };
    primary_grid_ = {o.primary.count, positions(map[1]), positions(map[2])};
    primary_ = std::make_unique<PrimaryCapsules>(
        map[0], o.primary.count, o.primary.dim, o.primary_kernel, rng,
        PrimaryCapsulesOptions{.stride = o.primary_stride, .squash_c = o.primary_squash_c});
  }
  child("primary", *primary_);
  return {primary_grid_.numel(), dim};
}

void CapsNet::balance(Rng& rng) {
  const NoGradGuard no_grad;
  const Shape& image = options_.image;
  eval();
  Tensor h = rng.uniform({8, image[0], image[1], image[2]}, 0, 1);
  h = convs_(h);
  if (primary_->parameter_count() > 0)
    detail::scale_to_half_length(primary_->parameters(), [&] { return (*primary_)(h); });
  h = (*primary_)(h);
  Tensor activations;
  for (const auto& layer : dense_) {
    if (layer->routing().balances())
      layer->balance(h, activations);
    else
      detail::scale_to_half_length({layer->votes.weight},
                                   [&] { return layer->route(h, activations).poses; });
    const Routed routed = layer->route(h, activations);
    h = routed.poses;
    activations = routed.activations;
  }
  train();
}

Tensor CapsNet::primary_capsules(const Tensor& x) { return (*primary_)(convs_(x)); }

ClassifierOutput CapsNet::classify(const Tensor& x, const Tensor& labels, bool want_image) {
  Tensor h = primary_capsules(x);
  ClassifierOutput out;
  Routed routed;
  for (const auto& layer : dense_) {
    const Scope scope(layer->name());
    routed = layer->route(h, routed.activations);
    h = routed.poses;
  }
  out.poses = routed.poses;
  out.couplings = routed.couplings;
  out.lengths = activations_of(routed);
  if (decoder_ && want_image) {
    const Tensor seen = labels.defined() ? labels : argmax(out.lengths.detach(), 1);
    out.reconstruction = decode(out.poses, one_hot(seen, out.poses.size(1), out.poses.dtype()));
  }
  return out;
}

Tensor CapsNet::decode(const Tensor& poses, const Tensor& factors) {
  if (!decoder_) throw ValueError("CapsNet: this network was built without a decoder");
  return reshape((*decoder_)(mask_poses_by(poses, factors)),
                 {poses.size(0), image()[0], image()[1], image()[2]});
}

void CapsNet::set_routing_iterations(int n) {
  for (const auto& layer : dense_) layer->routing().set_iterations(n);
}

int CapsNet::routing_iterations() const { return dense_.back()->routing().iterations(); }

int CapsNet::uniform_iterations() const { return dense_.back()->routing().uniform_iterations(); }

Tensor capsnet_loss(const CapsNetOutput& out,
                    const Tensor& images,
                    const Tensor& targets,
                    const CapsNetLossOptions& options) {
  const Tensor margin = margin_loss(out.lengths, targets, options.margin);
  if (!out.reconstruction.defined() || options.reconstruction == 0) return margin;
  return margin + reconstruction_loss(images, out.reconstruction, options.reconstruction);
}

std::vector<CapsuleSize> parse_capsules(std::string_view text) {
  std::vector<CapsuleSize> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    CapsuleSize size;
    const char* stop = part.data() + part.size();
    const auto count = std::from_chars(part.data(), stop, size.count);
    const bool cross = count.ec == std::errc() && count.ptr != stop && *count.ptr == 'x';
    const auto dim = cross ? std::from_chars(count.ptr + 1, stop, size.dim) : count;
    if (!cross || dim.ec != std::errc() || dim.ptr != stop || size.count < 1 || size.dim < 1)
      throw ValueError(
          fmt::format("capsules: sizes look like 32x8,10x16 (count x size); got '{}'", part));
    out.push_back(size);
    begin = end + 1;
  }
  return out;
}

}  // namespace capsfw
