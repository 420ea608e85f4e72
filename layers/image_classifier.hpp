#pragma once
// What all networks for images have in common, so that one program trains, saves and compares them.

#include <string>

#include <capsfw/layers/classifier.hpp>

namespace capsfw {

/// A network from images to a score for each class.
class ImageClassifier : public Classifier {
 public:
  /// x [B, C, H, W] in [0, 1]. A decoder sees the capsule of `labels` i64 [B] (training), or
  /// without labels the one with the largest score; `decode` = false leaves it out. ShapeError
  /// unless x and labels fit.
  ClassifierOutput operator()(const Tensor& x, const Tensor& labels = {}, bool decode = true);

  /// [C, H, W] of the images that it is for.
  const Shape& image() const { return image_; }
  /// Whether it takes images of other heights and widths, too.
  bool any_size() const { return any_size_; }
  /// Whether it reconstructs images.
  virtual bool has_decoder() const { return false; }
  std::string summary() override;

 protected:
  /// `who` names the network in messages. ShapeError unless image is [C, H, W].
  ImageClassifier(std::string who, const Shape& image, std::int64_t classes);
  /// The scores of x, and the image if `decode`; of `labels` if they are defined.
  virtual ClassifierOutput classify(const Tensor& x, const Tensor& labels, bool decode) = 0;
  void set_any_size(bool on) { any_size_ = on; }  ///< see any_size

 private:
  Shape image_;
  bool any_size_ = false;
};

}  // namespace capsfw
