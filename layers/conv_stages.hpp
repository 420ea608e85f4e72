#pragma once
// The convolutions in front of capsules or classes, one list for all networks.

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/se.hpp>

namespace capsfw {

/// One convolution without padding, then relu, then what is asked for, in this order.
struct ConvStage {
  std::int64_t channels = 0, kernel = 0, stride = 1;  ///< of one convolution
  bool batch_norm = false;                            ///< BatchNorm2d
  std::int64_t se_reduction = 0;                      ///< SEBlock with this reduction; 0: none
  std::int64_t pool = 1;  ///< mean over windows of so many rows and columns
};

/// Convolutions one after the other. Not a module: the network that has it registers layers() as
/// its own, so that paths read "conv1.weight".
class ConvStages {
 public:
  /// `who` names the network in messages. `init` is a name for init::by_name, for the weights, and
  /// sets biases to 0; empty: as Conv2d starts.   ShapeError where an image is too small.
  ConvStages(const char* who,
             const Shape& image,
             const std::vector<ConvStage>& stages,
             Rng& rng,
             std::string_view init = "");
  Tensor operator()(const Tensor& x) const;  ///< x [B, C, H, W] through all stages.
  /// [C, H, W] of the last map.
  const Shape& output() const { return output_; }
  /// conv1, norm1, se1, conv2, ...
  const std::vector<std::pair<std::string, Layer*>>& layers() const { return layers_; }

 private:
  struct Stage {
    std::unique_ptr<Conv2d> conv;
    std::unique_ptr<BatchNorm2d> norm;
    std::unique_ptr<SEBlock> gate;
    std::int64_t pool;
  };
  std::vector<Stage> stages_;
  std::vector<std::pair<std::string, Layer*>> layers_;
  Shape output_;
};

namespace detail {
/// Positions of a kernel on `n` pixels. ShapeError "who: layer: a kernel of ... does not fit".
std::int64_t conv_size(
    const char* who, const char* layer, std::int64_t n, std::int64_t kernel, std::int64_t stride);
}  // namespace detail

}  // namespace capsfw
