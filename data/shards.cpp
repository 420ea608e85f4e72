#include <capsfw/data/shards.hpp>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::detail {

void check_shards(const char* who, const Shards& s) {
  if (!(s.count >= 1 && s.begin >= 0 && s.begin <= s.end && s.end <= s.count))
    throw ValueError(fmt::format(
        "{}: shards must lie in [0, count) with a count of at least 1; got {} to {} of {}", who,
        s.begin, s.end, s.count));
}

}  // namespace capsfw::detail
