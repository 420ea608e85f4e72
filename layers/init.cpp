#include <capsfw/layers/init.hpp>

#include <cmath>

#include <fmt/format.h>

namespace capsfw::init {
namespace {

struct Fans {
  double in, out;
};

Fans fans(const Shape& shape, std::string_view who) {
  if (shape.rank() < 2)
    throw ShapeError(fmt::format("{}: takes a weight [out, in, ...]; got {}", who, shape.str()));
  double rest = 1;
  for (int i = 2; i < shape.rank(); ++i) rest *= static_cast<double>(shape[i]);
  return {static_cast<double>(shape[1]) * rest, static_cast<double>(shape[0]) * rest};
}

}  // namespace

Tensor normal(const Shape& shape, double std, Rng& rng, DType dtype) {
  return rng.normal(shape, 0, std, dtype);
}
Tensor uniform(const Shape& shape, double bound, Rng& rng, DType dtype) {
  return rng.uniform(shape, -bound, bound, dtype);
}

Tensor xavier_uniform(const Shape& shape, Rng& rng, DType dtype) {
  const Fans f = fans(shape, "xavier_uniform");
  return uniform(shape, std::sqrt(6 / (f.in + f.out)), rng, dtype);
}

Tensor xavier_normal(const Shape& shape, Rng& rng, DType dtype) {
  const Fans f = fans(shape, "xavier_normal");
  return normal(shape, std::sqrt(2 / (f.in + f.out)), rng, dtype);
}

Tensor kaiming_uniform(const Shape& shape, Rng& rng, double gain, DType dtype) {
  return uniform(shape, gain * std::sqrt(3 / fans(shape, "kaiming_uniform").in), rng, dtype);
}

Tensor kaiming_normal(const Shape& shape, Rng& rng, double gain, DType dtype) {
  return normal(shape, gain / std::sqrt(fans(shape, "kaiming_normal").in), rng, dtype);
}

Tensor by_name(std::string_view name, const Shape& shape, Rng& rng, DType dtype) {
  if (name == "zeros") return zeros(shape, dtype);
  if (name == "ones") return ones(shape, dtype);
  if (name == "xavier_uniform") return xavier_uniform(shape, rng, dtype);
  if (name == "xavier_normal") return xavier_normal(shape, rng, dtype);
  if (name == "kaiming_uniform") return kaiming_uniform(shape, rng, std::sqrt(2.0), dtype);
  if (name == "kaiming_normal") return kaiming_normal(shape, rng, std::sqrt(2.0), dtype);
  throw ValueError(
      fmt::format("init: names are zeros, ones, xavier_uniform, xavier_normal, kaiming_uniform, "
                  "kaiming_normal; got '{}'",
                  name));
}

}  // namespace capsfw::init
