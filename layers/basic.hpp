#pragma once
// Layers without much of their own: activations, normalisation, dropout, and the chain.

#include <functional>
#include <memory>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// Any function of one tensor as a layer: Activation(relu).
class Activation : public Layer {
 public:
  explicit Activation(std::function<Tensor(const Tensor&)> f) : f_(std::move(f)) {}

 protected:
  Tensor forward(const Tensor& x) override { return f_(x); }

 private:
  std::function<Tensor(const Tensor&)> f_;
};

/// Inverted dropout: in training, elements are zeroed with probability p and the others divided by
/// 1 − p. Srivastava et al. 2014. Draws from its own Rng, split from the given one.
class Dropout : public Layer {
 public:
  /// ValueError unless 0 ≤ p < 1: unlike the op, which also takes p = 1 and leaves nothing.
  Dropout(double p, Rng& rng);

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  double p_;
  Rng rng_;
};

/// Options of the normalisation layers. What is out of range is a ValueError of the op, when the
/// layer is called.
struct NormOptions {
  double eps = 1e-5;        ///< added to the variance, at least 0
  double momentum = 0.1;    ///< of the running statistics (batch norm), in [0, 1]
  bool relu_first = false;  ///< normalise max(x, 0), which saves two passes (batch norm)
};

/// Normalises each channel of x [B, C, H, W] over batch and positions, then scales and shifts.
/// Ioffe, Szegedy 2015. Buffers running_mean and running_var serve evaluation.
class BatchNorm2d : public Layer {
 public:
  explicit BatchNorm2d(std::int64_t channels, NormOptions options = {});
  Tensor weight, bias;  ///< parameters [features]

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  NormOptions options_;
  Tensor mean_, var_;
};

/// Normalises over the last axis, then scales and shifts. Ba, Kiros, Hinton 2016.
class LayerNorm : public Layer {
 public:
  explicit LayerNorm(std::int64_t size, NormOptions options = {});
  Tensor weight, bias;  ///< parameters

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  NormOptions options_;
};

/// Normalises each sample of x [B, channels, ...] over `groups` equal stretches of its channels and
/// all positions, then scales and shifts each channel: the same in training and evaluation, for any
/// batch. Wu, He 2018.
class GroupNorm : public Layer {
 public:
  GroupNorm(std::int64_t groups, std::int64_t channels, NormOptions options = {});
  Tensor weight, bias;  ///< parameters [channels]

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::int64_t groups_;
  NormOptions options_;
};

/// Layers one after the other; children are named "0", "1", ...
class Sequential : public Layer {
 public:
  Sequential() = default;
  /// Makes a layer at the end and returns it: net.add<Linear>(784, 10, rng).
  template <class L, class... A>
  L& add(A&&... args) {
    auto layer = std::make_unique<L>(std::forward<A>(args)...);
    L& ref = *layer;
    append(std::move(layer));
    return ref;
  }
  std::size_t size() const { return layers_.size(); }  ///< number of layers

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  void append(std::unique_ptr<Layer> layer);
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace capsfw
