#include <capsfw/layers/image_classifier.hpp>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>

namespace capsfw {

ImageClassifier::ImageClassifier(std::string who, const Shape& image, std::int64_t classes)
    : who_(std::move(who)), image_(image), classes_(classes) {
  if (image.rank() != 3)
    throw ShapeError(fmt::format("{}: an image is [C, H, W]; got {}", who_, image.str()));
}

ClassifierOutput ImageClassifier::operator()(const Tensor& x, const Tensor& labels, bool decode) {
  const bool fits = x.dim() == 4 && x.size(1) == image_[0] &&
                    (any_size_ || (x.size(2) == image_[1] && x.size(3) == image_[2]));
  if (!fits)
    throw ShapeError(fmt::format("{}: images must be [B, {}, {}, {}]; got {}", who_, image_[0],
                                 any_size_ ? "H" : std::to_string(image_[1]),
                                 any_size_ ? "W" : std::to_string(image_[2]), x.shape().str()));
  if (labels.defined() && labels.shape() != Shape{x.size(0)})
    throw ShapeError(fmt::format("{}: labels must be [{}], one for each image; got {}", who_,
                                 x.size(0), labels.shape().str()));
  return classify(x, labels, decode);
}

void ImageClassifier::set_routing_iterations(int n) {
  if (n != 0) throw ValueError(fmt::format("{}: there is no routing to iterate", who_));
}

std::string ImageClassifier::summary() {
  const NoGradGuard no_grad;
  const bool was_training = training();
  eval();
  (*this)(zeros({1, image_[0], image_[1], image_[2]}, parameters().front().dtype()));
  train(was_training);
  std::string table = fmt::format("{:<12}{:<24}{:>12}\n", "layer", "output", "parameters");
  const auto row = [&](const std::string& name, const Shape& shape, std::int64_t count) {
    std::string text = "[B";
    for (int i = 1; i < shape.rank(); ++i) text += fmt::format(", {}", shape[i]);
    table += fmt::format("{:<12}{:<24}{:>12}\n", name, text + "]", count);
  };
  row("input", {1, image_[0], image_[1], image_[2]}, 0);
  for (const auto& [name, module] : children()) {
    const auto* layer = dynamic_cast<const Layer*>(module);
    row(name, layer != nullptr ? layer->output_shape() : Shape{}, module->parameter_count());
  }
  return table + fmt::format("{:<12}{:<24}{:>12}\n", "total", "", parameter_count());
}

}  // namespace capsfw
