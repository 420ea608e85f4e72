#pragma once
// The name of a workload: "family:key=value,key=value", for example "capsnet:mode=train,B=128".

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace capsfw::bench {

/// A parsed name. Makers ask for the keys that they know, each with its default, and then call
/// finish().
class Spec {
 public:
  /// UsageError unless `text` has the form above.
  explicit Spec(std::string text);

  const std::string& text() const { return text_; }
  const std::string& family() const { return family_; }
  /// The integer at `key`, at least `min`.
  std::int64_t integer(const std::string& key, std::int64_t fallback, std::int64_t min = 1);
  /// The word at `key`: one of `words`, of which the first is the default.
  std::string word(const std::string& key, const std::vector<std::string>& words);
  /// UsageError if the text has a key that nobody asked for.
  void finish() const;

 private:
  [[noreturn]] void fail(const std::string& rule) const;

  std::string text_, family_;
  std::map<std::string, std::string> values_;
  std::set<std::string> asked_;
};

}  // namespace capsfw::bench
