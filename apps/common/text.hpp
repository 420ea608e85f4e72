#pragma once
// Small things with words, for helps, hints and tables.

#include <filesystem>
#include <string>
#include <vector>

namespace capsfw::apps {

/// The words of `text` in lines of at most `width` columns, all but the first indented by `indent`
/// (the first one is taken to start there).
std::string wrapped(const std::string& text, std::size_t width, std::size_t indent);

/// The candidate that `word` was probably meant to be; "" if none is near.
std::string closest(const std::string& word, const std::vector<std::string>& candidates);

/// "a,b" as {"a", "b"}. ValueError where an item is empty, is there twice, or is none of `known`
/// (if any are given).
std::vector<std::string> split_list(const std::string& text,
                                    const std::vector<std::string>& known = {});

/// Shares as "98.76 %", their mean; of several with the standard deviation, "98.76 ± 0.12 %".
std::string percent(const std::vector<double>& shares);

/// "512M", "1.5G", "2Gi", "1000000" in bytes: k, M, G, T are powers of 1000, Ki to Ti of 1024.
/// ValueError for anything else, and for less than 1 or more than 2^60.
std::size_t parse_bytes(const std::string& text);

/// Writes a text file, complete or not at all. IoError as AtomicFile.
void save_text(const std::filesystem::path& path, const std::string& text);

}  // namespace capsfw::apps
