#include <capsfw/layers/conv_stages.hpp>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/pool.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {

std::int64_t detail::conv_size(
    const char* who, const char* layer, std::int64_t n, std::int64_t kernel, std::int64_t stride) {
  if (kernel < 1 || stride < 1 || n < kernel)
    throw ShapeError(
        fmt::format("{}: {}: a kernel of {} with stride {} does not fit {} pixels. Hint: a "
                    "larger image or smaller kernels",
                    who, layer, kernel, stride, n));
  return (n - kernel) / stride + 1;
}

ConvStages::ConvStages(const char* who,
                       const Shape& image,
                       const std::vector<ConvStage>& stages,
                       Rng& rng,
                       std::string_view init) {
  std::int64_t channels = image[0], h = image[1], w = image[2];
  for (const ConvStage& s : stages) {
    const std::string number = std::to_string(stages_.size() + 1), name = "conv" + number;
    h = detail::conv_size(who, name.c_str(), h, s.kernel, s.stride);
    w = detail::conv_size(who, name.c_str(), w, s.kernel, s.stride);
    Stage stage{.conv = std::make_unique<Conv2d>(channels, s.channels, s.kernel, rng,
                                                 Conv2dOptions{.stride = s.stride}),
                .norm = nullptr,
                .gate = nullptr,
                .pool = s.pool};
    if (!init.empty()) {
      stage.conv->weight.copy_(init::by_name(init, stage.conv->weight.shape(), rng));
      stage.conv->bias.fill_(0);
    }
    layers_.emplace_back(name, stage.conv.get());
    if (s.batch_norm) {
      stage.norm = std::make_unique<BatchNorm2d>(s.channels, NormOptions{.relu_first = true});
      layers_.emplace_back("norm" + number, stage.norm.get());
    }
    if (s.se_reduction > 0) {
      stage.gate =
          std::make_unique<SEBlock>(s.channels, rng, SEBlockOptions{.reduction = s.se_reduction});
      layers_.emplace_back("se" + number, stage.gate.get());
    }
    const std::string pool = "pool" + number;
    h = detail::conv_size(who, pool.c_str(), h, s.pool, s.pool);
    w = detail::conv_size(who, pool.c_str(), w, s.pool, s.pool);
    channels = s.channels;
    stages_.push_back(std::move(stage));
  }
  output_ = {channels, h, w};
}

Tensor ConvStages::operator()(const Tensor& x) const {
  Tensor h = x;
  for (const Stage& s : stages_) {
    h = (*s.conv)(h);
    h = s.norm ? (*s.norm)(h) : relu(h);
    if (s.gate) h = (*s.gate)(h);
    if (s.pool > 1) h = avg_pool2d(h, {s.pool, s.pool});
  }
  return h;
}

}  // namespace capsfw
