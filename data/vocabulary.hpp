#pragma once
// Words as numbers.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <capsfw/data/tokenizer.hpp>

namespace capsfw {

/// A numbered list of words: 0 pads, 1 stands for every word that is not in the list.
class Vocabulary {
 public:
  /// Numbers of padding and of unknown words.
  static constexpr std::int64_t kPad = 0, kUnknown = 1;

  /// Padding and the unknown word alone.
  Vocabulary();
  /// The words that occur at least `min_count` times in `sentences` (those of the training part, so
  /// that the test part stays unseen), by falling frequency, of equals in the order of their bytes.
  /// ValueError if min_count < 1 or a word is empty, has a space or a control character (below
  /// U+0020, U+007F to U+009F), is no UTF-8, is longer than 1 MiB, or is "<pad>" or "<unk>": load()
  /// would not take it back.
  explicit Vocabulary(const std::vector<Words>& sentences, std::int64_t min_count = 1);

  /// With the two above.
  std::int64_t size() const { return static_cast<std::int64_t>(words_.size()); }
  /// Does it have a number of its own?
  bool contains(std::string_view word) const { return ids_.contains(word); }
  /// kUnknown for a word that is not in the list.
  std::int64_t id(std::string_view word) const;
  /// "<pad>", "<unk>", or the word. ValueError out of range.
  const std::string& word(std::int64_t id) const;
  /// The number of every word; a sentence without words is one unknown word, so that no sentence is
  /// empty.
  std::vector<std::int64_t> ids(const Words& words) const;

  /// A word on each line, in the order of their numbers; complete or not at all.
  void save(const std::filesystem::path& path) const;
  /// What save() wrote. IoError naming file and line for anything else: other first lines, a word
  /// that is empty, has a space or a control character, or is there twice.
  static Vocabulary load(const std::filesystem::path& path);

 private:
  struct Hash {
    // Look-ups by string_view, without a copy; a name of the standard.
    using is_transparent = void;  // NOLINT(readability-identifier-naming)
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  void add(const std::string& word);

  std::vector<std::string> words_;
  std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>> ids_;
};

/// Lengths of sentences, in words.
struct LengthStatistics {
  std::int64_t sentences = 0, min = 0, max = 0;  ///< how many, shortest, longest
  double mean = 0;                               ///< words a sentence
  std::int64_t median = 0, p90 = 0, p99 = 0;     ///< at least half, 90 %, 99 % are not longer
};
/// All zero for no sentences.
LengthStatistics length_statistics(const std::vector<Words>& sentences);

}  // namespace capsfw
