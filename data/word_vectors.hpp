#pragma once
// Vectors of words: random ones, and those of word2vec and GloVe.

#include <cstdint>
#include <filesystem>

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/data/vocabulary.hpp>

namespace capsfw {

/// A table of vectors for a vocabulary.
struct WordVectors {
  Tensor table;            ///< f32 [V, dim]; row Vocabulary::kPad is zero
  std::int64_t found = 0;  ///< words of the vocabulary that the file has
  /// found / (V - 2): the share of the words, padding and the unknown word not counted; 0 for none.
  double share() const;
};

/// Every row uniform in [-range, range), but the one that pads, which is zero. The 0.25 is that of
/// Kim 2014 for words without a vector: about the variance of the vectors of word2vec. ValueError
/// unless dim ≥ 1 and range ≥ 0 is finite.
WordVectors random_vectors(const Vocabulary& vocabulary,
                           std::int64_t dim,
                           Rng& rng,
                           double range = 0.25);

/// Formats of files of word vectors.
enum class VectorFormat : std::uint8_t {
  detect,           ///< by the first line, and whether text follows
  word2vec_text,    ///< "COUNT DIM", then "word x1 x2 ..." on each line
  word2vec_binary,  ///< "COUNT DIM\n", then "word " and DIM little-endian f32, each record
  glove             ///< lines as in word2vec_text, without the first one
};

/// The vectors of the words in the vocabulary from a file of any size, of which a few MiB are in
/// memory at a time: the file is read once from its beginning, and only the numbers of words in the
/// vocabulary are parsed. The other rows are as in random_vectors. Of a word that the file has
/// twice the first vector counts; words are compared byte by byte. In GloVe files a word may have
/// spaces, as a few in the large published ones do.   IoError naming file, line (or record) and
/// rule: a first line or record that is none, a dimension outside [1, 10000], a line with fewer or
/// more numbers, a count that the file does not keep (too few, too many, or more bytes than there
/// are), a record or number that is cut off, something that is no number, or not finite, and an
/// empty file.
WordVectors load_word_vectors(const std::filesystem::path& path,
                              const Vocabulary& vocabulary,
                              Rng& rng,
                              VectorFormat format = VectorFormat::detect);

}  // namespace capsfw
