#include "loader_place.hpp"

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::detail {
namespace {
constexpr std::int64_t kMaxEpoch = std::int64_t{1} << 40;
}

void LoaderPlace::save(StateDict& state, const std::string& prefix) const {
  state.set(prefix, from_vector<std::int64_t>({static_cast<std::int64_t>(seed), epoch, position}));
}

LoaderPlace LoaderPlace::load(const std::string& who,
                              const StateDict& state,
                              const std::string& prefix,
                              std::int64_t size) {
  const Tensor& t = state.at(prefix);
  if (t.dtype() != DType::i64 || t.shape() != Shape{3})
    throw ValueError(fmt::format("{}::load: '{}' must hold three i64 numbers; got {} {}", who,
                                 prefix, name_of(t.dtype()), t.shape().str()));
  const auto v = t.to_vector<std::int64_t>();
  if (v[1] < 0 || v[1] >= kMaxEpoch || v[2] < 0 || v[2] > size)
    throw ValueError(
        fmt::format("{}::load: '{}' must hold a seed, an epoch from 0 and a position in [0, {}]; "
                    "got epoch {}, position {}. Hint: is it the same data set?",
                    who, prefix, size, v[1], v[2]));
  return {static_cast<std::uint64_t>(v[0]), v[1], v[2]};
}

void check_epoch(const std::string& who, std::int64_t epoch) {
  if (epoch < 0 || epoch >= kMaxEpoch)
    throw ValueError(
        fmt::format("{}: an epoch must lie in [0, {}); got {}", who, kMaxEpoch, epoch));
}

}  // namespace capsfw::detail
