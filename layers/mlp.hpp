#pragma once
// The multilayer perceptron, and its layers laid open for those who look into it.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// An elementwise function by its name: tanh, sigmoid, softplus, relu, identity. ValueError listing
/// the names.
std::function<Tensor(const Tensor&)> activation(std::string_view name);

/// h' = g(W h + b): weight [out, in], bias [out] or undefined, g elementwise.
struct MlpLayer {
  Tensor weight, bias;                              ///< [out, in], [out]
  std::function<Tensor(const Tensor&)> activation;  ///< g; empty: the identity
};

/// Options of Mlp.
struct MlpOptions {
  std::string activation = "relu";  ///< of the layers between
  std::string last = "identity";    ///< of the last layer
  bool bias = true;                 ///< in every layer
};

/// Linear layers with activations: x [B, ...] -> [B, sizes.back()], with sizes.front() elements per
/// sample. Parameters "weight1", "bias1", ... start uniform in ±1/√in, as those of Linear.
/// ValueError for fewer than two sizes, or one below 1; ShapeError if x does not fit.
class Mlp : public Layer {
 public:
  Mlp(const std::vector<std::int64_t>& sizes, Rng& rng, const MlpOptions& options = {});
  /// The layers in order; they share the parameters.
  const std::vector<MlpLayer>& layers() const { return layers_; }

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::vector<MlpLayer> layers_;
};

}  // namespace capsfw
