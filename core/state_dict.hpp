#pragma once
// An ordered map from names to tensors: what modules, optimizers, generators and loaders export,
// and what files hold (data/safetensors.hpp).

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Names in the order of insertion, each with a tensor.
class StateDict {
 public:
  using Entry = std::pair<std::string, Tensor>;  ///< name and value

  /// Adds or replaces.
  void set(const std::string& name, const Tensor& value);
  /// Is there an entry of this name?
  bool contains(std::string_view name) const { return index_.contains(std::string(name)); }
  /// ValueError if there is none of this name, naming those that are most like it.
  const Tensor& at(std::string_view name) const;
  /// The entries whose names start with "<prefix>.", without it.
  StateDict under(std::string_view prefix) const;
  /// Adds all entries of `other` as "<prefix>.<name>".
  void merge(std::string_view prefix, const StateDict& other);

  std::size_t size() const { return entries_.size(); }  ///< number of entries
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace capsfw
