#pragma once

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// Options of Linear.
struct LinearOptions {
  bool bias = true;  ///< add one number an output
};

/// y = x Wᵀ + b: x [..., in] -> [..., out]. W [out, in] and b [out] start uniform in ±1/√in.
class Linear : public Layer {
 public:
  Linear(std::int64_t in, std::int64_t out, Rng& rng, LinearOptions options = {});
  Tensor weight, bias;  ///< [out, in], [out]

 protected:
  Tensor forward(const Tensor& x) override;
};

/// Rows of a table: ids i64 [...] -> [..., size]. The table [count, size] starts standard normal.
class Embedding : public Layer {
 public:
  Embedding(std::int64_t count, std::int64_t size, Rng& rng);
  Tensor weight;  ///< [count, size]

 protected:
  Tensor forward(const Tensor& ids) override;
};

}  // namespace capsfw
