#include <capsfw/layers/linear.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/matmul.hpp>

namespace capsfw {

Linear::Linear(std::int64_t in, std::int64_t out, Rng& rng, LinearOptions options) {
  if (in < 1 || out < 1)
    throw ValueError(
        fmt::format("Linear: sizes must be at least 1; got in = {}, out = {}", in, out));
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  weight = param("weight", init::uniform({out, in}, bound, rng));
  if (options.bias) bias = param("bias", init::uniform({out}, bound, rng));
}

Tensor Linear::forward(const Tensor& x) { return linear(x, weight, bias); }

Embedding::Embedding(std::int64_t count, std::int64_t size, Rng& rng) {
  if (count < 1 || size < 1)
    throw ValueError(
        fmt::format("Embedding: sizes must be at least 1; got {} rows of {}", count, size));
  weight = param("weight", init::normal({count, size}, 1, rng));
}

Tensor Embedding::forward(const Tensor& ids) { return embedding(weight, ids); }

}  // namespace capsfw
