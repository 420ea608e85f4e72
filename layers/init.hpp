#pragma once
// Initial values of weights. For a weight [out, in, ...], fan_in = in · (the rest), fan_out = out ·
// (the rest).

#include <string_view>

#include <capsfw/core/random.hpp>

namespace capsfw::init {

/// N(0, std²).
Tensor normal(const Shape& shape, double std, Rng& rng, DType dtype = DType::f32);
/// U(−bound, bound).
Tensor uniform(const Shape& shape, double bound, Rng& rng, DType dtype = DType::f32);
/// U(±√(6 / (fan_in + fan_out))).   Glorot, Bengio 2010, eq (16).
Tensor xavier_uniform(const Shape& shape, Rng& rng, DType dtype = DType::f32);
/// N(0, 2 / (fan_in + fan_out)).   Glorot, Bengio 2010.
Tensor xavier_normal(const Shape& shape, Rng& rng, DType dtype = DType::f32);
/// U(±√(3 g² / fan_in)), gain g = √2 for relu.   He et al. 2015, eq (10).
Tensor kaiming_uniform(const Shape& shape,
                       Rng& rng,
                       double gain = 1.4142135623730951,
                       DType dtype = DType::f32);
/// N(0, g² / fan_in).   He et al. 2015, eq (10).
Tensor kaiming_normal(const Shape& shape,
                      Rng& rng,
                      double gain = 1.4142135623730951,
                      DType dtype = DType::f32);

/// One of the above by name ("xavier_uniform", "xavier_normal", "kaiming_uniform",
/// "kaiming_normal", "zeros", "ones"). ValueError listing the names.
Tensor by_name(std::string_view name, const Shape& shape, Rng& rng, DType dtype = DType::f32);

}  // namespace capsfw::init
