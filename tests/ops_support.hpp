#pragma once
// What the tests of ops share.

#include <doctest/doctest.h>

#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>

#include "gradients.hpp"

namespace capsfw::test {

using Values = std::vector<double>;
using Indices = std::vector<std::int64_t>;

/// Standard normal f64.
inline Tensor random(const Shape& shape, std::uint64_t seed = 1) {
  Rng rng(seed);
  return randn(shape, rng, DType::f64);
}

inline Tensor integers(const Shape& shape, std::int64_t n, std::uint64_t seed = 1) {
  Rng rng(seed);
  return rng.integers(shape, n);
}

inline Values values(const Tensor& x) { return x.to_vector<double>(); }
inline Indices indices(const Tensor& x) { return x.to_vector<std::int64_t>(); }

/// A view of the same elements whose first two axes are stored the other way round.
inline Tensor swapped_storage(const Tensor& x) {
  Shape shape = x.shape();
  std::swap(shape[0], shape[1]);
  Tensor y = empty(shape, x.dtype());
  Strides strides = y.strides();
  std::swap(strides[0], strides[1]);
  Tensor view = strided_view(y, x.shape(), strides, 0);
  view.copy_(x);
  return view;
}

inline double dot(const Tensor& a, const Tensor& b) {
  const Values p = values(a), q = values(b);
  REQUIRE(a.shape() == b.shape());
  double sum = 0;
  for (std::size_t i = 0; i < p.size(); ++i) sum += p[i] * q[i];
  return sum;
}

inline void check_close(const Values& a, const Values& b, double tolerance = 1e-12) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(i);
    CHECK(a[i] == doctest::Approx(b[i]).epsilon(tolerance));
  }
}

using testing::check_gradients;

}  // namespace capsfw::test
