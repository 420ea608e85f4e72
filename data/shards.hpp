#pragma once
// A batch cut into shards, for gradients that are computed apart and then added.

#include <cstdint>

namespace capsfw {

/// Batches are cut into `count` shards, of which a loader gives those from `begin` to `end` - 1:
/// the share of one process among several, which never reads the samples of the others.
struct Shards {
  std::int64_t count = 1;  ///< shards of every batch
  std::int64_t begin = 0;  ///< the first one that is given
  std::int64_t end = 1;    ///< behind the last one that is given

  /// Samples of shard k of a batch of n: consecutive ones, and the first n mod count shards have
  /// one more than the others. So with n < count the last ones are empty.
  std::int64_t size(std::int64_t k, std::int64_t n) const {
    return n / count + static_cast<std::int64_t>(k < n % count);
  }
  /// Where it begins in the batch.
  std::int64_t start(std::int64_t k, std::int64_t n) const {
    return k * (n / count) + (k < n % count ? k : n % count);
  }
};

namespace detail {
/// ValueError "<who>: ..." unless 0 <= begin <= end <= count and count >= 1.
void check_shards(const char* who, const Shards& shards);
}  // namespace detail

}  // namespace capsfw
