#include <capsfw/layers/capsnet.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

std::int64_t conv_size(std::int64_t n, std::int64_t kernel, std::int64_t stride, const char* what) {
  if (kernel < 1 || stride < 1 || n < kernel)
    throw ShapeError(
        fmt::format("CapsNet: {}: a kernel of {} with stride {} does not fit {} pixels. Hint: a "
                    "larger image or smaller kernels",
                    what, kernel, stride, n));
  return (n - kernel) / stride + 1;
}

/// Scales `weights` until the capsules that `run` makes of them have the mean length ½.
template <class F>
void scale_to_half_length(const TensorList& weights, const F& run) {
  double before = -1;  // the length does not move where weights are normalised
  for (int i = 0; i < 20; ++i) {
    const double length = std::clamp(mean(lengths(run())).item(), 1e-6, 1 - 1e-6);
    if (std::abs(length - 0.5) < 0.02 || std::abs(length - before) < 1e-7) break;
    before = length;
    for (Tensor w : weights) w.copy_(w * std::sqrt((1 - length) / length));
  }
}

}  // namespace

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

CapsNet::CapsNet(const CapsNetOptions& options, Rng& rng) : options_(options) {
  const CapsNetOptions& o = options_;
  if (o.image.rank() != 3)
    throw ShapeError(fmt::format("CapsNet: an image is [C, H, W]; got {}", o.image.str()));
  if (o.capsules.empty()) throw ValueError("CapsNet: at least one dense capsule layer");
  std::int64_t channels = o.image[0], h = o.image[1], w = o.image[2];
  for (const ConvStage& stage : o.convs) {
    const std::string name = fmt::format("conv{}", convs_.size() + 1);
    h = conv_size(h, stage.kernel, stage.stride, name.c_str());
    w = conv_size(w, stage.kernel, stage.stride, name.c_str());
    convs_.push_back(std::make_unique<Conv2d>(channels, stage.channels, stage.kernel, rng,
                                              Conv2dOptions{.stride = stage.stride}));
    child(name, *convs_.back());
    channels = stage.channels;
  }
  h = conv_size(h, o.primary_kernel, o.primary_stride, "primary");
  w = conv_size(w, o.primary_kernel, o.primary_stride, "primary");
  primary_ = std::make_unique<PrimaryCapsules>(
      channels, o.primary.count, o.primary.dim, o.primary_kernel, rng,
      PrimaryCapsulesOptions{.stride = o.primary_stride, .squash_c = o.primary_squash_c});
  child("primary", *primary_);
  CapsuleSize lower{o.primary.count * h * w, o.primary.dim};
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
  if (dense_.size() > 1) balance_lengths(rng);
}

void CapsNet::balance_lengths(Rng& rng) {
  const NoGradGuard no_grad;
  const Shape& image = options_.image;
  eval();
  Tensor h = rng.uniform({8, image[0], image[1], image[2]}, 0, 1);
  for (const auto& conv : convs_) h = relu((*conv)(h));
  scale_to_half_length(primary_->parameters(), [&] { return (*primary_)(h); });
  h = (*primary_)(h);
  Tensor activations;
  for (const auto& layer : dense_) {
    scale_to_half_length({layer->votes.weight}, [&] { return layer->route(h, activations).poses; });
    const Routed routed = layer->route(h, activations);
    h = routed.poses;
    activations = routed.activations;
  }
  train();
}

CapsNetOutput CapsNet::forward(const Tensor& x, const Tensor& labels, bool want_image) {
  const Shape& image = options_.image;
  if (x.dim() != 4 || Shape{x.size(1), x.size(2), x.size(3)} != image)
    throw ShapeError(fmt::format("CapsNet: images must be [B, {}, {}, {}]; got {}", image[0],
                                 image[1], image[2], x.shape().str()));
  if (labels.defined() && labels.shape() != Shape{x.size(0)})
    throw ShapeError(fmt::format("CapsNet: labels must be [{}], one for each image; got {}",
                                 x.size(0), labels.shape().str()));
  Tensor h = x;
  for (const auto& conv : convs_) h = relu((*conv)(h));
  h = (*primary_)(h);
  CapsNetOutput out;
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
  const Shape& image = options_.image;
  return reshape((*decoder_)(mask_poses_by(poses, factors)),
                 {poses.size(0), image[0], image[1], image[2]});
}

void CapsNet::set_routing_iterations(int n) {
  for (const auto& layer : dense_) layer->routing().set_iterations(n);
}

int CapsNet::routing_iterations() const { return dense_.back()->routing().iterations(); }

int CapsNet::uniform_iterations() const { return dense_.back()->routing().uniform_iterations(); }

std::string CapsNet::summary() {
  const NoGradGuard no_grad;
  const bool was_training = training();
  eval();
  forward(zeros({1, options_.image[0], options_.image[1], options_.image[2]},
                primary_->conv.weight.dtype()));
  train(was_training);
  std::string table = fmt::format("{:<12}{:<24}{:>12}\n", "layer", "output", "parameters");
  table += fmt::format("{:<12}{:<24}{:>12}\n", "input", "[B, " + options_.image.str().substr(1), 0);
  for (const auto& [name, module] : children()) {
    const auto* layer = dynamic_cast<const Layer*>(module);
    Shape shape = layer != nullptr ? layer->output_shape() : Shape{};
    if (const auto* dense = dynamic_cast<const DenseCapsules*>(module)) {
      const std::size_t k =
          static_cast<std::size_t>(std::find_if(dense_.begin(), dense_.end(),
                                                [&](const auto& d) { return d.get() == dense; }) -
                                   dense_.begin());
      shape = {1, options_.capsules[k].count, options_.capsules[k].dim};
    }
    std::string text = "[B";
    for (int i = 1; i < shape.rank(); ++i) text += fmt::format(", {}", shape[i]);
    table += fmt::format("{:<12}{:<24}{:>12}\n", name, text + "]", module->parameter_count());
  }
  return table + fmt::format("{:<12}{:<24}{:>12}\n", "total", "", parameter_count());
}

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
