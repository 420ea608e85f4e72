#include <algorithm>

#include "conv_transform.hpp"
#include "panel.hpp"
#include "tiles.hpp"

// Which tiles, and what they cost. Measured on a Zen 4 with AVX-512, where the direct algorithm
// does 98 GFLOP/s a core: a number that a transform of n values an axis writes and a product reads,
// or the reverse, took as long as 12 + 2n of its multiply-adds while the transforms were products
// with matrices. Now they take a fifth less of the whole (on a Xeon), hence kNumber + n.

namespace capsfw::kernels {
namespace {

constexpr double kNumber = 16;
constexpr double kStart = 4e6;    // once: parallel loops that wait for each other
constexpr double kMargin = 1.15;  // in favour of the direct algorithm

std::int64_t phases(const ConvAxis& a) { return std::min(a.stride, a.kernel); }

double cost_of(const ConvShape& s, const TileSize& tile) {
  const std::int64_t down = tile.rows + phase_taps(s.rows) - 1,
                     across = tile.columns + phase_taps(s.columns) - 1;
  const std::int64_t lanes = tile_lanes(),
                     tiles =
                         divide_up(s.rows.out, tile.rows) * divide_up(s.columns.out, tile.columns),
                     rows = round_up(s.batch * tiles, kTileRows),
                     depth = round_up(s.channels, lanes) * phases(s.rows) * phases(s.columns),
                     filters = round_up(s.filters, lanes);
  const auto r = static_cast<double>(rows), d = static_cast<double>(depth),
             f = static_cast<double>(filters);
  const double number = kNumber + static_cast<double>(down + across) / 2;
  return kStart +
         static_cast<double>(planes(down, across)) * (r * d * f + number * (r * d + r * f + d * f));
}

}  // namespace

std::optional<TileChoice> choose_tile(const ConvShape& s) {
  const std::int64_t down = phase_taps(s.rows), across = phase_taps(s.columns);
  std::optional<TileChoice> best;
  if (s.groups != 1 || s.rows.dilation != 1 || s.columns.dilation != 1 || down > kMostPhaseTaps ||
      across > kMostPhaseTaps || s.image() > kMostPixels || s.positions() > kMostPixels)
    return best;
  for (std::int64_t r = 1; r + down - 1 <= std::min(Points::kMost, s.rows.out + down - 1); ++r)
    for (std::int64_t c = 1; c + across - 1 <= std::min(Points::kMost, s.columns.out + across - 1);
         ++c) {
      const TileSize tile = {r, c};
      const double cost = cost_of(s, tile);
      if (!best || cost < best->cost) best = {tile, cost};
    }
  return best;
}

std::optional<TileSize> profitable_tile(const ConvShape& s) {
  constexpr std::int64_t kLeastWork = std::int64_t{1} << 23, kLeastChannels = 8;
  if (s.work() < kLeastWork || s.channels < kLeastChannels || s.filters < kLeastChannels) return {};
  const auto choice = choose_tile(s);
  if (!choice || choice->cost * kMargin > static_cast<double>(s.work())) return {};
  return choice->tile;
}

}  // namespace capsfw::kernels
