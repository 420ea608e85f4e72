#pragma once
// The capsule network for images.

#include <memory>
#include <string>
#include <vector>

#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/conv_stages.hpp>
#include <capsfw/layers/decoder.hpp>
#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/layers/loss.hpp>

namespace capsfw {

/// Number and size of the capsules of a layer: "10x16".
struct CapsuleSize {
  std::int64_t count = 0, dim = 0;  ///< capsules, entries of each
};

/// How the first capsules are made of the last map.
enum class PrimaryKind {
  convolution,  ///< PrimaryCapsules
  depthwise,    ///< DepthwisePrimaryCapsules: one filter per channel, squash_exp
  positions     ///< every position of the map is a capsule, its channels are the pose, no squash
};

/// What reconstructs the image.
enum class DecoderKind { none, fully_connected, convolutional };

/// Options of CapsNet. Everything else follows from the size of the image: any channels, H ≠ W too.
struct CapsNetOptions {
  Shape image = {1, 28, 28};                            ///< channels, height, width
  std::vector<ConvStage> convs = {};                    ///< convolutions before the capsules
  std::string conv_init = {};                           ///< "kaiming_normal", ..., see ConvStages
  PrimaryKind primary_kind = PrimaryKind::convolution;  ///< how primary capsules are made
  CapsuleSize primary = {32, 8};  ///< types and size of the primary capsules (not `positions`)
  /// Not `positions`. Kernel 0: the whole map (depthwise).
  std::int64_t primary_kernel = 9, primary_stride = 2;
  double primary_squash_c = 1.0;  ///< constant of their squash (`convolution`)
  std::vector<CapsuleSize> capsules = {
      {10, 16}};                    ///< dense capsule layers, the last one the classes
  DenseCapsulesOptions dense = {};  ///< noise class and partial sampling: last layer only
  DecoderKind decoder = DecoderKind::fully_connected;      ///< what reconstructs the image
  std::vector<std::int64_t> decoder_hidden = {512, 1024};  ///< its widths if fully connected

  /// The network of Sabour, Frosst, Hinton 2017, section 4: 8,215,568 parameters with decoder.
  static CapsNetOptions paper(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
  /// A network that trains in a minute or two on two cores.
  static CapsNetOptions compact(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
  /// A network for experiments with many runs, without a decoder: 16 channels, 8 types of primary
  /// capsules, classes of size 8: 108,000 parameters.
  static CapsNetOptions small(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
  /// 161,824 trainable parameters without its decoder, 16 primary capsules, self-attention routing.
  /// For Adam at 5e-4, times 0.97 an epoch, in batches of 16.   Mazzia, Salvetti, Chiaberge 2021,
  /// Efficient-CapsNet, section 3.
  static CapsNetOptions efficient(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
  /// A network for images of any size (see CapsNet) that learns from single digits to find two:
  /// four relu convolutions of 3x3 with a mean over 2x2 in the middle, every position of the map a
  /// capsule, shared votes. Starts uniform as in Glorot, Bengio 2010. 279,488 parameters.   Su
  /// 2018, From K-Means to Capsule, experiments.
  static CapsNetOptions two_digits(const RoutingSpec& routing,
                                   const Shape& image = {1, 28, 28},
                                   std::int64_t classes = 10);
};

/// What CapsNet returns: `lengths` are activations where the routing has any.
using CapsNetOutput = ClassifierOutput;

/// Options of capsnet_loss.
struct CapsNetLossOptions {
  MarginOptions margin = {};       ///< of the lengths
  double reconstruction = 0.0005;  ///< weight of the sum of squared errors of an image
};

/// Convolutions, primary capsules, dense capsules, lengths; a decoder beside. With shared votes, a
/// single dense layer, a routing without parameters for every child, no decoder and primary
/// capsules that are not depthwise it takes images of any size.
///
/// Stacks of dense layers start from weights that are scaled, layer by layer, so that images of
/// noise give primary and dense capsules of mean length ½ (as Mishkin, Matas 2016, "All you need is
/// a good init", do for variances). The squash shortens short capsules quadratically: from N(0,
/// 0.1²), which is right for a single layer, two layers of capsules start with lengths of 1e-12 and
/// gradients to match, and never learn. The same is done where a routing has starting values of its
/// own, as EM has (Routing::balance). ShapeError if the image is too small or no [C, H, W];
/// ValueError for sizes below 1.
class CapsNet : public ImageClassifier {
 public:
  explicit CapsNet(const CapsNetOptions& options, Rng& rng);

  /// The image of given poses and class factors [B, J].
  Tensor decode(const Tensor& poses, const Tensor& factors);

  /// Poses of the first capsules [B, I, E], the children of capsule_layers()[0].
  Tensor primary_capsules(const Tensor& x);
  /// [types, rows, columns] of the first capsules of an image of image(): capsule (t·rows +
  /// y)·columns
  /// + x is of type t at (y, x).
  const Shape& primary_grid() const { return primary_grid_; }
  /// The dense capsule layers; the last one makes the classes.
  const std::vector<std::unique_ptr<DenseCapsules>>& capsule_layers() const { return dense_; }

  const CapsNetOptions& options() const { return options_; }
  bool has_decoder() const override { return decoder_ != nullptr; }
  void set_routing_iterations(int n) override;
  int routing_iterations() const override;
  int uniform_iterations() const override;

 protected:
  ClassifierOutput classify(const Tensor& x, const Tensor& labels, bool decode) override;

 private:
  CapsuleSize add_primary(Rng& rng);
  void balance(Rng& rng);

  CapsNetOptions options_;
  Shape primary_grid_;
  ConvStages convs_;
  std::unique_ptr<Layer> primary_;
  std::vector<std::unique_ptr<DenseCapsules>> dense_;
  std::unique_ptr<Layer> decoder_;
};

/// margin_loss + reconstruction_loss of an output; targets [B, J] in {0, 1}.   Sabour et al. 2017,
/// section 4.1.
Tensor capsnet_loss(const CapsNetOutput& out,
                    const Tensor& images,
                    const Tensor& targets,
                    const CapsNetLossOptions& options = {});

/// "32x8,10x16" as sizes. ValueError naming the part that is wrong.
std::vector<CapsuleSize> parse_capsules(std::string_view text);

}  // namespace capsfw
