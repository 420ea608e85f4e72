#pragma once
// Private: short bilinear algorithms for correlations along one axis (Toom and Cook; A. Winograd,
// "Arithmetic Complexity of Computations", 1980, chapter V). The sum over outputs i and taps p of
// g[i] w[p] x[i + p] is one coefficient per x of the product of two polynomials, which is known
// from its values at N = outputs + taps - 1 points:
//   Σ_ip g[i] w[p] x[i + p] = Σ_f (V_g g)_f (V_w w)_f (V_x x)_f,
// V_g and V_w evaluating at point f, V_x being the transposed inverse of the evaluation of N
// coefficients. Roots of unity make it a Fourier transform; points 0, 1, -1, ... and infinity make
// it Winograd's algorithm. A complex point stands for its conjugate too: real and imaginary part.

#include <cstdint>
#include <vector>

namespace capsfw::kernels {

/// The operand of a convolution whose tiles are meant.
enum class Side { image, weight, output };

/// An algorithm for one axis.
class Points {
 public:
  /// For `outputs` neighbouring outputs and `taps` taps, of which the sum is at most kMost + 1.
  Points(std::int64_t outputs, std::int64_t taps);
  static constexpr std::int64_t kMost = 16;

  std::int64_t outputs, taps;
  std::int64_t count;  ///< values per tile: one per real point, two per pair of complex points
  std::int64_t real;   ///< of real points; they come first
  std::int64_t pairs() const { return (count - real) / 2; }
  /// Elements of a tile.
  std::int64_t size(Side s) const {
    return s == Side::image ? count : s == Side::weight ? taps : outputs;
  }
  /// [count, size]: from a tile to values at the points.
  const float* to_values(Side s) const { return forward_[static_cast<int>(s)].data(); }
  /// [size, count]: the transpose.
  const float* to_tile(Side s) const { return backward_[static_cast<int>(s)].data(); }

  /// Real points among those for `n` values.
  static std::int64_t real_points(std::int64_t n);

 private:
  std::vector<float> forward_[3], backward_[3];
};

}  // namespace capsfw::kernels
