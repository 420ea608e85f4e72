#include "spec.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "common/args.hpp"
#include "common/text.hpp"

namespace capsfw::bench {

void Spec::fail(const std::string& rule) const {
  throw apps::UsageError(fmt::format("workload '{}': {}", text_, rule));
}

Spec::Spec(std::string text) : text_(std::move(text)) {
  const std::size_t colon = std::min(text_.find(':'), text_.size());
  family_ = text_.substr(0, colon);
  if (colon == text_.size()) return;
  for (const std::string& part : apps::split_at_commas(text_.substr(colon + 1))) {
    const std::size_t equal = part.find('=');
    if (equal == std::string::npos || equal == 0 || equal + 1 == part.size())
      fail(fmt::format("must look like family:key=value,key=value; got '{}'", part));
    if (!values_.emplace(part.substr(0, equal), part.substr(equal + 1)).second)
      fail(fmt::format("'{}' is given twice", part.substr(0, equal)));
  }
}

std::int64_t Spec::integer(const std::string& key, std::int64_t fallback, std::int64_t min) {
  asked_.insert(key);
  const auto it = values_.find(key);
  if (it == values_.end()) return fallback;
  std::int64_t value = 0;
  const char* end = it->second.data() + it->second.size();
  const auto [stop, error] = std::from_chars(it->second.data(), end, value);
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  if (error != std::errc() || stop != end || value < min || value > kMost)
    fail(fmt::format("{} must be an integer of {} to {}; got '{}'", key, min, kMost, it->second));
  return value;
}

std::string Spec::word(const std::string& key, const std::vector<std::string>& words) {
  asked_.insert(key);
  const auto it = values_.find(key);
  if (it == values_.end()) return words.front();
  if (std::find(words.begin(), words.end(), it->second) == words.end())
    fail(fmt::format("{} must be one of {}; got '{}'", key, fmt::join(words, ", "), it->second));
  return it->second;
}

void Spec::finish() const {
  for (const auto& [key, value] : values_)
    if (!asked_.contains(key))
      fail(fmt::format("no key '{}'; {} has {}", key, family_, fmt::join(asked_, ", ")));
}

}  // namespace capsfw::bench
