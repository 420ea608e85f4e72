#pragma once
// Where the numbers of an axis stand.

#include <string>
#include <vector>

namespace capsfw::apps {

/// Positions and their texts.
struct Ticks {
  std::vector<double> at;
  std::vector<std::string> labels;
};

/// At most `max_count` multiples of 1, 2 or 5 times a power of ten within [lo, hi], and at least
/// one wherever the limits allow; with `whole` never closer than 1. All labels have the same number
/// of decimals. Limits that are not finite or not in order give none.
Ticks nice_ticks(double lo, double hi, int max_count, bool whole = false);

/// Limits of an axis.
struct Limits {
  double lo = 0, hi = 1;
};

/// Limits around the finite ones of `values`: a margin of 5 %, and 0 wherever it is near; around a
/// single value 10 % of it; [0, 1] if there is none.
Limits axis_limits(const std::vector<double>& values);

}  // namespace capsfw::apps
