#pragma once
// Small things with words and numbers, for helps, hints and tables.

#include <filesystem>
#include <string>
#include <vector>

namespace capsfw::apps {

/// The words of `text` in lines of at most `width` columns, all but the first indented by `indent`
/// (the first one is taken to start there).
std::string wrapped(const std::string& text, std::size_t width, std::size_t indent);

/// The candidate that `word` was probably meant to be; "" if none is near.
std::string closest(const std::string& word, const std::vector<std::string>& candidates);

/// "a,b" as {"a", "b"}; "" as {""}.
std::vector<std::string> split_at_commas(const std::string& text);

/// The same, of names. ValueError where an item is empty, is there twice, or is none of `known` (if
/// any are given).
std::vector<std::string> split_list(const std::string& text,
                                    const std::vector<std::string>& known = {});

/// Mean and standard deviation of a sample, 0 for fewer than two values.
struct Spread {
  double mean = 0, deviation = 0;
};
Spread spread_of(const std::vector<double>& values);
/// The mean times `scale`, "98.76"; of several values with the deviation, "98.76 ± 0.12".
std::string spread_text(const std::vector<double>& values, double scale, int digits);
/// Shares as "98.76 %" or "98.76 ± 0.12 %".
std::string percent(const std::vector<double>& shares);

/// The middle value, of an even count the mean of the two in the middle; NaN of none.
double median(std::vector<double> values);

/// The name with the highest score, and below it a line for each, from there down, with a bar.
std::string ranked_scores(const std::vector<std::string>& names, const std::vector<double>& scores);

/// "512M", "1.5G", "2Gi", "1000000" in bytes: k, M, G, T are powers of 1000, Ki to Ti of 1024.
/// ValueError for anything else, and for less than 1 or more than 2^60.
std::size_t parse_bytes(const std::string& text);

/// Writes a text file, complete or not at all. IoError as AtomicFile.
void save_text(const std::filesystem::path& path, const std::string& text);

}  // namespace capsfw::apps
