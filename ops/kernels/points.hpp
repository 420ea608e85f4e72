#pragma once
// Private: short bilinear algorithms for correlations along one axis (Toom and Cook; S. Winograd,
// "Arithmetic Complexity of Computations", 1980, chapter V). The sum over outputs i and taps p of
// g[i] w[p] x[i + p] is one coefficient per x of the product of two polynomials, which is known
// from its values at N = outputs + taps - 1 points:
//   Σ_ip g[i] w[p] x[i + p] = Σ_f (V_g g)_f (V_w w)_f (V_x x)_f,
// V_g and V_w evaluating at point f, V_x being the transposed inverse of the evaluation of N
// coefficients. The points are 1, 0, infinity and the other (N - 2)th roots of unity, in this
// order: -1 where it is one, and the upper one of each conjugate pair, whose value is two numbers,
// real and imaginary part. Six values have real points (RealPoints): tiles of 3x3 taps above all.
// Evaluation at roots is a Fourier transform of so many numbers, and so is its inverse, with what
// lies above degree N - 3 taken from the points 0 and infinity. The factor 1 / (N - 2) of the
// inverse is applied to the weights in place of the images: each product has exactly one of the
// two.

#include <array>
#include <cstdint>

namespace capsfw::kernels {

/// The operand of a convolution whose tiles are meant.
enum class Side { image, weight, output };

/// So many values are those at 0, a, -a, b, -b and infinity, with b = 1 / a, in this order: all
/// real, where roots of unity have the pair of i and -i.
inline constexpr int kRealPoints = 6;
struct RealPoints {
  static constexpr float a = 2.0F / 3, b = 1.5F, aa = a * a, bb = b * b;
  /// 1 / Π (p - q) over the other finite points q.
  static constexpr float kScaleA = 1 / (2 * aa * (aa - bb)), kScaleB = 1 / (2 * bb * (bb - aa));
};

/// An algorithm for one axis.
struct Points {
  /// Most values per tile.
  static constexpr std::int64_t kMost = 16;

  /// For so many neighbouring outputs and taps, of which the sum is at most kMost + 1.
  constexpr Points(std::int64_t outputs_, std::int64_t taps_)
      : outputs(outputs_), taps(taps_), count(outputs + taps - 1), real(real_points(count)) {}

  std::int64_t outputs, taps;
  std::int64_t count;  ///< values per tile: one per real point, two per pair of complex points
  std::int64_t real;   ///< of real points; they come first
  /// Elements of a tile.
  constexpr std::int64_t size(Side s) const {
    return s == Side::image ? count : s == Side::weight ? taps : outputs;
  }
  /// What value `f` of a weight is multiplied by.
  constexpr float scale(std::int64_t f) const {
    if (count == kRealPoints)
      return f < 1 || f > 4 ? 1.0F : f < 3 ? RealPoints::kScaleA : RealPoints::kScaleB;
    return count < 4 || f == 1 || f == 2 ? 1.0F : 1.0F / static_cast<float>(count - 2);
  }
  /// Real points among those for `n` values.
  static constexpr std::int64_t real_points(std::int64_t n) {
    return n < 3 || n == kRealPoints ? n : n % 2 == 0 ? 4 : 3;
  }
};

/// cos and sin of 2π i / n, exact where they are 0, 1 or -1.
template <int n>
struct Circle {
  std::array<float, n> cosine{}, sine{};
  constexpr Circle() {
    for (int i = 0; i < n; ++i) {
      const long double x = 6.283185307179586476925286766559L * i / n;
      long double term = 1, sum[2] = {};  // Taylor's series
      for (int k = 0; k < 48; ++k) {
        sum[k % 2] += k / 2 % 2 == 0 ? term : -term;
        term *= x / (k + 1);
      }
      cosine[static_cast<std::size_t>(i)] = snapped(sum[0]);
      sine[static_cast<std::size_t>(i)] = snapped(sum[1]);
    }
  }

 private:
  static constexpr float snapped(long double v) {
    for (const int whole : {-1, 0, 1})
      if (v - whole < 1e-12L && whole - v < 1e-12L) return static_cast<float>(whole);
    return static_cast<float>(v);
  }
};
template <int n>
inline constexpr Circle<n> kCircle{};

/// sum += Σ_i t[i] cos(2π i m / n), or sin, for i = first, first + step, ... < end.
template <int n, bool kSine, int m, int first, int step, int end, class V>
inline void add_terms(V& sum, const V* t) {
  if constexpr (first < end) {
    constexpr float c = (kSine ? kCircle<n>.sine : kCircle<n>.cosine)[first * m % n];
    if constexpr (c == 1)
      sum += t[first];
    else if constexpr (c == -1)
      sum -= t[first];
    else if constexpr (c != 0)
      sum += c * t[first];
    add_terms<n, kSine, m, first + step, step, end>(sum, t);
  }
}

/// f(0), f(1), ..., as constants.
template <int end, int i = 0, class F>
inline void unrolled(const F& f) {
  if constexpr (i < end) {
    f.template operator()<i>();
    unrolled<end, i + 1>(f);
  }
}

/// Places of the numbers of the i-th root among the values of a tile; of -1 for i = n / 2.
template <int n>
constexpr int real_place(int i) {
  return i == 0 ? 0 : 2 * i == n ? 3 : 2 * i + (n % 2 == 0 ? 2 : 1);
}

/// v = Σ_j y[j] ω^j at the n roots ω of unity. Terms j and n - j share their cosines; of an even n
/// the roots i and n / 2 - i share the sums over even and over odd j.
template <int n, class V>
inline void at_roots(const V* y, V* v) {
  constexpr int half = (n - 1) / 2;
  V s[half + 1], d[half + 1];
  for (int j = 1; j <= half; ++j) s[j] = y[j] + y[n - j], d[j] = y[j] - y[n - j];
  if constexpr (n % 2 == 1) {
    unrolled<half + 1>([&]<int i>() {
      V re = y[0], im = {};
      add_terms<n, false, i, 1, 1, half + 1>(re, s);
      add_terms<n, true, i, 1, 1, half + 1>(im, d);
      v[real_place<n>(i)] = re;
      if constexpr (i > 0) v[real_place<n>(i) + 1] = im;
    });
  } else {
    unrolled<n / 4 + 1>([&]<int i>() {
      V even = y[0], odd = {}, even_im = {}, odd_im = {};
      V& of_half = n / 2 % 2 == 0 ? even : odd;
      if constexpr (i % 2 == 0)
        of_half += y[n / 2];
      else
        of_half -= y[n / 2];
      add_terms<n, false, i, 2, 2, half + 1>(even, s);
      add_terms<n, false, i, 1, 2, half + 1>(odd, s);
      add_terms<n, true, i, 2, 2, half + 1>(even_im, d);
      add_terms<n, true, i, 1, 2, half + 1>(odd_im, d);
      constexpr int a = real_place<n>(i), b = real_place<n>(n / 2 - i);
      v[a] = even + odd;
      if constexpr (i > 0) v[a + 1] = odd_im + even_im;
      if constexpr (a != b) v[b] = even - odd;
      if constexpr (a != b && i > 0) v[b + 1] = odd_im - even_im;
    });
  }
}

/// The transpose.
template <int n, class V>
inline void from_roots(const V* v, V* y) {
  constexpr int half = (n - 1) / 2;
  if constexpr (n % 2 == 1) {
    V re[half + 1], im[half + 1];
    for (int i = 1; i <= half; ++i) re[i] = v[real_place<n>(i)], im[i] = v[real_place<n>(i) + 1];
    unrolled<half + 1>([&]<int j>() {
      V s = v[0], d = {};
      add_terms<n, false, j, 1, 1, half + 1>(s, re);
      add_terms<n, true, j, 1, 1, half + 1>(d, im);
      y[j] = s + d;
      if constexpr (j > 0) y[n - j] = s - d;
    });
  } else {
    constexpr int quarter = n / 4;
    V re[2][quarter + 1], im[2][quarter + 1];  // for even and for odd j
    re[0][0] = v[0] + v[3], re[1][0] = v[0] - v[3];
    unrolled<quarter + 1>([&]<int i>() {
      constexpr int a = real_place<n>(i), b = real_place<n>(n / 2 - i);
      if constexpr (i > 0 && a != b) {
        re[0][i] = v[a] + v[b], re[1][i] = v[a] - v[b];
        im[0][i] = v[a + 1] - v[b + 1], im[1][i] = v[a + 1] + v[b + 1];
      } else if constexpr (i > 0) {
        re[0][i] = re[1][i] = v[a], im[0][i] = im[1][i] = v[a + 1];
      }
    });
    unrolled<n / 2 + 1>([&]<int j>() {
      V s = re[j % 2][0], d = {};
      add_terms<n, false, j, 1, 1, quarter + 1>(s, re[j % 2]);
      add_terms<n, true, j, 1, 1, quarter + 1>(d, im[j % 2]);
      y[j] = s + d;
      if constexpr (j > 0 && 2 * j != n) y[n - j] = s - d;
    });
  }
}

/// evaluate() at the real points. An image's values are its products with the coefficients of
/// Π (t - q) over the other finite points q.
template <bool kImage, class V>
inline void at_real_points(const V* x, const V& last, V* v) {
  using R = RealPoints;
  if constexpr (kImage) {
    const V even_a = x[4] - R::bb * x[2], odd_a = R::a * (x[3] - R::bb * x[1]),
            even_b = x[4] - R::aa * x[2], odd_b = R::b * (x[3] - R::aa * x[1]);
    v[0] = x[0] + x[4] - (R::aa + R::bb) * x[2];
    v[1] = even_a + odd_a, v[2] = even_a - odd_a;
    v[3] = even_b + odd_b, v[4] = even_b - odd_b;
    v[5] = x[1] + x[5] - (R::aa + R::bb) * x[3];
  } else {
    const V even_a = x[0] + R::aa * (x[2] + R::aa * x[4]),
            odd_a = R::a * (x[1] + R::aa * (x[3] + R::aa * x[5])),
            even_b = x[0] + R::bb * (x[2] + R::bb * x[4]),
            odd_b = R::b * (x[1] + R::bb * (x[3] + R::bb * x[5]));
    v[0] = x[0];
    v[1] = even_a + odd_a, v[2] = even_a - odd_a;
    v[3] = even_b + odd_b, v[4] = even_b - odd_b;
    v[5] = last;
  }
}

/// The transpose.
template <bool kImage, class V>
inline void from_real_points(const V* v, V* x, V& last) {
  using R = RealPoints;
  const V even_a = v[1] + v[2], odd_a = R::a * (v[1] - v[2]), even_b = v[3] + v[4],
          odd_b = R::b * (v[3] - v[4]);
  if constexpr (kImage) {
    x[0] = v[0];
    x[1] = v[5] - R::bb * odd_a - R::aa * odd_b;
    x[2] = -(R::aa + R::bb) * v[0] - R::bb * even_a - R::aa * even_b;
    x[3] = odd_a + odd_b - (R::aa + R::bb) * v[5];
    x[4] = v[0] + even_a + even_b;
    x[5] = v[5];
  } else {
    x[0] = v[0] + even_a + even_b;
    x[1] = odd_a + odd_b;
    x[2] = R::aa * even_a + R::bb * even_b;
    x[3] = R::aa * odd_a + R::bb * odd_b;
    x[4] = R::aa * R::aa * even_a + R::bb * R::bb * even_b;
    x[5] = R::aa * R::aa * odd_a + R::bb * R::bb * odd_b;
    last = v[5];
  }
}

/// The values v of a tile x of N elements, those beyond its size being 0; `last`: its last element.
/// An image's are not scaled.
template <int N, bool kImage, class V>
inline void evaluate(const V* x, const V& last, V* v) {
  if constexpr (N == 1) {
    v[0] = x[0];
  } else if constexpr (N == 2) {
    v[0] = kImage ? x[1] : x[0] + x[1];
    v[1] = kImage ? x[0] - x[1] : x[0];
  } else if constexpr (N == kRealPoints) {
    at_real_points<kImage>(x, last, v);
  } else {
    constexpr int n = N - 2;
    V y[n];
    if constexpr (kImage) {  // backwards: the inverse has conjugate roots
      for (int j = 0; j < n; ++j) y[j] = x[n - j];
      v[1] = x[0] - x[n];
      v[2] = x[n + 1] - x[1];
    } else {
      for (int j = 0; j < n; ++j) y[j] = x[j];
      y[0] += x[n];
      y[1 % n] += x[n + 1];
      v[1] = x[0];
      v[2] = last;
    }
    at_roots<n>(y, v);
  }
}

/// The transpose: tile x from values v; what belongs to the last element besides is in `last`.
template <int N, bool kImage, class V>
inline void evaluate_transposed(const V* v, V* x, V& last) {
  last = V{};
  if constexpr (N == 1) {
    x[0] = v[0];
  } else if constexpr (N == 2) {
    x[0] = kImage ? v[1] : v[0] + v[1];
    x[1] = kImage ? v[0] - v[1] : v[0];
  } else if constexpr (N == kRealPoints) {
    from_real_points<kImage>(v, x, last);
  } else {
    constexpr int n = N - 2;
    V y[n];
    from_roots<n>(v, y);
    if constexpr (kImage) {
      for (int j = 0; j < n; ++j) x[n - j] = y[j];
      x[0] = v[1];
      x[n + 1] = v[2];
      x[n] -= v[1];
      x[1] -= v[2];
    } else {
      for (int j = 0; j < n; ++j) x[j] = y[j];
      x[n] = y[0];
      x[n + 1] = y[1 % n];
      x[0] += v[1];
      last = v[2];
    }
  }
}

}  // namespace capsfw::kernels
