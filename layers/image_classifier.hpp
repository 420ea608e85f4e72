#pragma once
// What all networks for images have in common, so that one program trains, saves and compares them.

#include <string>

#include <capsfw/layers/module.hpp>

namespace capsfw {

/// What an ImageClassifier returns. Undefined tensors are absent.
struct ClassifierOutput {
  Tensor lengths;     ///< class scores [B, J]: lengths of capsules, activations, or probabilities
  Tensor poses = {};  ///< of the class capsules [B, J, D]
  Tensor couplings = {};       ///< of the last capsule layer [B, I, J]
  Tensor reconstruction = {};  ///< [B, C, H, W]
  /// [B, J], unbounded: networks without capsules have lengths = sigmoid(logits).
  Tensor logits = {};
};

/// A network from images to a score for each class.
class ImageClassifier : public Module {
 public:
  /// x [B, C, H, W] in [0, 1]. A decoder sees the capsule of `labels` i64 [B] (training), or
  /// without labels the one with the largest score; `decode` = false leaves it out. ShapeError
  /// unless x and labels fit.
  ClassifierOutput operator()(const Tensor& x, const Tensor& labels = {}, bool decode = true);

  /// [C, H, W] of the images that it is for.
  const Shape& image() const { return image_; }
  std::int64_t classes() const { return classes_; }
  /// Whether it takes images of other heights and widths, too.
  bool any_size() const { return any_size_; }
  virtual bool has_decoder() const { return false; }
  /// Routing iterations of all layers; 0: there is no routing. ValueError for a number that the
  /// routing does not take.
  virtual int routing_iterations() const { return 0; }
  virtual void set_routing_iterations(int n);
  /// The number of iterations that leaves the couplings uniform; −1 if there is none.
  virtual int uniform_iterations() const { return -1; }
  /// A table of the layers with output shapes and parameter counts; runs one blank image.
  virtual std::string summary();

 protected:
  /// `who` names the network in messages. ShapeError unless image is [C, H, W].
  ImageClassifier(std::string who, const Shape& image, std::int64_t classes);
  virtual ClassifierOutput classify(const Tensor& x, const Tensor& labels, bool decode) = 0;
  void set_any_size(bool on) { any_size_ = on; }

 private:
  std::string who_;
  Shape image_;
  std::int64_t classes_;
  bool any_size_ = false;
};

}  // namespace capsfw
