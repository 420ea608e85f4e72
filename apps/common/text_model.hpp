#pragma once
// Networks for sentences in a folder: weights, architecture, classes and cleaning in one file, the
// vocabulary as text beside it.

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <capsfw/data/text_loader.hpp>
#include <capsfw/data/tokenizer.hpp>
#include <capsfw/data/vocabulary.hpp>
#include <capsfw/layers/text_classifier.hpp>

namespace capsfw::apps {

inline constexpr const char* kTextWeights = "model.safetensors";
inline constexpr const char* kTextVocabulary = "vocabulary.txt";

/// What reads a sentence.
struct TextModel {
  std::unique_ptr<TextClassifier> net = {};
  Vocabulary vocabulary = {};
  TokenizerOptions tokenizer = {};
  std::vector<std::string> class_names = {};
  std::int64_t max_length = 0;  ///< words that were read of a sentence in training; 0: all

  /// The words of a text as they are cleaned, cut to the longest sentence that the network takes
  /// or was trained on. ValueError if none is left.
  Words words(std::string_view text) const;
};

/// Writes kTextWeights and kTextVocabulary into the folder. ValueError for a class of networks that
/// is not in the table of text_model.cpp.
void save_text_model(const std::filesystem::path& folder, const TextModel& model);

/// Reads what save_text_model wrote. IoError if a file is missing, is none of these or is damaged,
/// if weights are not finite, or if the vocabulary is not that of the weights.
TextModel load_text_model(const std::filesystem::path& folder);

}  // namespace capsfw::apps
