#include <capsfw/data/tokenizer.hpp>

#include "detail/utf8.hpp"

namespace capsfw {
namespace {

constexpr char32_t kApostrophe = U'\'';

/// Letters of any script, roughly: every code point from U+00AA on that is no control, sign or
/// punctuation of the blocks that European text uses.
bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  if (c < 0xC0) return c == 0xAA || c == 0xB5 || c == 0xBA;
  if (c == 0xD7 || c == 0xF7) return false;      // × ÷
  if (c >= 0x2000 && c <= 0x2BFF) return false;  // punctuation, currency, arrows, symbols
  if (c >= 0x3000 && c <= 0x3004) return false;  // ideographic space and stops
  if (c >= 0x3008 && c <= 0x3020) return false;  // brackets
  if (c >= 0xD800 && c <= 0xF8FF) return false;  // surrogates, private use
  if (c >= 0xFE00 && c <= 0xFE6F) return false;  // selectors, small forms
  if (c >= 0xFF00 && c <= 0xFF20) return c >= 0xFF10 && c <= 0xFF19;  // full-width signs, digits
  return c < 0xFFF0 || (c >= 0x10000 && c < 0x1F000) || (c >= 0x20000 && c < 0xE0000);
}

char32_t lower(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  if (c >= 0xC0 && c <= 0xDE) return c == 0xD7 ? c : c + 32;
  if (c == 0x130) return 'i';
  if (c == 0x178) return 0xFF;
  // Latin Extended-A: capitals are even, but odd in two stretches.
  if ((c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17E)) return c + (c & 1);
  if (c >= 0x100 && c <= 0x177 && c != 0x131 && c != 0x138) return c | 1;
  if (c >= 0x391 && c <= 0x3A9 && c != 0x3A2) return c + 32;
  if (c >= 0x410 && c <= 0x42F) return c + 32;
  if (c >= 0x400 && c <= 0x40F) return c + 80;
  return c;
}

bool is_kept_sign(char32_t c) {
  return c < 0x80 && std::string_view("(),!?'`").find(static_cast<char>(c)) != std::string::npos;
}
bool is_separate(char c) { return std::string_view("(),!?").find(c) != std::string::npos; }

/// What stays of the text, with a space for everything else.
std::string cleaned(std::string_view text, bool make_lower) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    char32_t c = detail::next_code_point(text, at);
    if (c == 0x2019 || c == 0x2BC) c = kApostrophe;
    const bool digit = c >= '0' && c <= '9';
    if (is_letter(c) || digit || is_kept_sign(c))
      detail::append_utf8(out, make_lower ? lower(c) : c);
    else
      out += ' ';
  }
  return out;
}

/// True if a word has to end before out[i].
bool clitic_at(std::string_view s, std::size_t i) {
  const std::string_view rest = s.substr(i);
  if (rest.starts_with("n't")) return true;
  for (const char* clitic : {"'s", "'ve", "'re", "'d", "'ll"})
    if (rest.starts_with(clitic)) return true;
  return false;
}

}  // namespace

Words tokenize(std::string_view text, const TokenizerOptions& options) {
  const std::string s = cleaned(text, options.lower);
  Words words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  for (std::size_t i = 0; i < s.size(); ++i) {
    const bool alone = options.split_punctuation && is_separate(s[i]);
    if (s[i] == ' ' || alone || (options.split_clitics && clitic_at(s, i))) end_word();
    if (s[i] != ' ') word += s[i];
    if (alone) end_word();
  }
  end_word();
  if (options.edges && !words.empty()) {
    words.insert(words.begin(), kFirstWord);
    words.emplace_back(kLastWord);
  }
  return words;
}

}  // namespace capsfw
