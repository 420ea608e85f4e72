#pragma once
// What all networks for sentences have in common, so that one program trains, saves and compares
// them. B sentences of at most L words.

#include <vector>

#include <capsfw/layers/classifier.hpp>
#include <capsfw/layers/word_embedding.hpp>

namespace capsfw {

/// Sentences as a network sees them.
struct Sentences {
  Tensor words;                       ///< [B, L, dim]; 0 behind the end of a sentence
  std::vector<std::int64_t> lengths;  ///< words of each, at least what the network needs

  /// b8 [B, P]: which of P windows of `width` words, `stride` apart, lie in their sentence.
  /// Undefined if all do.
  Tensor exist(std::int64_t windows, std::int64_t width, std::int64_t stride = 1) const;
};

/// What the n-grams of a sentence say: N of them, each of `width` words, the first at word 0, the
/// others `stride` words apart; T capsules speak for each of them. Padding is left out.
struct NGramVotes {
  std::int64_t width = 0, stride = 1;  ///< in words
  Tensor couplings;                    ///< c of every capsule with every class [N, T, J]
  Tensor lengths;                      ///< ‖û‖ of its vote for the class [N, T, J]
  /// ⟨Σ_t c û, s_j / ‖s_j‖⟩ [N, J], s_j = Σ c û over all n-grams: their parts of ‖s_j‖, which add
  /// up to it.
  Tensor shares;
};

/// Why a network scored a sentence as it did.
struct TextExplanation {
  Tensor scores;                  ///< [J]
  std::vector<NGramVotes> grams;  ///< one for each width of the n-grams
};

/// A network from sentences to a score for each class. Results do not depend on the amount of
/// padding, in no bit: all that a network gets to see is cut to the longest sentence of the batch
/// first (docs/design/0050). Sentences that are shorter than the windows of the network count as if
/// they ended with words of zeros.
class TextClassifier : public Classifier {
 public:
  /// ids i64 [B, L], 0 = padding, 1 = an unknown word; mask b8 [B, L]: true where there is a word,
  /// all of them before the padding; undefined: everywhere. ShapeError unless they fit or with
  /// more words than a network of fixed length takes, DTypeError, ValueError for a mask with gaps.
  ClassifierOutput operator()(const Tensor& ids, const Tensor& mask = {});
  /// The same for vectors of words [B, L, dim], to differentiate by them.
  ClassifierOutput from_words(const Tensor& words, const Tensor& mask = {});

  /// Whether explain() has an answer: only where capsules vote for classes.
  virtual bool explains() const { return false; }
  /// What the n-grams of one sentence i64 [L], without padding, say about the classes. Nothing is
  /// recorded. ValueError for networks without capsules.
  virtual TextExplanation explain(const Tensor& ids);

  /// The vectors of its words.
  const WordEmbedding& words() const { return words_; }
  /// Words that a sentence counts as at least.
  std::int64_t least_length() const { return least_; }
  /// The most words that a sentence can have; 0: any number.
  std::int64_t longest() const { return longest_; }
  /// For a sentence of max(least_length(), 20) words, or of longest().
  std::string summary() override;

 protected:
  /// `who` names the network in messages, `table` [V, dim] is that of its words.
  TextClassifier(std::string who, const Tensor& table, WordTable kind, std::int64_t classes);
  /// Sentences count as `least` words at least. With `longest` > 0, all are filled up to that many;
  /// places beyond their end do not exist.
  void set_length(std::int64_t least, std::int64_t longest = 0);
  /// The scores of sentences that have been cut.
  virtual ClassifierOutput classify(const Sentences& sentences) = 0;
  /// Cut and filled up. As operator().
  Sentences cut(const Tensor& ids, const Tensor& mask);

 private:
  std::vector<std::int64_t> count_words(const Tensor& x, const Tensor& mask) const;
  std::int64_t cut_to(const std::vector<std::int64_t>& lengths) const;

  WordEmbedding words_;
  std::int64_t least_ = 1, longest_ = 0;
};

}  // namespace capsfw
