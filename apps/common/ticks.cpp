#include "ticks.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace capsfw::apps {
namespace {

/// The smallest 1, 2 or 5 times a power of ten that is at least `least`.
double nice_step(double least) {
  const double power = std::pow(10.0, std::floor(std::log10(least)));
  for (double digit : {1.0, 2.0, 5.0})
    if (digit * power >= least * (1 - 1e-9)) return digit * power;
  return 10 * power;
}

std::string label_of(double v, double step, double largest) {
  if (v == 0) return "0";
  if (step < 1e-4 || largest >= 1e7) return fmt::format("{:.4g}", v);
  if (step >= 1000) return fmt::format("{:g}k", v / 1000);
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  return fmt::format("{:.{}f}", v, decimals);
}

}  // namespace

Ticks nice_ticks(double lo, double hi, int max_count, bool whole) {
  Ticks out;
  if (!std::isfinite(lo) || !std::isfinite(hi) || !(lo < hi) || max_count < 1) return out;
  const double largest = std::max(std::abs(lo), std::abs(hi));
  // Below this the positions would not be distinct numbers any more.
  double step = nice_step(std::max(hi / max_count - lo / max_count, largest * 1e-12));
  if (whole) step = std::max(step, 1.0);
  for (;; step = nice_step(step * 1.5)) {
    const double first = std::ceil(lo / step - 1e-9), last = std::floor(hi / step + 1e-9);
    if (last - first + 1 > max_count) continue;
    for (double k = first; k <= last; ++k) {
      out.at.push_back(k * step);
      out.labels.push_back(label_of(k * step, step, largest));
    }
    return out;
  }
}

Limits axis_limits(const std::vector<double>& values) {
  double lo = INFINITY, hi = -INFINITY;
  for (double v : values) {
    if (!std::isfinite(v)) continue;
    lo = std::min(lo, v);
    hi = std::max(hi, v);
  }
  if (lo > hi) return {0, 1};
  // Huge values would overflow in what follows.
  constexpr double kLargest = 1e300;
  lo = std::clamp(lo, -kLargest, kLargest);
  hi = std::clamp(hi, -kLargest, kLargest);
  const double span = hi - lo;
  if (span <= 1e-9 * std::max(std::abs(lo), std::abs(hi)) || span == 0) {
    const double margin = lo == 0 ? 1 : 0.1 * std::abs(lo);
    return {lo - margin, hi + margin};
  }
  const double margin = 0.05 * span;
  if (lo >= 0 && lo <= 0.5 * span) return {0, hi + margin};
  if (hi <= 0 && -hi <= 0.5 * span) return {lo - margin, 0};
  return {lo - margin, hi + margin};
}

}  // namespace capsfw::apps
