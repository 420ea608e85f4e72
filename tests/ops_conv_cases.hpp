#pragma once
// Geometries for the tests of convolutions, and the definition as a plain loop.

#include "ops_support.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/conv.hpp>

namespace capsfw::test {

struct Case {
  Shape x, weight;
  ConvOptions options;
  std::string str() const {
    return "x " + x.str() + " weight " + weight.str() + " stride " + options.stride.str() +
           " padding " + options.padding.str() + " dilation " + options.dilation.str() +
           " groups " + std::to_string(options.groups);
  }
  Dims size() const { return {x[2], x[3]}; }
  Dims kernel() const { return {weight[2], weight[3]}; }
  /// Length of an axis of the result; 0 or less where the kernel does not fit.
  std::int64_t out(int a) const {
    const ConvOptions& o = options;
    const std::int64_t room = size()[a] + 2 * o.padding[a] - o.dilation[a] * (kernel()[a] - 1) - 1;
    return room < 0 ? 0 : room / o.stride[a] + 1;
  }
  Shape y() const { return {x[0], weight[0], out(0), out(1)}; }
};

/// Calls f(index in y, index in x, index in weight) for every product of the definition.
template <class F>
void each_product(const Case& c, const F& f) {
  const ConvOptions& o = c.options;
  const std::int64_t filters = c.weight[0] / o.groups, channels = c.weight[1];
  std::size_t y = 0;
  for (std::int64_t b = 0; b < c.x[0]; ++b)
    for (std::int64_t k = 0; k < c.weight[0]; ++k)
      for (std::int64_t i = 0; i < c.out(0); ++i)
        for (std::int64_t j = 0; j < c.out(1); ++j, ++y)
          for (std::int64_t t = 0; t < channels * c.kernel().numel(); ++t) {
            const std::int64_t q = t % c.weight[3], p = t / c.weight[3] % c.weight[2],
                               channel = k / filters * channels + t / c.kernel().numel(),
                               row = i * o.stride[0] + p * o.dilation[0] - o.padding[0],
                               column = j * o.stride[1] + q * o.dilation[1] - o.padding[1];
            if (row < 0 || column < 0 || row >= c.x[2] || column >= c.x[3]) continue;
            f(y,
              static_cast<std::size_t>(((b * c.x[1] + channel) * c.x[2] + row) * c.x[3] + column),
              static_cast<std::size_t>(k * channels * c.kernel().numel() + t));
          }
}

/// Largest difference in units of the largest element.
inline double distance(const Tensor& a, const Values& b) {
  const Values p = values(a);
  REQUIRE(p.size() == b.size());
  double worst = 0, largest = 1e-30;
  for (std::size_t i = 0; i < p.size(); ++i) {
    worst = std::max(worst, std::isfinite(p[i]) ? std::abs(p[i] - b[i]) : INFINITY);
    largest = std::max(largest, std::abs(b[i]));
  }
  return worst / largest;
}

/// Shapes that take every way through the kernels: several blocks, bands of large images, slices of
/// channels and of filters, parts of the batch, plain matrix products.
inline const std::vector<Case> kLargeCases = {
    {{9, 3, 11, 9}, {5, 3, 3, 2}, {.stride = {2, 1}, .padding = {1, 1}}},
    {{1, 40, 13, 37}, {50, 40, 3, 3}, {.padding = {1, 1}}},
    {{2, 3, 70, 50}, {4, 3, 5, 3}, {.stride = {2, 3}, .dilation = {2, 1}}},
    {{1, 2, 100, 60}, {9, 2, 3, 3}, {.padding = {1, 1}}},
    {{33, 20, 6, 6}, {24, 20, 3, 3}, {}},
    {{3, 18, 12, 10}, {70, 9, 2, 3}, {.dilation = {1, 2}, .groups = 2}},
    {{2, 48, 20, 20}, {60, 48, 9, 9}, {.stride = {2, 2}}},
    {{5, 30, 9, 8}, {20, 30, 1, 1}, {}},
    {{40, 6, 3, 3}, {8, 6, 1, 1}, {.stride = {2, 2}}},
    {{4, 12, 9, 9}, {12, 1, 9, 9}, {.groups = 12}},
    {{4, 12, 10, 9}, {12, 1, 3, 3}, {.groups = 12}},
    {{70, 40, 9, 5}, {40, 1, 9, 5}, {.stride = {2, 3}, .groups = 40}},
    {{6, 6, 4, 5}, {9, 2, 4, 5}, {.groups = 3}},
    {{33, 8, 6, 6}, {50, 8, 6, 6}, {}},
};

inline const std::vector<Case> kSmallCases = {
    {{2, 2, 5, 4}, {3, 2, 3, 2}, {.padding = {1, 0}}},
    {{2, 4, 5, 6}, {4, 2, 2, 3}, {.stride = {2, 1}, .groups = 2}},
    {{1, 1, 7, 6}, {2, 1, 3, 2}, {.stride = {1, 2}, .padding = {2, 1}, .dilation = {2, 3}}},
    {{1, 3, 1, 1}, {2, 3, 1, 1}, {}},
    {{3, 4, 3, 2}, {4, 1, 3, 2}, {.groups = 4}},
    {{2, 4, 2, 3}, {6, 2, 2, 3}, {.groups = 2}},
};

}  // namespace capsfw::test
