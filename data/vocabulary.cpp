#include <capsfw/data/vocabulary.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

namespace capsfw {
namespace {

constexpr const char* kReserved[] = {"<pad>", "<unk>"};

/// The longest line of read_lines().
constexpr std::size_t kMaxWord = std::size_t{1} << 20;

/// Whether it can stand on a line of its own, be told from others, and be read again.
bool is_word(std::string_view w) {
  return !w.empty() && w.size() <= kMaxWord && w.find(' ') == std::string_view::npos &&
         is_printable(w);
}

}  // namespace

Vocabulary::Vocabulary() {
  for (const char* word : kReserved) add(word);
}

Vocabulary::Vocabulary(const std::vector<Words>& sentences, std::int64_t min_count) : Vocabulary() {
  if (min_count < 1)
    throw ValueError(fmt::format("Vocabulary: min_count must be at least 1; got {}", min_count));
  std::unordered_map<std::string_view, std::int64_t> counts;
  for (const Words& words : sentences)
    for (const std::string& word : words) {
      if (!is_word(word) || word == kReserved[0] || word == kReserved[1])
        throw ValueError(fmt::format(
            "Vocabulary: words must not be empty, <pad> or <unk>, nor have spaces or control "
            "characters, and must be UTF-8 of at most {} bytes; got '{}' of {} bytes",
            kMaxWord, shown(word), word.size()));
      ++counts[word];
    }
  std::vector<std::pair<std::string_view, std::int64_t>> list(counts.begin(), counts.end());
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) {
    return a.second != b.second ? a.second > b.second : a.first < b.first;
  });
  for (const auto& [word, count] : list)
    if (count >= min_count) add(std::string(word));
}

void Vocabulary::add(const std::string& word) {
  ids_.emplace(word, size());
  words_.push_back(word);
}

std::int64_t Vocabulary::id(std::string_view word) const {
  const auto found = ids_.find(word);
  return found == ids_.end() ? kUnknown : found->second;
}

const std::string& Vocabulary::word(std::int64_t id) const {
  if (id < 0 || id >= size())
    throw ValueError(fmt::format("Vocabulary: numbers lie in [0, {}); got {}", size(), id));
  return words_[static_cast<std::size_t>(id)];
}

std::vector<std::int64_t> Vocabulary::ids(const Words& words) const {
  if (words.empty()) return {kUnknown};
  std::vector<std::int64_t> out;
  out.reserve(words.size());
  for (const std::string& word : words) out.push_back(id(word));
  return out;
}

void Vocabulary::save(const std::filesystem::path& path) const {
  std::string text;
  for (const std::string& word : words_) text += word + '\n';
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

Vocabulary Vocabulary::load(const std::filesystem::path& path) {
  const std::vector<std::string> lines = read_lines(path, Encoding::utf8);
  const auto fail = [&](std::size_t line, const std::string& rule) {
    throw IoError(fmt::format("vocabulary '{}': line {}: {}", path.string(), line, rule));
  };
  Vocabulary v;
  for (std::size_t i = 0; i < 2; ++i)
    if (i >= lines.size() || lines[i] != kReserved[i])
      fail(i + 1,
           fmt::format("must be {}. Hint: is this the vocabulary of a saved model?", kReserved[i]));
  for (std::size_t i = 2; i < lines.size(); ++i) {
    if (!is_word(lines[i])) fail(i + 1, "must be one word, without spaces or control characters");
    if (v.contains(lines[i])) fail(i + 1, fmt::format("'{}' is there twice", shown(lines[i])));
    v.add(lines[i]);
  }
  return v;
}

LengthStatistics length_statistics(const std::vector<Words>& sentences) {
  LengthStatistics s;
  if (sentences.empty()) return s;
  std::vector<std::int64_t> lengths;
  for (const Words& words : sentences) lengths.push_back(static_cast<std::int64_t>(words.size()));
  std::sort(lengths.begin(), lengths.end());
  const auto n = static_cast<double>(lengths.size());
  const auto quantile = [&](double share) {
    return lengths[static_cast<std::size_t>(std::max(std::ceil(share * n) - 1, 0.0))];
  };
  s.sentences = static_cast<std::int64_t>(lengths.size());
  s.min = lengths.front();
  s.max = lengths.back();
  for (const std::int64_t length : lengths) s.mean += static_cast<double>(length) / n;
  s.median = quantile(0.5);
  s.p90 = quantile(0.9);
  s.p99 = quantile(0.99);
  return s;
}

}  // namespace capsfw
