#include "common/description.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <capsfw/core/allocator.hpp>
#include <capsfw/data/text.hpp>

namespace capsfw::apps {
namespace {

constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
constexpr int kMaxDepth = 8;
constexpr double kLargest = 0x1p31;
constexpr int kMostIterations = 1000;

}  // namespace

Json parse_description(const std::string& text) {
  if (text.size() > kMaxBytes)
    throw std::length_error(
        fmt::format("it must have at most {} bytes; got {}", kMaxBytes, text.size()));
  return Json::parse(text, [](int depth, Json::parse_event_t, const Json& value) {
    if (depth > kMaxDepth)
      throw std::out_of_range(fmt::format("it must not nest deeper than {}", kMaxDepth));
    if (value.is_number() && !(std::abs(value.get<double>()) < kLargest))
      throw std::out_of_range("its numbers must lie between -2^31 and 2^31");
    return true;
  });
}

std::vector<std::string> parse_class_names(const Json& j) {
  auto names = j.get<std::vector<std::string>>();
  for (const std::string& name : names)
    if (!is_printable(name))
      throw std::invalid_argument("names of classes must not have control characters");
  return names;
}

GrantedByFile::GrantedByFile(std::uintmax_t bytes) : before_(memory_limit()) {
  const std::size_t granted = memory_stats().live + 16 * bytes + (std::size_t{256} << 20);
  set_memory_limit(before_ == 0 ? granted : std::min(before_, granted));
}

GrantedByFile::~GrantedByFile() { set_memory_limit(before_); }

void check_iterations(const Classifier& net) {
  if (net.routing_iterations() > kMostIterations)
    throw std::out_of_range(fmt::format("routing iterations must not be more than {}; got {}",
                                        kMostIterations, net.routing_iterations()));
}

}  // namespace capsfw::apps
