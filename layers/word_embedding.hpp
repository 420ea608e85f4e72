#pragma once
// Words as vectors.

#include <string_view>

#include <capsfw/layers/module.hpp>

namespace capsfw {

/// What training does to a table of word vectors.
enum class WordTable {
  fixed,  ///< nothing: it is a buffer. "static" in Kim 2014
  tuned,  ///< it is a parameter
  both    ///< there are two of it, one fixed and one tuned: two channels
};

/// "static", "tuned" or "both". ValueError listing the names.
WordTable word_table(std::string_view name);

/// Rows of a table [V, dim]: ids i64 [...] -> [..., dim]. Id 0 stands for padding: its vector is 0,
/// whatever row 0 of the table holds, and it has no gradient. With WordTable::both the vectors of
/// the two tables stand behind one another, [..., 2 dim], so that a filter over them has a part for
/// each channel and their results add up.   Kim 2014, Convolutional Neural Networks for Sentence
/// Classification, section 3.1 (CNN-static, CNN-non-static, CNN-multichannel).   Parameter or
/// buffer: `weight`; both: `fixed` and `weight`. The table is copied, in f32 like all parameters at
/// first. ShapeError unless it is [V, dim] with two rows at least; ValueError for an id that has no
/// row.
class WordEmbedding : public Layer {
 public:
  explicit WordEmbedding(const Tensor& table, WordTable kind = WordTable::fixed);
  WordTable kind() const { return kind_; }  ///< are the vectors trained?
  /// Rows of the table V.
  std::int64_t words() const { return weight.size(0); }
  /// Numbers of a word: dim, or 2 dim.
  std::int64_t dim() const { return weight.size(1) * (fixed.defined() ? 2 : 1); }

  Tensor weight;  ///< [V, dim]
  Tensor fixed;   ///< [V, dim], WordTable::both only

 protected:
  Tensor forward(const Tensor& ids) override;

 private:
  WordTable kind_;
};

}  // namespace capsfw
