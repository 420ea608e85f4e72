#pragma once
// Private: where a loader is, in checkpoints.

#include <cstdint>
#include <string>

#include <capsfw/core/state_dict.hpp>

namespace capsfw::detail {

/// What the batches that follow are a function of, beside the set and the options.
struct LoaderPlace {
  std::uint64_t seed = 0;
  std::int64_t epoch = 0, position = 0;

  /// i64 [3] under `prefix`.
  void save(StateDict& state, const std::string& prefix) const;
  /// ValueError, in the name of `who`, unless it is there and the position lies in [0, size].
  static LoaderPlace load(const std::string& who,
                          const StateDict& state,
                          const std::string& prefix,
                          std::int64_t size);
};

/// ValueError unless 0 <= epoch < 2^40.
void check_epoch(const std::string& who, std::int64_t epoch);

}  // namespace capsfw::detail
