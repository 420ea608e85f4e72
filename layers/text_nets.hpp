#pragma once
// Networks for sentences without capsules, to compare with.

#include <memory>
#include <vector>

#include <capsfw/layers/recurrent.hpp>
#include <capsfw/layers/text_capsules.hpp>

namespace capsfw {

/// Options of TextCnn.
struct TextCnnOptions {
  std::vector<std::int64_t> ngrams = {3, 4, 5};  ///< widths of filters, in words
  std::int64_t filters = 100;                    ///< for each
  double dropout = 0.5;                          ///< of the features in front of the classes
  WordTable words = WordTable::fixed;            ///< are word vectors trained?
};

/// For every n of `ngrams` filters over every n words, relu, the maximum over the places of the
/// sentence; then dropout and an affine map to the logits. lengths = sigmoid(logits).   Kim 2014,
/// Convolutional Neural Networks for Sentence Classification, section 2. ValueError for sizes below
/// 1.
class TextCnn : public TextClassifier {
 public:
  TextCnn(const Tensor& table, std::int64_t classes, const TextCnnOptions& options, Rng& rng);
  const TextCnnOptions& options() const { return options_; }

 protected:
  ClassifierOutput classify(const Sentences& sentences) override;

 private:
  TextCnnOptions options_;
  std::vector<std::unique_ptr<NGramConv>> convs_;
  Dropout dropout_;
  Linear logits_;
};

/// Which cell reads the words.
enum class RecurrentKind { lstm, gru };
/// "lstm" or "gru". ValueError listing the names.
RecurrentKind recurrent_kind(std::string_view name);

/// What a recurrent network keeps of its states.
enum class StatePool {
  last,  ///< the state after the last word, of each direction
  max,   ///< the maximum over the words
  mean   ///< the mean over the words
};
/// "last", "max" or "mean". ValueError listing the names.
StatePool state_pool(std::string_view name);

/// Options of TextRnn.
struct TextRnnOptions {
  RecurrentKind cell = RecurrentKind::lstm;  ///< which cell reads the words
  std::int64_t hidden = 128;                 ///< of each direction
  bool bidirectional = true;                 ///< read from both ends
  StatePool pool = StatePool::last;          ///< what becomes of the states
  double dropout = 0.5;                      ///< of the features in front of the classes
  WordTable words = WordTable::fixed;        ///< are word vectors trained?
};

/// A recurrent layer over the words, one vector of its states, dropout, an affine map to the
/// logits. lengths = sigmoid(logits).   Hochreiter, Schmidhuber 1997; Cho et al. 2014; both
/// directions: Schuster, Paliwal 1997. ValueError for sizes below 1.
class TextRnn : public TextClassifier {
 public:
  TextRnn(const Tensor& table, std::int64_t classes, const TextRnnOptions& options, Rng& rng);
  const TextRnnOptions& options() const { return options_; }

 protected:
  ClassifierOutput classify(const Sentences& sentences) override;

 private:
  TextRnnOptions options_;
  std::unique_ptr<RecurrentLayer> states_;
  Dropout dropout_;
  Linear logits_;
};

}  // namespace capsfw
