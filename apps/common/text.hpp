#pragma once
// Small things with words, for helps and hints.

#include <string>
#include <vector>

namespace capsfw::apps {

/// The words of `text` in lines of at most `width` columns, all but the first indented by `indent`
/// (the first one is taken to start there).
std::string wrapped(const std::string& text, std::size_t width, std::size_t indent);

/// The candidate that `word` was probably meant to be; "" if none is near.
std::string closest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace capsfw::apps
