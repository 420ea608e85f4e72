#include <capsfw/layers/conv.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>

namespace capsfw {
namespace {

void check_sizes(
    const char* who, std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t groups) {
  if (in < 1 || out < 1 || kernel < 1 || groups < 1 || in % groups != 0 || out % groups != 0)
    throw ValueError(
        fmt::format("{}: sizes must be at least 1 and channels divisible by groups; got in = {}, "
                    "out = {}, kernel = {}, groups = {}",
                    who, in, out, kernel, groups));
}

}  // namespace

Conv2d::Conv2d(std::int64_t in, std::int64_t out, std::int64_t kernel, Rng& rng, Conv2dOptions o)
    : geometry_{.stride = {o.stride, o.stride},
                .padding = {o.padding, o.padding},
                .dilation = {o.dilation, o.dilation},
                .groups = o.groups} {
  check_sizes("Conv2d", in, out, kernel, o.groups);
  const std::int64_t in_group = in / o.groups;
  const double bound = 1 / std::sqrt(static_cast<double>(in_group * kernel * kernel));
  weight = param("weight", init::uniform({out, in_group, kernel, kernel}, bound, rng));
  if (o.bias) bias = param("bias", init::uniform({out}, bound, rng));
}

Tensor Conv2d::forward(const Tensor& x) { return conv2d(x, weight, bias, geometry_); }

ConvTranspose2d::ConvTranspose2d(
    std::int64_t in, std::int64_t out, std::int64_t kernel, Rng& rng, ConvTranspose2dOptions o)
    : geometry_{.stride = {o.stride, o.stride},
                .padding = {o.padding, o.padding},
                .dilation = {o.dilation, o.dilation},
                .groups = o.groups},
      output_padding_{o.output_padding, o.output_padding} {
  check_sizes("ConvTranspose2d", in, out, kernel, o.groups);
  const std::int64_t out_group = out / o.groups;
  const double bound = 1 / std::sqrt(static_cast<double>(out_group * kernel * kernel));
  weight = param("weight", init::uniform({in, out_group, kernel, kernel}, bound, rng));
  if (o.bias) bias = param("bias", init::uniform({out}, bound, rng));
}

Tensor ConvTranspose2d::forward(const Tensor& x) {
  return conv_transpose2d(x, weight, bias, geometry_, output_padding_);
}

}  // namespace capsfw
