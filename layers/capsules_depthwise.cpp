#include <capsfw/layers/capsules_depthwise.hpp>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {

DepthwisePrimaryCapsules::DepthwisePrimaryCapsules(std::int64_t types,
                                                   std::int64_t dim,
                                                   const Dims& map,
                                                   Rng& rng,
                                                   DepthwisePrimaryCapsulesOptions o)
    : types_(types), dim_(dim), map_(map), options_(std::move(o)) {
  const char* who = "DepthwisePrimaryCapsules";
  if (types < 1 || dim < 1 || options_.stride < 1)
    throw ValueError(
        fmt::format("{}: sizes must be at least 1; got {} types of {} and a stride of {}", who,
                    types, dim, options_.stride));
  if (map.rank() != 2 || options_.kernel.rank() != 2)
    throw ValueError(fmt::format("{}: map and kernel are {{rows, columns}}; got {} and {}", who,
                                 map.str(), options_.kernel.str()));
  Dims& kernel = options_.kernel;
  out_ = map;
  for (int a = 0; a < 2; ++a) {
    if (kernel[a] == 0) kernel[a] = map[a];
    if (kernel[a] < 1 || kernel[a] > map[a])
      throw ValueError(fmt::format("{}: a kernel must lie between 1 and the map; got {} for {}",
                                   who, kernel.str(), map.str()));
    out_[a] = (map[a] - kernel[a]) / options_.stride + 1;
  }
  const std::int64_t channels = types * dim;
  weight = param("weight", init::kaiming_normal({channels, 1, kernel[0], kernel[1]}, rng));
  bias = param("bias", zeros({channels}));
}

Tensor DepthwisePrimaryCapsules::forward(const Tensor& x) {
  const std::int64_t channels = types_ * dim_;
  if (x.dim() != 4 || x.size(1) != channels || x.size(2) != map_[0] || x.size(3) != map_[1])
    throw ShapeError(fmt::format("DepthwisePrimaryCapsules '{}': x must be [B, {}, {}, {}]; got {}",
                                 name(), channels, map_[0], map_[1], x.shape().str()));
  ConvOptions geometry{.stride = {options_.stride, options_.stride}};
  geometry.groups = channels;
  const Tensor z = conv2d(x, weight, bias, geometry);
  const Tensor grouped =
      permute(reshape(z, {x.size(0), types_, dim_, out_[0], out_[1]}), {0, 1, 3, 4, 2});
  const Tensor capsules = reshape(grouped, {x.size(0), count(), dim_});
  return options_.squash ? options_.squash(capsules) : squash_exp(capsules);
}

}  // namespace capsfw
