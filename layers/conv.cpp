#include <capsfw/layers/conv.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>

namespace capsfw {

Conv2d::Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, Rng& rng, Conv2dOptions o)
    : geometry_{.stride = {o.stride, o.stride},
                .padding = {o.padding, o.padding},
                .dilation = {o.dilation, o.dilation},
                .groups = o.groups} {
  if (in < 1 || out < 1 || kernel < 1 || o.groups < 1 || in % o.groups != 0 || out % o.groups != 0)
    throw ValueError(
        fmt::format("Conv2d: sizes must be at least 1 and channels divisible by groups; got in = "
                    "{}, out = {}, kernel = {}, groups = {}",
                    in, out, kernel, o.groups));
  const std::int64_t in_group = in / o.groups;
  const double bound = 1 / std::sqrt(static_cast<double>(in_group * kernel * kernel));
  weight = param("weight", init::uniform({out, in_group, kernel, kernel}, bound, rng));
  if (o.bias) bias = param("bias", init::uniform({out}, bound, rng));
}

Tensor Conv2d::forward(const Tensor& x) { return conv2d(x, weight, bias, geometry_); }

}  // namespace capsfw
