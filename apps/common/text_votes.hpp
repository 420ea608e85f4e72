#pragma once
// Which words voted for which class: TextExplanation for people, as lines, as a page, as a picture.

#include <string>
#include <vector>

#include <capsfw/data/tokenizer.hpp>
#include <capsfw/layers/text_classifier.hpp>

namespace capsfw::apps {

/// An n-gram and what it says about a class.
struct GramVote {
  std::int64_t begin = 0, end = 0;  ///< its words
  double share = 0;                 ///< its part of ‖s‖ of the class capsule, before the squash
  double coupling = 0;              ///< mean over its capsules
};

/// A sentence with the votes of its n-grams, ready to be shown.
class TextVotes {
 public:
  /// `known`: which of the words are in the vocabulary. ShapeError unless explanation, words and
  /// names fit.
  TextVotes(Words words,
            std::vector<bool> known,
            std::vector<std::string> class_names,
            const TextExplanation& explanation);

  /// Classes by falling score.
  const std::vector<std::int64_t>& ranking() const { return ranking_; }
  double score(std::int64_t k) const { return scores_[static_cast<std::size_t>(k)]; }
  /// What word i says about class k: the shares of the n-grams that hold it, each divided evenly
  /// among its words, averaged over the widths. Over all words they add up to the mean of ‖s‖, the
  /// length of the class capsule before the squash, over the widths.
  double heat(std::int64_t word, std::int64_t k) const;
  /// The n-grams with the largest shares of class k, at most `n`.
  std::vector<GramVote> top(std::int64_t k, std::size_t n) const;

  /// For a terminal: a line of words for each of the `classes` best, coloured, or with their
  /// numbers; then the n-grams of the best class.
  std::string terminal(bool color, std::size_t classes = 4) const;
  /// A page of its own, without links to anywhere.
  std::string html(std::size_t classes = 8) const;
  /// Classes by words, of which the first hundred; [3, height, width] for save_png().
  Tensor picture(std::size_t classes = 8) const;

 private:
  std::string gram_text(const GramVote& g) const;
  std::vector<std::int64_t> best(std::size_t classes) const;
  double largest_heat() const;

  Words words_;
  std::vector<bool> known_;
  std::vector<std::string> class_names_;
  std::vector<double> scores_, heat_;  // heat_ [L, J]
  std::vector<std::int64_t> ranking_;
  std::vector<std::vector<GramVote>> grams_;  // by class
};

/// & < > " ' as entities.
std::string html_escaped(std::string_view text);

}  // namespace capsfw::apps
