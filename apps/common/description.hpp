#pragma once
// The description of a network in a file: JSON of a few kilobytes, which a stranger may have
// written.

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/layers/classifier.hpp>

namespace capsfw::apps {

using Json = nlohmann::json;

/// The JSON of a description. std::exception unless it is at most 1 MiB of valid JSON, nested at
/// most 8 deep, with numbers between −2^31 and 2^31 alone, which fit every option.
Json parse_description(const std::string& text);

/// Names of classes. std::exception unless they are a list of strings without control characters.
std::vector<std::string> parse_class_names(const Json& j);

/// std::out_of_range for a network with more than 1000 routing iterations, which would take as much
/// time and memory as the file likes.
void check_iterations(const Classifier& net);

/// While it lives, tensors may take what they take now, 16 times the bytes of a file, and 256 MiB:
/// the network that a file describes cannot be much larger than its weights. Beyond is a
/// MemoryError.
class GrantedByFile {
 public:
  explicit GrantedByFile(std::uintmax_t bytes);
  ~GrantedByFile();
  GrantedByFile(const GrantedByFile&) = delete;
  GrantedByFile& operator=(const GrantedByFile&) = delete;

 private:
  std::size_t before_;
};

/// An enum from 0 to `last`; std::out_of_range for other numbers, none of which a program of ours
/// writes.
template <class E>
E choice(const Json& j, E last) {
  const int value = j.get<int>();
  if (value < 0 || value > static_cast<int>(last))
    throw std::out_of_range(fmt::format("unknown kind {}", value));
  return static_cast<E>(value);
}

}  // namespace capsfw::apps
