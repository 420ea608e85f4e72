#pragma once
// Pooling as layers, for chains; the functions are those of ops/pool.hpp. No parameters.

#include <capsfw/layers/module.hpp>
#include <capsfw/ops/pool.hpp>

namespace capsfw {

/// max_pool2d: x [B, C, H, W] -> [B, C, Ho, Wo]. Errors, of bad sizes too, come with the first
/// image.
class MaxPool2d : public Layer {
 public:
  /// A window of {rows, columns}.
  explicit MaxPool2d(const Dims& kernel, const PoolOptions& options = {})
      : kernel_(kernel), options_(options) {}
  /// A square window.
  explicit MaxPool2d(std::int64_t kernel, const PoolOptions& options = {})
      : MaxPool2d(Dims{kernel, kernel}, options) {}

 protected:
  Tensor forward(const Tensor& x) override { return max_pool2d(x, kernel_, options_); }

 private:
  Dims kernel_;
  PoolOptions options_;
};

/// avg_pool2d, as MaxPool2d.
class AvgPool2d : public Layer {
 public:
  /// A window of {rows, columns}.
  explicit AvgPool2d(const Dims& kernel, const PoolOptions& options = {})
      : kernel_(kernel), options_(options) {}
  /// A square window.
  explicit AvgPool2d(std::int64_t kernel, const PoolOptions& options = {})
      : AvgPool2d(Dims{kernel, kernel}, options) {}

 protected:
  Tensor forward(const Tensor& x) override { return avg_pool2d(x, kernel_, options_); }

 private:
  Dims kernel_;
  PoolOptions options_;
};

/// adaptive_max_pool2d: [B, C, H, W] -> [B, C, rows, columns] for any H and W.
class AdaptiveMaxPool2d : public Layer {
 public:
  explicit AdaptiveMaxPool2d(const Dims& output_size = {1, 1}) : size_(output_size) {}

 protected:
  Tensor forward(const Tensor& x) override { return adaptive_max_pool2d(x, size_); }

 private:
  Dims size_;
};

/// adaptive_avg_pool2d: [B, C, H, W] -> [B, C, rows, columns] for any H and W; by default the mean
/// of the whole map (Lin, Chen, Yan 2014, Network in Network, section 3.2).
class AdaptiveAvgPool2d : public Layer {
 public:
  explicit AdaptiveAvgPool2d(const Dims& output_size = {1, 1}) : size_(output_size) {}

 protected:
  Tensor forward(const Tensor& x) override { return adaptive_avg_pool2d(x, size_); }

 private:
  Dims size_;
};

}  // namespace capsfw
