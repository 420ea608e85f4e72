#pragma once
// The multilayer perceptron as a classifier of images.

#include <string>
#include <vector>

#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/layers/mlp.hpp>

namespace capsfw {

/// Options of MlpNet.
struct MlpNetOptions {
  Shape image = {1, 28, 28};                    ///< channels, height, width
  std::vector<std::int64_t> hidden = {64, 64};  ///< widths of the layers between; may be none
  std::string activation = "tanh";              ///< of these layers, see activation()
  std::int64_t classes = 10;                    ///< number of classes
};

/// An Mlp over all pixels. Its output are the logits; lengths are sigmoid(logits), as those of
/// ConvNet.   ShapeError unless the image is [C, H, W]; ValueError for sizes below 1 and unknown
/// activations.
class MlpNet : public ImageClassifier {
 public:
  MlpNet(const MlpNetOptions& options, Rng& rng);
  const Mlp& mlp() const { return mlp_; }  ///< the perceptron inside
  const MlpNetOptions& options() const { return options_; }

 protected:
  ClassifierOutput classify(const Tensor& x, const Tensor& labels, bool decode) override;

 private:
  MlpNetOptions options_;
  Mlp mlp_;
};

}  // namespace capsfw
