#pragma once
// A baseline without capsules: a convolutional network with squeeze-and-excitation gates, as large
// as the capsule network that it is compared with.

#include <memory>
#include <vector>

#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/se.hpp>

namespace capsfw {

/// Options of SENet.
struct SENetOptions {
  Shape image = {1, 28, 28};
  std::vector<ConvStage> convs = {};  ///< relu convolutions, each with an SEBlock behind it
  std::int64_t hidden = 128;          ///< units of the relu layer before the classes
  std::int64_t classes = 10;
  std::int64_t reduction = 16;  ///< of the SEBlocks

  /// The same convolutions as a capsule network, the one of its primary capsules included, and as
  /// many hidden units as make the number of parameters that of the capsule network without its
  /// decoder as nearly as they can, at least one for each class. ValueError if that is more than 2
  /// % off (capsules with shared votes, for example, have fewer parameters than any dense layer).
  static SENetOptions beside(const CapsNetOptions& capsules);
};

/// Convolutions with gates (relu, then SEBlock), a hidden relu layer over what is left of the map,
/// and a number in (0, 1) for each class, which stands where the capsule network has the length of
/// a capsule: x [B, C, H, W] -> sigmoid(logits) [B, classes], for margin_loss and accuracy; for
/// cross_entropy take logits().   ShapeError if the image is too small or another one than
/// announced; ValueError for sizes below 1.   Gates: Hu, Shen, Sun 2018.
class SENet : public Layer {
 public:
  SENet(const SENetOptions& options, Rng& rng);
  /// [B, classes], unbounded.
  Tensor logits(const Tensor& x);
  const SENetOptions& options() const { return options_; }

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  SENetOptions options_;
  std::vector<std::unique_ptr<Conv2d>> convs_;
  std::vector<std::unique_ptr<SEBlock>> gates_;
  std::unique_ptr<Linear> hidden_, classes_;
};

}  // namespace capsfw
