#include "balance.hpp"

#include <algorithm>
#include <cmath>

#include <capsfw/layers/capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>

namespace capsfw::detail {

void scale_to_half_length(const TensorList& weights, const std::function<Tensor()>& run) {
  double before = -1;  // the length does not move where weights are normalised
  for (int i = 0; i < 20; ++i) {
    const double length = std::clamp(mean(lengths(run())).item(), 1e-6, 1 - 1e-6);
    if (std::abs(length - 0.5) < 0.02 || std::abs(length - before) < 1e-7) break;
    before = length;
    for (Tensor w : weights) w.copy_(w * std::sqrt((1 - length) / length));
  }
}

}  // namespace capsfw::detail
