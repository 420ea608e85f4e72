#pragma once
// Batches of sentences.

#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/data/batch_iterator.hpp>
#include <capsfw/data/shards.hpp>
#include <capsfw/data/vocabulary.hpp>

namespace capsfw {

/// Sentences as numbers of words, with a class each.
struct EncodedText {
  std::vector<std::vector<std::int64_t>> ids;  ///< words of each sentence
  std::vector<std::int64_t> labels;            ///< class of each

  /// Number of sentences.
  std::int64_t size() const { return static_cast<std::int64_t>(ids.size()); }
};

/// Every sentence as Vocabulary::ids has it. ValueError if there are not as many labels.
EncodedText encode(const std::vector<Words>& sentences,
                   const std::vector<std::int64_t>& labels,
                   const Vocabulary& vocabulary);

/// What TextLoader::next gives.
struct TextBatch {
  Tensor ids;     ///< i64 [B, L], Vocabulary::kPad behind the words
  Tensor mask;    ///< b8 [B, L], true where there is a word
  Tensor labels;  ///< i64 [B]
  std::int64_t size() const { return labels.size(0); }  ///< sentences in it
};

/// Options of TextLoader.
struct TextLoaderOptions {
  std::int64_t batch_size = 50;  ///< sentences in a batch
  bool shuffle = false;          ///< a new order in every epoch; else the order of the set
  std::int64_t bucket = 32;     ///< shuffled: so many batches share sentences by length; 1: none do
  std::int64_t min_length = 1;  ///< L is at least this: the widest window of a network
  std::int64_t max_length = 0;  ///< longer sentences lose what is behind; 0: no limit
  std::uint64_t seed = 0;       ///< of the orders
};

/// Walks through sentences epoch by epoch, as DataLoader does through images:
///
///   TextLoader loader(text, {.batch_size = 50, .shuffle = true});
///   for (const TextBatch& batch : loader) ...  // one epoch; the next loop is the next epoch
///
/// L is the length of the longest sentence in the batch, at least min_length. Shuffled, sentences
/// of like length share a batch: the set is put in random order and cut into stretches of `bucket`
/// batches; each stretch is sorted by length and cut into batches; the batches are put in random
/// order. The order is a function of the set, the options and the number of the epoch alone. Shares
/// nothing with threads. A loader that was moved from has no batches. ValueError if the set is
/// empty, a sentence has no words or no label, or an option lies outside its range.
class TextLoader {
 public:
  explicit TextLoader(EncodedText text, TextLoaderOptions options = {});

  /// The next batch of this epoch; or false, and an empty batch, at its end, after which the next
  /// epoch begins. ValueError after shard(): a batch then has several parts.
  bool next(TextBatch& batch);
  /// The shards of the next batch that are given here, as DataLoader has them, each padded to its
  /// own longest sentence.
  bool next(std::vector<TextBatch>& shards);
  /// Cuts batches into shards from the next one on. ValueError as Shards has it.
  void shard(const Shards& shards);
  /// Sentences in the last batch, in all of its shards.
  std::int64_t drawn() const { return drawn_; }

  /// Batches per epoch.
  std::int64_t size() const { return static_cast<std::int64_t>(starts_.size()); }
  /// Sentences in the set.
  std::int64_t sentences() const { return text_.size(); }
  const EncodedText& text() const { return text_; }  ///< the sentences
  const TextLoaderOptions& options() const { return options_; }
  /// The epoch that the next batch belongs to, from 0.
  std::int64_t epoch() const { return epoch_; }
  /// Goes to the first batch of an epoch. ValueError if it is negative or 2^40 or more.
  void start_epoch(std::int64_t epoch);

  /// Seed, epoch and position as i64 [3] under `prefix`, as DataLoader has them; the position
  /// counts batches.
  void save(StateDict& state, const std::string& prefix) const;
  /// ValueError, and nothing changed, if the entry is missing or does not fit the set.
  void load(const StateDict& state, const std::string& prefix);

  using Iterator = BatchIterator<TextLoader, TextBatch>;  ///< reads what is left of the epoch
  Iterator begin() { return Iterator(*this); }
  std::default_sentinel_t end() { return {}; }

 private:
  void plan();

  EncodedText text_;
  TextLoaderOptions options_;
  Shards shards_;
  std::int64_t epoch_ = 0, batch_ = 0, drawn_ = 0;
  bool planned_ = false;
  std::vector<std::int64_t> order_;   // positions of sentences, batch behind batch
  std::vector<std::int64_t> starts_;  // of the batches in order_, in the order of the epoch
};

/// One batch of sentences padded to one length: what TextLoader makes of them. `positions` may
/// repeat. ValueError for a position outside of [0, text.size()), a negative length, or a set with
/// another number of labels than of sentences.
TextBatch pad_batch(const EncodedText& text,
                    const std::vector<std::int64_t>& positions,
                    std::int64_t min_length = 1,
                    std::int64_t max_length = 0);

/// Texts of two sentences each.
struct TextPairs {
  EncodedText text;  ///< the words of both; labels: the class of the first
  Tensor labels;     ///< i64 [N, 2]: the classes of the first and of the second
};

/// Texts with two classes from sentences with one, to see what a network that was trained on single
/// classes finds in them (the transfer from single to several labels of Zhao et al. 2018,
/// Investigating Capsule Networks with Dynamic Routing for Text Classification, section 4): each
/// sentence is followed by another one, a random permutation of the set; pairs of one class are
/// left out. A function of the set and the seed. ValueError if there are not as many labels as
/// sentences.
TextPairs join_pairs(const EncodedText& text, std::uint64_t seed = 0);

}  // namespace capsfw
