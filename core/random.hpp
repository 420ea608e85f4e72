#pragma once
// An explicit, counter-based random number generator.

#include <cstdint>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

class StateDict;

/// Philox 4x32-10 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"). A draw is a
/// pure function of seed, stream and counter, so that tensors are filled in parallel with the same
/// bits for any thread count, and a copy of an Rng repeats its draws.
class Rng {
 public:
  explicit Rng(std::uint64_t seed = 0, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  /// 64 random bits.
  std::uint64_t next();
  /// An integer in [0, n), without bias. ValueError if n < 1.
  std::int64_t below(std::int64_t n);
  /// A number in [0, 1).
  double uniform();
  /// Standard normal.
  double normal();
  /// An independent generator, derived from this one's next draw.
  Rng split();

  /// Uniform in [low, high), normal(mean, std), or true with probability p. ValueError if low
  /// exceeds high, a bound is not finite, std is negative or p lies outside [0, 1]; DTypeError
  /// for an integer type.
  Tensor uniform(const Shape& shape, double low, double high, DType dtype = DType::f32);
  /// See uniform.
  Tensor normal(const Shape& shape, double mean, double std, DType dtype = DType::f32);
  /// See uniform.
  Tensor bernoulli(const Shape& shape, double p);
  /// 0, ..., n - 1 in random order, as i64. ValueError if n is negative.
  Tensor permutation(std::int64_t n);
  /// Integers in [0, n), as i64. ValueError if n < 1.
  Tensor integers(const Shape& shape, std::int64_t n);

  /// Seed, stream and position under "<prefix>".
  void save(StateDict& state, const std::string& prefix) const;
  /// Takes them back; ValueError where an entry is missing.
  void load(const StateDict& state, const std::string& prefix);

 private:
  template <class F>
  Tensor fill(const Shape& shape, DType dtype, const F& f);
  std::uint64_t seed_, stream_, counter_ = 0;
};

/// Standard normal tensor.
inline Tensor randn(const Shape& shape, Rng& rng, DType dtype = DType::f32) {
  return rng.normal(shape, 0, 1, dtype);
}
/// Uniform tensor in [0, 1).
inline Tensor rand(const Shape& shape, Rng& rng, DType dtype = DType::f32) {
  return rng.uniform(shape, 0, 1, dtype);
}

}  // namespace capsfw
