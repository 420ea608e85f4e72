#pragma once
// The capsule network for images.

#include <memory>
#include <string>
#include <vector>

#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/decoder.hpp>
#include <capsfw/layers/loss.hpp>

namespace capsfw {

/// Number and size of the capsules of a layer: "10x16".
struct CapsuleSize {
  std::int64_t count = 0, dim = 0;
};

/// One relu convolution in front of the capsules.
struct ConvStage {
  std::int64_t channels = 0, kernel = 0, stride = 1;
};

enum class DecoderKind { none, fully_connected, convolutional };

/// Options of CapsNet. Everything else follows from the size of the image: any channels, H ≠ W too.
struct CapsNetOptions {
  Shape image = {1, 28, 28};
  std::vector<ConvStage> convs = {};
  CapsuleSize primary = {32, 8};  ///< types and size of the primary capsules
  std::int64_t primary_kernel = 9, primary_stride = 2;
  double primary_squash_c = 1.0;
  std::vector<CapsuleSize> capsules = {
      {10, 16}};                    ///< dense capsule layers, the last one the classes
  DenseCapsulesOptions dense = {};  ///< noise class and partial sampling: last layer only
  DecoderKind decoder = DecoderKind::fully_connected;
  std::vector<std::int64_t> decoder_hidden = {512, 1024};

  /// The network of Sabour, Frosst, Hinton 2017, section 4: 8,215,568 parameters with decoder.
  static CapsNetOptions paper(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
  /// A network that trains in a minute or two on two cores.
  static CapsNetOptions compact(const Shape& image = {1, 28, 28}, std::int64_t classes = 10);
};

/// What CapsNet returns.
struct CapsNetOutput {
  Tensor lengths;    ///< class scores [B, J]: lengths, or activations where the routing has any
  Tensor poses;      ///< [B, J, D]
  Tensor couplings;  ///< of the last capsule layer [B, I, J]
  Tensor reconstruction;  ///< [B, C, H, W]; undefined without decoder
};

/// Options of capsnet_loss.
struct CapsNetLossOptions {
  MarginOptions margin = {};
  double reconstruction = 0.0005;  ///< weight of the sum of squared errors of an image
};

/// Convolutions, primary capsules, dense capsules, lengths; a decoder beside.
///
/// Stacks of dense layers start from weights that are scaled, layer by layer, so that images of
/// noise give primary and dense capsules of mean length ½ (as Mishkin, Matas 2016, "All you need is
/// a good init", do for variances). The squash shortens short capsules quadratically: from N(0,
/// 0.1²), which is right for a single layer, two layers of capsules start with lengths of 1e-12 and
/// gradients to match, and never learn. ShapeError if the image is too small or no [C, H, W];
/// ValueError for sizes below 1.
class CapsNet : public Module {
 public:
  explicit CapsNet(const CapsNetOptions& options, Rng& rng);

  /// x [B, C, H, W] in [0, 1]. The decoder sees the capsule of `labels` [B] (training), or without
  /// labels the longest one. `decode` = false leaves it out.
  CapsNetOutput forward(const Tensor& x, const Tensor& labels = {}, bool decode = true);
  CapsNetOutput operator()(const Tensor& x, const Tensor& labels = {}, bool decode = true) {
    return forward(x, labels, decode);
  }
  /// The image of given poses and class factors [B, J].
  Tensor decode(const Tensor& poses, const Tensor& factors);

  const CapsNetOptions& options() const { return options_; }
  /// Routing iterations of all dense capsule layers. ValueError for a number that the routing does
  /// not take.
  void set_routing_iterations(int n);
  int routing_iterations() const;
  /// The number of iterations that leaves the couplings uniform; −1 if there is none.
  int uniform_iterations() const;
  /// A table of the layers with output shapes and parameter counts; runs one blank image.
  std::string summary();

 private:
  void balance_lengths(Rng& rng);

  CapsNetOptions options_;
  std::vector<std::unique_ptr<Conv2d>> convs_;
  std::unique_ptr<PrimaryCapsules> primary_;
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
