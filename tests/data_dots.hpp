#pragma once
// Images of one bright dot, from which a test can tell which image it sees and where it went.

#include <algorithm>
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "data_common.hpp"

namespace data_test {

using namespace capsfw;

/// `n` images of 1 x 6 x 5 pixels: image i has the value i + 1 at [2, 2], else 0; label i % 7.
inline ImageSet dots(std::int64_t n) {
  Bytes pixels(static_cast<std::size_t>(n * 30), 0);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    pixels[static_cast<std::size_t>(i * 30 + 12)] = static_cast<std::uint8_t>(i + 1);
    labels.push_back(i % 7);
  }
  return ImageSet({1, 6, 5}, pixels, labels, {"0", "1", "2", "3", "4", "5", "6"});
}

/// One image of a batch: which one, and where its dot is.
struct Seen {
  int image, y, x;
  bool operator==(const Seen&) const = default;
};

inline std::vector<Seen> seen(const Batch& batch) {
  std::vector<Seen> out;
  const auto v = batch.images.to_vector<float>();
  const auto labels = batch.labels.to_vector<std::int64_t>();
  REQUIRE(batch.images.shape() == Shape{batch.size(), 1, 6, 5});
  for (std::size_t k = 0; k < labels.size(); ++k) {
    Seen s{-1, -1, -1};
    int dots = 0;
    for (int p = 0; p < 30; ++p)
      if (const float f = v[k * 30 + static_cast<std::size_t>(p)]; f != 0) {
        s = {static_cast<int>(std::lround(f * 255)) - 1, p / 5, p % 5};
        ++dots;
      }
    CHECK(dots == 1);
    CHECK(labels[k] == s.image % 7);
    out.push_back(s);
  }
  return out;
}

inline std::vector<Seen> epoch_of(DataLoader& loader) {
  std::vector<Seen> out;
  for (const Batch& batch : loader)
    for (const Seen& s : seen(batch)) out.push_back(s);
  return out;
}

inline std::vector<int> images_of(const std::vector<Seen>& all) {
  std::vector<int> out;
  for (const Seen& s : all) out.push_back(s.image);
  return out;
}

inline std::vector<int> sorted(std::vector<int> v) {
  std::sort(v.begin(), v.end());
  return v;
}

inline std::vector<int> first(int n) {
  std::vector<int> out;
  for (int i = 0; i < n; ++i) out.push_back(i);
  return out;
}

}  // namespace data_test
