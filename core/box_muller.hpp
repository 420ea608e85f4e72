#pragma once
// Private: standard normal numbers from random words, in loops that the compiler can vectorise for
// any instruction set: no branch, no call, no conversion of 64-bit integers, which few CPUs have.

#include <bit>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace capsfw::detail {

/// The upper 53 bits of `w` as a number in [0, 2^53). The halves become doubles by their bits.
inline double upper_bits(std::uint64_t w) {
  const std::uint64_t k = w >> 11;
  const auto high = std::bit_cast<double>((k >> 32) | 0x4530000000000000U),  // 2^84 + high 2^32
      low = std::bit_cast<double>((k & 0xFFFFFFFFU) | 0x4330000000000000U);  // 2^52 + low
  return (high - (0x1p84 + 0x1p52)) + low;
}

/// A number in [0, 1).
inline double unit(std::uint64_t w) { return upper_bits(w) * 0x1p-53; }

/// ln v for normal v > 0, within an ulp: v = 2^n m, f = m − 1, s = f / (2 + f), and a polynomial in
/// s² (that of fdlibm).
inline double log_positive(double v) {
  const auto bits = std::bit_cast<std::uint64_t>(v);
  // The exponent of v / √½, so that m is in [√½, √2).
  const std::uint64_t up = bits - 0x3FE6A09E667F3BCDU + (std::uint64_t{1023} << 52), n = up >> 52;
  const double m = std::bit_cast<double>(bits - ((n - 1023) << 52)),
               e = std::bit_cast<double>(n | 0x4330000000000000U) - (0x1p52 + 1023.0);
  const double f = m - 1.0, s = f / (2.0 + f), z = s * s, w = z * z;
  const double even = w * (3.999999999940941908e-01 +
                           w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01)),
               odd = z * (6.666666666666735130e-01 +
                          w * (2.857142874366239149e-01 +
                               w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const double half = 0.5 * f * f;
  return e * 6.93147180369123816490e-01 -
         ((half - (s * (half + (even + odd)) + e * 1.90821492927058770002e-10)) - f);
}

/// cos 2πt for t in [0, 1), within an ulp or two: a quarter turn q and the rest (fdlibm).
inline double cos_turns(double t) {
  const double q = std::nearbyint(4.0 * t), x = (4.0 * t - q) * (std::numbers::pi / 2), z = x * x;
  const double sine =
      x + x * z *
              (-1.66666666666666324348e-01 +
               z * (8.33333333332248946124e-03 +
                    z * (-1.98412698298579493134e-04 +
                         z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 +
                                                                z * 1.58969099521155010221e-10)))));
  const double cosine =
      1.0 -
      (0.5 * z -
       z * z *
           (4.16666666666666019037e-02 +
            z * (-1.38888888888741095749e-03 +
                 z * (2.48015872894767294178e-05 +
                      z * (-2.75573143513906633035e-07 +
                           z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11))))));
  const double y = q == 1.0 || q == 3.0 ? sine : cosine;
  return q == 1.0 || q == 2.0 ? -y : y;
}

/// Standard normal from two words. Box, Muller 1958, A Note on the Generation of Random Normal
/// Deviates:   √(−2 ln(1 − u)) cos 2πt.
inline double gauss(std::uint64_t u, std::uint64_t t) {
  const double v = (0x1p53 - upper_bits(u)) * 0x1p-53;  // 1 − u, exact and never 0
  return std::sqrt(-2.0 * log_positive(v)) * cos_turns(unit(t));
}

}  // namespace capsfw::detail
