#pragma once
// From a sentence to words.

#include <string>
#include <string_view>
#include <vector>

namespace capsfw {

/// The words of one sentence.
using Words = std::vector<std::string>;

/// Options of tokenize. Without clitics and punctuation it is the cleaning that Kim applies to SST,
/// whose sentences come in words already.
struct TokenizerOptions {
  bool split_clitics = true;      ///< it's -> it 's, don't -> do n't
  bool split_punctuation = true;  ///< , ! ? ( ) are words of their own
  bool lower = true;              ///< lower case
  bool edges = false;             ///< the words kFirstWord and kLastWord around each sentence
};

inline constexpr const char* kFirstWord = "<s>";  ///< marks where a sentence begins; no text has it
inline constexpr const char* kLastWord = "</s>";  ///< marks where it ends

/// The cleaning of the field (Kim 2014, Convolutional Neural Networks for Sentence Classification,
/// clean_str of its code): letters, digits and ( ) , ! ? ' ` stay, everything else (the full stop,
/// too) parts words; 's 've n't 're 'd 'll are split off. Three changes: letters outside of ASCII
/// stay letters (there they part words: "crème" becomes "cr me"), with lower case for Latin, Greek
/// and Cyrillic, and a typographic apostrophe is an apostrophe; and the letters are made small
/// first, for questions (TREC) too, so that N'T is split as n't is. Bytes that are no UTF-8 part
/// words. With `edges` an n-gram sees where a sentence begins and ends, as in the code of Kim,
/// which has zeros there; a text without words stays empty.
Words tokenize(std::string_view text, const TokenizerOptions& options = {});

}  // namespace capsfw
