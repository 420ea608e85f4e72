#include <capsfw/data/split.hpp>

#include <cmath>
#include <map>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>

namespace capsfw {
namespace {

using Positions = std::vector<std::int64_t>;

/// Far from the small stream numbers that programs use with the same seed.
constexpr std::uint64_t kStream = 0x5711'7000'0000'0000;

/// The positions of each class in random order, class by class. Each class has a generator of its
/// own: what happens in one does not move another.
std::vector<Positions> shuffled_classes(const Positions& labels, std::uint64_t seed) {
  std::map<std::int64_t, Positions> classes;
  for (std::size_t i = 0; i < labels.size(); ++i)
    classes[labels[i]].push_back(static_cast<std::int64_t>(i));
  std::vector<Positions> out;
  for (const auto& [label, positions] : classes) {
    Rng rng(seed, kStream + out.size());
    const auto order = rng.permutation(static_cast<std::int64_t>(positions.size()));
    out.push_back(at_positions(positions, order.to_vector<std::int64_t>()));
  }
  return out;
}

/// Parts from a mark for each sample, which puts the positions in order.
SplitParts parts_of(const std::vector<bool>& in_test) {
  SplitParts parts;
  for (std::size_t i = 0; i < in_test.size(); ++i)
    (in_test[i] ? parts.test : parts.train).push_back(static_cast<std::int64_t>(i));
  return parts;
}

}  // namespace

std::vector<SplitParts> stratified_folds(const Positions& labels,
                                         std::int64_t folds,
                                         std::uint64_t seed) {
  const auto n = static_cast<std::int64_t>(labels.size());
  if (folds < 2 || folds > n)
    throw ValueError(fmt::format(
        "stratified_folds: folds must be at least 2 and at most the {} samples; got {}", n, folds));
  std::vector<std::vector<bool>> in_test(static_cast<std::size_t>(folds),
                                         std::vector<bool>(labels.size()));
  std::size_t turn = 0;  // goes on from class to class, so that the parts are equal, too
  for (const Positions& positions : shuffled_classes(labels, seed))
    for (const std::int64_t i : positions)
      in_test[turn++ % in_test.size()][static_cast<std::size_t>(i)] = true;
  std::vector<SplitParts> out;
  for (const auto& mark : in_test) out.push_back(parts_of(mark));
  return out;
}

SplitParts stratified_hold_out(const Positions& labels, double share, std::uint64_t seed) {
  if (!(share >= 0 && share < 1))
    throw ValueError(
        fmt::format("stratified_hold_out: the share must lie in [0, 1); got {}", share));
  std::vector<bool> held_out(labels.size());
  double due = 0.5;  // samples to hold out so far; half a sample is rounded up
  for (const Positions& positions : shuffled_classes(labels, seed)) {
    for (const std::int64_t i : positions) {
      due += share;
      if (due < 1 || i == positions.back()) continue;
      due -= 1;
      held_out[static_cast<std::size_t>(i)] = true;
    }
    while (due >= 2)
      due -= 1;  // classes of one image give none; the next one gives one more at most
  }
  return parts_of(held_out);
}

}  // namespace capsfw
