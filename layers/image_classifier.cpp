#include <capsfw/layers/image_classifier.hpp>

#include <fmt/format.h>

namespace capsfw {

ImageClassifier::ImageClassifier(std::string who, const Shape& image, std::int64_t classes)
    : Classifier(std::move(who), classes), image_(image) {
  if (image.rank() != 3)
    throw ShapeError(fmt::format("{}: an image is [C, H, W]; got {}", this->who(), image.str()));
}

ClassifierOutput ImageClassifier::operator()(const Tensor& x, const Tensor& labels, bool decode) {
  const bool fits = x.dim() == 4 && x.size(1) == image_[0] &&
                    (any_size_ || (x.size(2) == image_[1] && x.size(3) == image_[2]));
  if (!fits)
    throw ShapeError(fmt::format("{}: images must be [B, {}, {}, {}]; got {}", who(), image_[0],
                                 any_size_ ? "H" : std::to_string(image_[1]),
                                 any_size_ ? "W" : std::to_string(image_[2]), x.shape().str()));
  if (labels.defined() && labels.shape() != Shape{x.size(0)})
    throw ShapeError(fmt::format("{}: labels must be [{}], one for each image; got {}", who(),
                                 x.size(0), labels.shape().str()));
  return classify(x, labels, decode);
}

std::string ImageClassifier::summary() {
  const Shape blank{1, image_[0], image_[1], image_[2]};
  return layer_table(blank, [&] { (*this)(zeros(blank, parameters().front().dtype())); });
}

}  // namespace capsfw
