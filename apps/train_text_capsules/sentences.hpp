#pragma once
// Private: the sentences of a study, in words, and how each run parts them.

#include <cstdint>
#include <string>
#include <vector>

#include <capsfw/data/split.hpp>

#include "flags.hpp"

namespace capsfw::apps {

/// Sentences in words, with their classes.
struct Part {
  std::vector<Words> words;
  std::vector<std::int64_t> labels;

  std::int64_t size() const { return static_cast<std::int64_t>(labels.size()); }
  Part at(const std::vector<std::int64_t>& positions) const;
};

/// The parts of a run: what it trains on, chooses the epoch with, and is tested on.
struct SentenceSplit {
  Part train, dev, test;
};

/// All of a set.
class Sentences {
 public:
  /// Loads flags.data; `flags` must outlive it. UsageError for flags of parts that are not made.
  Sentences(const TextFlags& flags, const Args& args);

  const std::vector<std::string>& class_names() const { return data_.train.class_names; }
  std::int64_t classes() const { return data_.train.classes(); }
  const TokenizerOptions& tokenizer() const { return data_.tokenizer; }
  /// False: each fold is tested on in turn.
  bool has_test() const { return folds_.empty(); }
  /// `fold` counts from 0; the seed draws what is held out where the set has no part for it.
  SentenceSplit split(std::int64_t fold, std::uint64_t seed) const;
  /// Prints sizes, lengths and classes.
  void describe() const;
  /// One to try a network with, which a shell takes as it is.
  std::string example() const;

 private:
  const TextFlags& flags_;
  TextData data_;
  Part train_, dev_, test_;
  std::vector<SplitParts> folds_;
};

}  // namespace capsfw::apps
