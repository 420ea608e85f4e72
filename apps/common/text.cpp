#include "text.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>

namespace capsfw::apps {
namespace {

/// Letters to insert, remove or change to make `b` of `a` (Levenshtein).
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({change, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string wrapped(const std::string& text, std::size_t width, std::size_t indent) {
  std::string out;
  std::size_t column = indent;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (column > indent && column + 1 + word.size() > width) {
      out += '\n' + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

std::string closest(const std::string& word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t least = word.size() / 3 + 1;  // more changes than that are no slip of the finger
  for (const std::string& c : candidates)
    if (const std::size_t d = edit_distance(word, c); d < least) {
      least = d;
      best = c;
    }
  return best;
}

std::vector<std::string> split_at_commas(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    out.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

std::vector<std::string> split_list(const std::string& text,
                                    const std::vector<std::string>& known) {
  std::vector<std::string> out;
  for (const std::string& item : split_at_commas(text)) {
    if (!known.empty() && std::find(known.begin(), known.end(), item) == known.end())
      throw ValueError(fmt::format("must be a list of {}; got '{}'", fmt::join(known, ", "), item));
    if (item.empty() || std::find(out.begin(), out.end(), item) != out.end())
      throw ValueError(fmt::format("items must be different and not empty; got '{}'", text));
    out.push_back(item);
  }
  return out;
}

Spread spread_of(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double mean = 0, squares = 0;
  for (const double v : values) mean += v / n;
  for (const double v : values) squares += (v - mean) * (v - mean);
  return {mean, n < 2 ? 0.0 : std::sqrt(squares / (n - 1))};
}

std::string spread_text(const std::vector<double>& values, double scale, int digits) {
  const Spread s = spread_of(values);
  const std::string mean = fmt::format("{:.{}f}", scale * s.mean, digits);
  return values.size() < 2 ? mean : fmt::format("{} ± {:.{}f}", mean, scale * s.deviation, digits);
}

std::string percent(const std::vector<double>& shares) {
  return spread_text(shares, 100, 2) + " %";
}

double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

std::string ranked_scores(const std::vector<std::string>& names,
                          const std::vector<double>& scores) {
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  std::size_t width = 0;
  for (const std::string& name : names) width = std::max(width, name.size());
  std::string out = names[order[0]] + '\n';
  for (const std::size_t k : order) {
    const auto bar = static_cast<std::size_t>(std::lround(40 * std::clamp(scores[k], 0.0, 1.0)));
    out += fmt::format("  {:<{}}  {:.3f} {}\n", names[k], width, scores[k], std::string(bar, '#'));
  }
  return out;
}

std::size_t parse_bytes(const std::string& text) {
  const auto fail = [&] {
    return ValueError(
        fmt::format("must be a size as 512M, 2G or 2Gi, at least 1 byte; got '{}'", text));
  };
  double number = 0;
  const auto [end, code] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (code != std::errc()) throw fail();
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  double power = 1000;
  if (unit.size() > 1 && unit.back() == 'i') {
    power = 1024;
    unit.remove_suffix(1);
  }
  constexpr std::string_view kUnits = "kMGT";
  const std::size_t at = unit == "K" ? 0 : kUnits.find(unit);
  if (unit.size() > 1 || at == std::string_view::npos) throw fail();
  if (!unit.empty()) number *= std::pow(power, static_cast<double>(at + 1));
  if (!(number >= 1 && number <= 0x1p60)) throw fail();
  return static_cast<std::size_t>(number);
}

void save_text(const std::filesystem::path& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

}  // namespace capsfw::apps
