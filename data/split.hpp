#pragma once
// Samples in parts, with the classes in each part as they are in the whole.

#include <cstdint>
#include <vector>

namespace capsfw {

/// Positions of samples, in ascending order.
struct SplitParts {
  std::vector<std::int64_t> train;  ///< indices
  std::vector<std::int64_t> test;   ///< indices
};

/// `folds` partitions for cross-validation: each sample is in the test part of exactly one. Each
/// class is drawn at random and dealt out in turn, so that of each class, and of all, two test
/// parts differ by at most one. A function of labels, folds and seed. ValueError unless
/// 2 ≤ folds ≤ samples.
std::vector<SplitParts> stratified_folds(const std::vector<std::int64_t>& labels,
                                         std::int64_t folds = 10,
                                         std::uint64_t seed = 0);

/// Holds out a share of every class, up to one sample; what is drawn is a function of labels, share
/// and seed. At least one sample of each class stays in the training part. ValueError unless share
/// lies in [0, 1).
SplitParts stratified_hold_out(const std::vector<std::int64_t>& labels,
                               double share,
                               std::uint64_t seed = 0);

/// The elements of a list at these positions (not checked).
template <class T>
std::vector<T> at_positions(const std::vector<T>& list,
                            const std::vector<std::int64_t>& positions) {
  std::vector<T> out;
  out.reserve(positions.size());
  for (const std::int64_t i : positions) out.push_back(list[static_cast<std::size_t>(i)]);
  return out;
}

}  // namespace capsfw
