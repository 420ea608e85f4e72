#include <capsfw/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/core/state_dict.hpp>

#include "box_muller.hpp"
#include "simd.hpp"

namespace capsfw {
namespace {

using detail::gauss;
using detail::unit;

using Block = std::array<std::uint32_t, 4>;

inline Block philox(Block counter, std::uint64_t seed) {
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0],
                        b = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ k0, static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ k1,
               static_cast<std::uint32_t>(a)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return counter;
}

/// Two 64-bit words of draw number `counter`.
inline std::array<std::uint64_t, 2> words(std::uint64_t seed,
                                          std::uint64_t stream,
                                          std::uint64_t counter) {
  const Block b =
      philox({static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
              static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)},
             seed);
  return {b[0] | std::uint64_t{b[1]} << 32, b[2] | std::uint64_t{b[3]} << 32};
}

/// The words of kDraws draws from number `counter` on, as words() makes them: a few numbers in
/// vectors, 32 bits in lanes of 64. Integers only, so the same on every CPU.
constexpr std::int64_t kDraws = 128;
void draw(std::uint64_t seed,
          std::uint64_t stream,
          std::uint64_t counter,
          std::uint64_t* first,
          std::uint64_t* second) {
  detail::simd([=] {
    constexpr int kLanes = 16;
    constexpr std::uint64_t kLow = 0xFFFFFFFF;
    for (std::int64_t at = 0; at < kDraws; at += kLanes) {
      std::uint64_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
      for (int l = 0; l < kLanes; ++l) {
        const std::uint64_t c = counter + static_cast<std::uint64_t>(at + l);
        c0[l] = c & kLow, c1[l] = c >> 32, c2[l] = stream & kLow, c3[l] = stream >> 32;
      }
      std::uint64_t k0 = seed & kLow, k1 = seed >> 32;
#pragma GCC unroll 10
      for (int round = 0; round < 10; ++round) {
        for (int l = 0; l < kLanes; ++l) {
          const std::uint64_t a = (c0[l] & kLow) * 0xD2511F53, b = (c2[l] & kLow) * 0xCD9E8D57;
          c0[l] = b >> 32 ^ c1[l] ^ k0;
          c1[l] = b & kLow;
          c2[l] = a >> 32 ^ c3[l] ^ k1;
          c3[l] = a & kLow;
        }
        k0 = (k0 + 0x9E3779B9) & kLow;
        k1 = (k1 + 0xBB67AE85) & kLow;
      }
      for (int l = 0; l < kLanes; ++l) {
        first[at + l] = c0[l] | c1[l] << 32;
        second[at + l] = c2[l] | c3[l] << 32;
      }
    }
  });
}

__extension__ using Wide = unsigned __int128;

/// An integer in [0, n) from 64 bits: the high word of a 128-bit product. Its bias is below n /
/// 2^64.
std::int64_t scaled(std::uint64_t w, std::int64_t n) {
  return static_cast<std::int64_t>(static_cast<Wide>(w) * static_cast<Wide>(n) >> 64);
}

void check_count(const char* op, std::int64_t n) {
  if (n < 1) throw ValueError(fmt::format("{}: n must be at least 1; got {}", op, n));
}

}  // namespace

std::uint64_t Rng::next() { return words(seed_, stream_, counter_++)[0]; }

std::int64_t Rng::below(std::int64_t n) {
  check_count("Rng::below", n);
  // Lemire 2019: of 2^64 draws those whose low word lies below 2^64 mod n are too many.
  const auto bound = static_cast<std::uint64_t>(n);
  for (;;) {
    const Wide product = static_cast<Wide>(next()) * bound;
    const auto low = static_cast<std::uint64_t>(product);
    if (low >= bound || low >= -bound % bound) return static_cast<std::int64_t>(product >> 64);
  }
}

double Rng::uniform() { return unit(next()); }
double Rng::normal() {
  const auto w = words(seed_, stream_, counter_++);
  return gauss(w[0], w[1]);
}
Rng Rng::split() { return Rng(seed_, next()); }

template <class F>
Tensor Rng::fill(const Shape& shape, DType dtype, const F& f) {
  Tensor y = empty(shape, dtype, "Rng");
  const std::int64_t n = y.numel();
  visit_any(dtype, [&]<class T>() {
    T* p = y.mutable_data<T>();
    parallel_for(n, 32, [&](std::int64_t begin, std::int64_t end) {
      std::uint64_t first[kDraws], second[kDraws];
      for (std::int64_t i = begin; i < end; i += kDraws) {
        const std::int64_t count = std::min(kDraws, end - i);
        draw(seed_, stream_, counter_ + static_cast<std::uint64_t>(i), first, second);
        const std::uint64_t *u = first, *v = second;
        T* to = p + i;
        detail::simd([=] {
          for (std::int64_t k = 0; k < count; ++k) to[k] = static_cast<T>(f(u[k], v[k]));
        });
      }
    });
  });
  counter_ += static_cast<std::uint64_t>(n);
  return y;
}

Tensor Rng::uniform(const Shape& shape, double low, double high, DType dtype) {
  if (!is_floating(dtype))
    throw_not_floating(dtype, "Rng::uniform", {}, "draw f32, then to(x, dtype)");
  if (!(low <= high) || std::isinf(high - low))
    throw ValueError(fmt::format(
        "Rng::uniform: low must not exceed high, and both be finite; got {} and {}", low, high));
  // Rounding may reach `high`: the largest number of this type below it is the limit.
  const double top = dtype == DType::f32
                         ? static_cast<double>(std::nextafter(static_cast<float>(high), -INFINITY))
                         : std::nextafter(high, -INFINITY);
  return fill(shape, dtype, [=](std::uint64_t u, std::uint64_t) {
    return std::max(low, std::min(low + (high - low) * unit(u), top));
  });
}

Tensor Rng::normal(const Shape& shape, double mean, double std, DType dtype) {
  if (!is_floating(dtype))
    throw_not_floating(dtype, "Rng::normal", {}, "draw f32, then to(x, dtype)");
  if (!(std >= 0))
    throw ValueError(fmt::format("Rng::normal: std must be at least 0; got {}", std));
  return fill(shape, dtype,
              [=](std::uint64_t u, std::uint64_t t) { return mean + std * gauss(u, t); });
}

Tensor Rng::bernoulli(const Shape& shape, double p) {
  if (!(p >= 0 && p <= 1))
    throw ValueError(fmt::format("Rng::bernoulli: p must lie in [0, 1]; got {}", p));
  return fill(shape, DType::b8, [p](std::uint64_t u, std::uint64_t) { return unit(u) < p; });
}

Tensor Rng::permutation(std::int64_t n) {
  Tensor y = arange(n);
  auto* p = y.mutable_data<std::int64_t>();
  for (std::int64_t i = n - 1; i > 0; --i) std::swap(p[i], p[below(i + 1)]);
  return y;
}

Tensor Rng::integers(const Shape& shape, std::int64_t n) {
  check_count("Rng::integers", n);
  return fill(shape, DType::i64, [n](std::uint64_t u, std::uint64_t) { return scaled(u, n); });
}

void Rng::save(StateDict& state, const std::string& prefix) const {
  const auto bits = [](std::uint64_t v) { return static_cast<std::int64_t>(v); };
  state.set(prefix, from_vector<std::int64_t>({bits(seed_), bits(stream_), bits(counter_)}));
}

void Rng::load(const StateDict& state, const std::string& prefix) {
  const Tensor& t = state.at(prefix);
  if (t.dtype() != DType::i64 || t.shape() != Shape{3})
    throw ValueError(fmt::format("Rng::load: '{}' must hold three i64 numbers; got {} {}", prefix,
                                 name_of(t.dtype()), t.shape().str()));
  const auto v = t.to_vector<std::int64_t>();
  seed_ = static_cast<std::uint64_t>(v[0]);
  stream_ = static_cast<std::uint64_t>(v[1]);
  counter_ = static_cast<std::uint64_t>(v[2]);
}

}  // namespace capsfw
