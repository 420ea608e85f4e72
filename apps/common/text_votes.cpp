#include "common/text_votes.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "common/heat.hpp"

namespace capsfw::apps {
namespace {

int byte(float v) { return static_cast<int>(std::lround(v * 255)); }

}  // namespace

std::string html_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  return out;
}

TextVotes::TextVotes(Words words,
                     std::vector<bool> known,
                     std::vector<std::string> class_names,
                     const TextExplanation& e)
    : words_(std::move(words)),
      known_(std::move(known)),
      class_names_(std::move(class_names)),
      scores_(e.scores.to_vector<double>()),
      heat_(words_.size() * class_names_.size()),
      grams_(class_names_.size()) {
  const std::size_t classes = class_names_.size();
  const auto length = static_cast<std::int64_t>(words_.size());
  if (scores_.size() != classes || known_.size() != words_.size() || words_.empty() ||
      e.grams.empty())
    throw ShapeError(fmt::format("TextVotes: {} scores for {} classes, {} words, {} n-grams",
                                 scores_.size(), classes, words_.size(), e.grams.size()));
  for (const NGramVotes& g : e.grams) {
    const auto shares = g.shares.to_vector<double>(), couplings = g.couplings.to_vector<double>();
    const std::int64_t types = g.couplings.size(1);
    if (g.shares.size(1) != static_cast<std::int64_t>(classes))
      throw ShapeError(
          fmt::format("TextVotes: shares {} for {} classes", g.shares.shape().str(), classes));
    for (std::int64_t n = 0; n < g.shares.size(0); ++n) {
      // Behind the end of a short sentence there are words of zeros, which nobody can see.
      const std::int64_t begin = n * g.stride, end = std::min(begin + g.width, length);
      if (begin >= end) continue;
      for (std::size_t k = 0; k < classes; ++k) {
        GramVote vote{begin, end, shares[static_cast<std::size_t>(n) * classes + k], 0};
        for (std::int64_t t = 0; t < types; ++t)
          vote.coupling += couplings[static_cast<std::size_t>(n * types + t) * classes + k] /
                           static_cast<double>(types);
        grams_[k].push_back(vote);
        for (std::int64_t i = begin; i < end; ++i)
          heat_[static_cast<std::size_t>(i) * classes + k] +=
              vote.share /
              static_cast<double>((end - begin) * static_cast<std::int64_t>(e.grams.size()));
      }
    }
  }
  for (auto& list : grams_)
    std::stable_sort(list.begin(), list.end(),
                     [](const GramVote& a, const GramVote& b) { return a.share > b.share; });
  ranking_.resize(classes);
  std::iota(ranking_.begin(), ranking_.end(), 0);
  std::stable_sort(ranking_.begin(), ranking_.end(),
                   [&](std::int64_t a, std::int64_t b) { return score(a) > score(b); });
}

double TextVotes::heat(std::int64_t word, std::int64_t k) const {
  return heat_[static_cast<std::size_t>(word) * class_names_.size() + static_cast<std::size_t>(k)];
}

std::vector<GramVote> TextVotes::top(std::int64_t k, std::size_t n) const {
  const auto& all = grams_[static_cast<std::size_t>(k)];
  return {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(n, all.size()))};
}

std::string TextVotes::gram_text(const GramVote& g) const {
  return fmt::format("{}", fmt::join(words_.begin() + g.begin, words_.begin() + g.end, " "));
}

std::vector<std::int64_t> TextVotes::best(std::size_t classes) const {
  return {ranking_.begin(),
          ranking_.begin() + static_cast<std::ptrdiff_t>(std::min(classes, ranking_.size()))};
}

double TextVotes::largest_heat() const {
  double most = 1e-12;
  for (const double h : heat_) most = std::max(most, std::abs(h));
  return most;
}

std::string TextVotes::terminal(bool color, std::size_t classes) const {
  const double most = largest_heat();
  std::size_t width = 0;
  for (const std::int64_t k : best(classes))
    width = std::max(width, class_names_[static_cast<std::size_t>(k)].size());
  std::string out;
  for (const std::int64_t k : best(classes)) {
    out +=
        fmt::format("{:<{}}  {:.3f}  ", class_names_[static_cast<std::size_t>(k)], width, score(k));
    for (std::size_t i = 0; i < words_.size(); ++i) {
      const double h = heat(static_cast<std::int64_t>(i), k);
      const std::string word = words_[i] + (known_[i] ? "" : "?");
      const Rgb c = heat_color(h / most);
      if (color)
        out +=
            fmt::format("\x1b[30;48;2;{};{};{}m {} \x1b[0m", byte(c.r), byte(c.g), byte(c.b), word);
      else
        out += fmt::format("{}({:.2f}) ", word, h);
    }
    out += '\n';
  }
  out += fmt::format("\nn-grams for {}:\n  share  coupling\n",
                     class_names_[static_cast<std::size_t>(ranking_[0])]);
  for (const GramVote& g : top(ranking_[0], 5))
    out += fmt::format("  {:>5.3f}  {:>8.3f}  {}\n", g.share, g.coupling, gram_text(g));
  return out;
}

std::string TextVotes::html(std::size_t classes) const {
  const double most = largest_heat();
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<title>Which words voted for which class</title>\n<style>\n"
      "body { font: 16px/1.6 system-ui, sans-serif; color: #1f2933; margin: 2rem; }\n"
      "table { border-collapse: separate; border-spacing: 2px; }\n"
      "th { text-align: left; padding-right: 1rem; font-weight: 600; }\n"
      "td { padding: .15rem .45rem; border-radius: 3px; }\n"
      ".unknown { text-decoration: underline dotted; }\n"
      "small { color: #52606d; }\n</style></head><body>\n";
  out += fmt::format("<h1>{}</h1>\n", html_escaped(fmt::format("{}", fmt::join(words_, " "))));
  out +=
      "<p><small>Blue: the n-grams that hold the word lengthen the capsule of the class; orange: "
      "they shorten it. Dotted: the word is not in the vocabulary.</small></p>\n<table>\n";
  for (const std::int64_t k : best(classes)) {
    out += fmt::format("<tr><th>{}</th><td>{:.3f}</td>",
                       html_escaped(class_names_[static_cast<std::size_t>(k)]), score(k));
    for (std::size_t i = 0; i < words_.size(); ++i) {
      const double h = heat(static_cast<std::int64_t>(i), k);
      const Rgb c = heat_color(h / most);
      out += fmt::format("<td{} title=\"{:.4f}\" style=\"background:rgb({},{},{})\">{}</td>",
                         known_[i] ? "" : " class=\"unknown\"", h, byte(c.r), byte(c.g), byte(c.b),
                         html_escaped(words_[i]));
    }
    out += "</tr>\n";
  }
  out += "</table>\n";
  for (const std::int64_t k : best(std::min<std::size_t>(classes, 2))) {
    out += fmt::format(
        "<h2>{}</h2>\n<table>\n<tr><th>share</th><th>coupling</th><th>n-gram</th></tr>\n",
        html_escaped(class_names_[static_cast<std::size_t>(k)]));
    for (const GramVote& g : top(k, 8))
      out += fmt::format("<tr><td>{:.3f}</td><td>{:.3f}</td><td>{}</td></tr>\n", g.share,
                         g.coupling, html_escaped(gram_text(g)));
    out += "</table>\n";
  }
  return out + "</body></html>\n";
}

Tensor TextVotes::picture(std::size_t classes) const {
  constexpr std::size_t kMostWords = 100;
  const std::vector<std::int64_t> shown = best(classes);
  const std::size_t length = std::min(words_.size(), kMostWords);
  HeatWords words{
      .title = "which words voted for which class",
      .note = "blue lengthens the capsule of the class, orange shortens it",
      .columns = Words(words_.begin(), words_.begin() + static_cast<std::ptrdiff_t>(length))};
  std::vector<double> values;
  for (const std::int64_t k : shown) {
    words.rows.push_back(
        fmt::format("{}  {:.2f}", class_names_[static_cast<std::size_t>(k)], score(k)));
    for (std::size_t i = 0; i < length; ++i)
      values.push_back(heat(static_cast<std::int64_t>(i), k));
  }
  return heat_map(from_vector(values, {static_cast<std::int64_t>(shown.size()),
                                       static_cast<std::int64_t>(length)}),
                  words, largest_heat());
}

}  // namespace capsfw::apps
