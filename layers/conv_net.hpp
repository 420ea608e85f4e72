#pragma once
// Baselines without capsules: a convolutional network, with or without squeeze-and-excitation
// gates, as large as the capsule network that it is compared with.

#include <memory>
#include <vector>

#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/linear.hpp>

namespace capsfw {

/// Options of ConvNet.
struct ConvNetOptions {
  Shape image = {1, 28, 28};          ///< channels, height, width
  std::vector<ConvStage> convs = {};  ///< convolutions, in order
  std::string conv_init = {};         ///< as in CapsNetOptions
  bool global_pool = false;   ///< means of the last map instead of all of it: images of any size
  std::int64_t hidden = 128;  ///< units of the relu layer before the classes
  std::int64_t classes = 10;  ///< number of classes

  /// The same convolutions as a capsule network, the one of its primary capsules included, and as
  /// many hidden units as make the number of parameters that of the capsule network without its
  /// decoder as nearly as they can. `se_reduction`: of an SEBlock behind each convolution; 0: none.
  /// ValueError if that is more than 2 % off (capsules with shared votes, for example, have fewer
  /// parameters than any dense layer) or if the primary capsules are no convolution.
  static ConvNetOptions beside(const CapsNetOptions& capsules, std::int64_t se_reduction = 0);
  /// The baseline of CapsNetOptions::two_digits: its convolutions, global means, 128 hidden units;
  /// 276,810 parameters.   Su 2018, From K-Means to Capsule, experiments.
  static ConvNetOptions two_digits(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
};

/// Convolutions, a hidden relu layer over what is left of the map, and a number in (0, 1) for each
/// class, which stands where a capsule network has the length of a capsule: lengths are
/// sigmoid(logits), for margin_loss and accuracy; for cross_entropy take the logits beside them.
/// ShapeError if the image is too small; ValueError for sizes below 1.   Gates: Hu, Shen, Sun 2018.
class ConvNet : public ImageClassifier {
 public:
  ConvNet(const ConvNetOptions& options, Rng& rng);
  const ConvNetOptions& options() const { return options_; }

 protected:
  ClassifierOutput classify(const Tensor& x, const Tensor& labels, bool decode) override;

 private:
  ConvNetOptions options_;
  ConvStages convs_;
  std::unique_ptr<Linear> hidden_, classes_;
};

}  // namespace capsfw
