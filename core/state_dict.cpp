#include <capsfw/core/state_dict.hpp>

#include <fmt/format.h>

namespace capsfw {

void StateDict::set(const std::string& name, const Tensor& value) {
  const auto [it, added] = index_.try_emplace(name, entries_.size());
  if (added)
    entries_.emplace_back(name, value);
  else
    entries_[it->second].second = value;
}

const Tensor& StateDict::at(std::string_view name) const {
  const auto it = index_.find(std::string(name));
  if (it != index_.end()) return entries_[it->second].second;
  std::string have;
  for (std::size_t i = 0; i < entries_.size() && i < 8; ++i)
    have += (i ? ", " : "") + entries_[i].first;
  throw ValueError(fmt::format("state: no entry '{}' among {} ({}{})", name, size(), have,
                               size() > 8 ? ", ..." : ""));
}

StateDict StateDict::under(std::string_view prefix) const {
  const std::string start = std::string(prefix) + ".";
  StateDict out;
  for (const auto& [name, value] : entries_)
    if (name.starts_with(start)) out.set(name.substr(start.size()), value);
  return out;
}

void StateDict::merge(std::string_view prefix, const StateDict& other) {
  for (const auto& [name, value] : other) set(fmt::format("{}.{}", prefix, name), value);
}

}  // namespace capsfw
