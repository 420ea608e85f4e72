#include <capsfw/core/state_dict.hpp>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace capsfw {
namespace {

/// The least number of letters to insert, delete or exchange that makes `b` of `a`.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j)
      diagonal = std::exchange(
          row[j + 1], std::min({row[j] + 1, row[j + 1] + 1, diagonal + (a[i] == b[j] ? 0 : 1)}));
  }
  return row.back();
}

}  // namespace

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
  constexpr std::size_t kNamed = 8;
  std::vector<std::pair<std::size_t, std::size_t>> nearest;  // what differs, and the place
  for (std::size_t i = 0; i < entries_.size(); ++i)
    nearest.emplace_back(edits(name, entries_[i].first), i);
  std::sort(nearest.begin(), nearest.end());
  std::string have;
  for (std::size_t i = 0; i < nearest.size() && i < kNamed; ++i)
    have += (i ? ", " : "") + entries_[nearest[i].second].first;
  throw ValueError(fmt::format("state: no entry '{}' among {} ({}{})", name, size(), have,
                               size() > kNamed ? ", ..." : ""));
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
