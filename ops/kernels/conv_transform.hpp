#pragma once
// Private: convolution through values at points. The stride splits an image and its kernel into
// phases, whose correlations have stride 1 and add up; tiles of the outputs, of the image and of
// the kernel become numbers (tiles.hpp), and for each of these numbers one matrix product over
// channels and phases is left. 9x9 taps with stride 2 on 20x20 take a fifth of the direct
// multiplications. float only: gradients are checked in double, in the definition's arithmetic.

#include <cstdint>
#include <optional>

#include "conv.hpp"

namespace capsfw::kernels {

/// Outputs of a tile.
struct TileSize {
  std::int64_t rows = 0, columns = 0;
};

/// Most taps of a phase along an axis, and most pixels of an image, for which there are tiles.
inline constexpr std::int64_t kMostPhaseTaps = 12, kMostPixels = 16384;

/// The tiles of the least cost; `cost`: that of one of the three products, in multiply-adds of the
/// direct algorithm. None where the transform cannot be used.
struct TileChoice {
  TileSize tile;
  double cost = 0;
};
std::optional<TileChoice> choose_tile(const ConvShape& s);

/// The same where it is faster than the direct algorithm.
std::optional<TileSize> profitable_tile(const ConvShape& s);

/// conv_forward, conv_input and conv_weight by the same contracts. Memory: about 60 MB at most and
/// 3 MB for each thread, more only where one image and one vector of channels need it.
void transform_forward(const ConvShape& s,
                       const TileSize& tile,
                       const float* x,
                       const float* w,
                       const float* bias,
                       float* y);
void transform_input(
    const ConvShape& s, const TileSize& tile, const float* gy, const float* w, float* gx);
void transform_weight(
    const ConvShape& s, const TileSize& tile, const float* x, const float* gy, float* gw);

}  // namespace capsfw::kernels
