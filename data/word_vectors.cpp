#include <capsfw/data/word_vectors.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

namespace capsfw {
namespace {

constexpr std::int64_t kMaxDim = 10'000;
constexpr std::size_t kMaxLine = std::size_t{1} << 20;
constexpr std::size_t kBlock = std::size_t{1} << 21;

/// The bytes of a file from its beginning to its end, a window at a time.
class Window {
 public:
  explicit Window(const std::filesystem::path& path) : file_(path) {}

  std::int64_t size() const { return file_.size(); }
  /// The next bytes without taking them: `n` of them, fewer only at the end.
  std::string_view peek(std::size_t n) {
    if (buffer_.size() - at_ < n && offset_ < file_.size()) {
      buffer_.erase(0, std::exchange(at_, 0));
      const std::size_t have = buffer_.size();
      buffer_.resize(std::max(n, kBlock));
      const std::size_t got = file_.read(offset_, buffer_.data() + have, buffer_.size() - have);
      offset_ = got == 0 ? file_.size() : offset_ + static_cast<std::int64_t>(got);
      buffer_.resize(have + got);
    }
    return std::string_view(buffer_).substr(at_, n);
  }
  void skip(std::size_t n) { at_ += n; }
  /// What is before the next `end`, which is taken as well; nothing if there is none within
  /// kMaxLine bytes, unless the file ends there.
  std::optional<std::string_view> until(char end) {
    const std::string_view ahead = peek(kMaxLine + 1);
    const std::size_t n = std::min(ahead.find(end), ahead.size());
    if (n > kMaxLine) return {};
    skip(std::min(n + 1, ahead.size()));
    return ahead.substr(0, n);
  }
  bool at_end() { return peek(1).empty(); }

 private:
  InputFile file_;
  std::string buffer_;
  std::size_t at_ = 0;       // of what is taken, in the buffer
  std::int64_t offset_ = 0;  // of what is read, in the file
};

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.back() == ' ' || s.back() == '\r' || s.back() == '\t'))
    s.remove_suffix(1);
  return s;
}

/// The fields of a line between single spaces or tabs.
void split(std::string_view line, std::vector<std::string_view>& fields) {
  fields.clear();
  for (std::size_t begin = 0; begin <= line.size();) {
    const std::size_t end = std::min(line.find_first_of(" \t", begin), line.size());
    fields.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
}

std::optional<std::int64_t> whole_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

/// Beyond the range of a float: 0 or an infinity.
std::optional<float> number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size() || error == std::errc::invalid_argument) return {};
  if (error == std::errc::result_out_of_range)
    return text.find("e-") != std::string_view::npos || text.find("E-") != std::string_view::npos
               ? 0.0f
               : HUGE_VALF;
  return static_cast<float>(value);
}

class Reader {
 public:
  Reader(const std::filesystem::path& path, const Vocabulary& vocabulary, Rng& rng)
      : path_(path), vocabulary_(vocabulary), rng_(rng), window_(path) {}

  WordVectors read(VectorFormat format) {
    if (window_.at_end()) fail("must not be empty");
    if (format == VectorFormat::detect) format = detect();
    if (format != VectorFormat::glove) read_header();
    if (format == VectorFormat::word2vec_binary)
      read_binary();
    else
      read_text(format == VectorFormat::glove);
    return std::move(vectors_);
  }

 private:
  [[noreturn]] void fail(const std::string& rule) const {
    throw IoError(fmt::format("word vectors '{}': {}", path_.string(), rule));
  }
  [[noreturn]] void fail_here(const std::string& rule) const {
    fail(fmt::format("{} {}: {}", unit_, line_, rule));
  }

  static std::optional<std::pair<std::int64_t, std::int64_t>> header(std::string_view line) {
    std::vector<std::string_view> fields;
    split(trimmed(line), fields);
    if (fields.size() != 2) return {};
    const auto count = whole_number(fields[0]), dim = whole_number(fields[1]);
    if (!count || !dim) return {};
    return {{*count, *dim}};
  }

  /// A first line of two whole numbers is word2vec's; what follows the first word then is text or
  /// not.
  VectorFormat detect() {
    const std::string_view ahead = window_.peek(kBlock);
    const std::size_t end = std::min(ahead.find('\n'), ahead.size());
    if (!header(ahead.substr(0, end))) return VectorFormat::glove;
    std::string_view rest = ahead.substr(std::min(end + 1, ahead.size()));
    rest.remove_prefix(std::min(rest.find(' '), rest.size()));
    rest = rest.substr(0, rest.find('\n'));
    const bool text = std::all_of(rest.begin(), rest.end(), [](char c) {
      return c == '\r' || c == '\t' || (c >= ' ' && c < 0x7F);
    });
    return text ? VectorFormat::word2vec_text : VectorFormat::word2vec_binary;
  }

  void read_header() {
    line_ = 1;
    const auto line = window_.until('\n');
    const auto got = line ? header(*line) : std::nullopt;
    if (!got) fail_here("must be the count and the dimension of the vectors");
    count_ = got->first;
    if (count_ < 1) fail_here(fmt::format("the count must be at least 1; got {}", count_));
    set_dim(got->second);
    // A word of one byte, a separator, and what a number takes at least.
    const std::int64_t least = dim_ * 2 + 1;
    if (count_ > window_.size() / least + 1)
      fail_here(fmt::format("{} vectors of size {} do not fit into the {} bytes of the file",
                            count_, dim_, window_.size()));
  }

  void set_dim(std::int64_t dim) {
    if (dim < 1 || dim > kMaxDim)
      fail_here(fmt::format("the dimension must lie in [1, {}]; got {}", kMaxDim, dim));
    dim_ = dim;
    vectors_ = random_vectors(vocabulary_, dim, rng_);
    table_ = vectors_.table.mutable_data<float>();
    seen_.resize(static_cast<std::size_t>(vocabulary_.size()));
  }

  /// The row of a word that is wanted and was not seen before.
  float* row(std::string_view word) {
    if (!vocabulary_.contains(word)) return nullptr;
    const auto id = vocabulary_.id(word);
    if (id == Vocabulary::kPad || id == Vocabulary::kUnknown || seen_[static_cast<std::size_t>(id)])
      return nullptr;
    seen_[static_cast<std::size_t>(id)] = true;
    ++vectors_.found;
    return table_ + id * dim_;
  }

  void check_finite(float v, std::string_view word) const {
    if (!std::isfinite(v))
      fail_here(fmt::format("the numbers must be finite; got {} for '{}'", v, shown(word)));
  }

  void read_text(bool glove) {
    std::vector<std::string_view> fields;
    std::int64_t vectors = 0;
    while (!window_.at_end()) {
      ++line_;
      const auto line = window_.until('\n');
      if (!line) fail_here(fmt::format("must not be longer than {} bytes", kMaxLine));
      const std::string_view text = trimmed(*line);
      if (text.empty()) continue;
      split(text, fields);
      const auto n = static_cast<std::int64_t>(fields.size()) - 1;
      if (glove && vectors == 0) set_dim(n);
      // In a line of too many fields the word itself has spaces, unless a number follows it.
      const bool wide = glove && n > dim_ && !number(fields[1]);
      if (n != dim_ && !wide)
        fail_here(fmt::format("must be a word and {} numbers; got {} numbers", dim_, n));
      ++vectors;
      if (!glove && vectors > count_)
        fail_here(fmt::format("must be the end: the first line says {} vectors", count_));
      const std::size_t first = static_cast<std::size_t>(n - dim_) + 1;
      const std::string_view word =
          text.substr(0, static_cast<std::size_t>(fields[first].data() - text.data()) - 1);
      float* out = row(word);
      // The first line is always looked at: any text would do otherwise.
      for (std::size_t k = first; (out || vectors == 1) && k < fields.size(); ++k) {
        const auto v = number(fields[k]);
        if (!v)
          fail_here(fmt::format("must be a word and {} numbers; got '{}' among them", dim_,
                                shown(fields[k])));
        check_finite(*v, word);
        if (out) *out++ = *v;
      }
    }
    if (glove && vectors == 0) fail("must hold a vector; its lines are empty");
    if (!glove && vectors < count_)
      fail(fmt::format("must hold {} vectors, as its first line says; it ends after {}", count_,
                       vectors));
  }

  void read_binary() {
    unit_ = "record";
    const auto bytes = static_cast<std::size_t>(dim_) * sizeof(float);
    std::string word;
    for (line_ = 1; line_ <= count_; ++line_) {
      // Some programs write a line feed behind each vector.
      while (window_.peek(1) == "\n") window_.skip(1);
      const auto name = window_.until(' ');
      if (!name) fail_here(fmt::format("a word must not be longer than {} bytes", kMaxLine));
      word = *name;  // the window moves on below
      const std::string_view numbers = window_.peek(bytes);
      if (numbers.size() < bytes)
        fail(fmt::format("must hold {} vectors of size {}; it ends in record {}", count_, dim_,
                         line_));
      if (float* out = row(word)) {
        std::memcpy(out, numbers.data(), bytes);
        for (std::int64_t k = 0; k < dim_; ++k) check_finite(out[k], word);
      }
      window_.skip(bytes);
    }
    while (window_.peek(1) == "\n") window_.skip(1);
    if (!window_.at_end())
      fail(fmt::format("must end after {} vectors of size {}; more bytes follow", count_, dim_));
  }

  const std::filesystem::path& path_;
  const Vocabulary& vocabulary_;
  Rng& rng_;
  Window window_;
  WordVectors vectors_;
  float* table_ = nullptr;
  std::vector<bool> seen_;
  const char* unit_ = "line";
  std::int64_t line_ = 0, count_ = 0, dim_ = 0;
};

}  // namespace

double WordVectors::share() const {
  const std::int64_t words = table.size(0) - 2;
  return words < 1 ? 0 : static_cast<double>(found) / static_cast<double>(words);
}

WordVectors random_vectors(const Vocabulary& vocabulary, std::int64_t dim, Rng& rng, double range) {
  if (dim < 1 || !(range >= 0) || !std::isfinite(range))
    throw ValueError(fmt::format(
        "random_vectors: needs dim >= 1 and a finite range >= 0; got {} and {}", dim, range));
  WordVectors out{.table = rng.uniform({vocabulary.size(), dim}, -range, range)};
  std::fill_n(out.table.mutable_data<float>() + Vocabulary::kPad * dim, dim, 0.0f);
  return out;
}

WordVectors load_word_vectors(const std::filesystem::path& path,
                              const Vocabulary& vocabulary,
                              Rng& rng,
                              VectorFormat format) {
  return Reader(path, vocabulary, rng).read(format);
}

}  // namespace capsfw
