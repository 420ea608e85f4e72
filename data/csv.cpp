#include <capsfw/data/csv.hpp>

#include <charconv>
#include <cstdint>
#include <iterator>
#include <string_view>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

namespace capsfw {
namespace {

constexpr std::int64_t kMaxBytes = std::int64_t{1} << 30;
constexpr std::size_t kMaxColumns = std::size_t{1} << 20;
constexpr std::size_t kFlush = std::size_t{1} << 20;

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

enum class Parsed { number, not_a_number, out_of_range };

Parsed parse(std::string_view text, double& value) {
  const auto space = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && space(text.front())) text.remove_prefix(1);
  while (!text.empty() && space(text.back())) text.remove_suffix(1);
  if (text.size() > 1 && text.front() == '+' && text[1] != '-') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (end != text.data() + text.size()) return Parsed::not_a_number;
  if (error == std::errc::result_out_of_range) return Parsed::out_of_range;
  return error == std::errc() ? Parsed::number : Parsed::not_a_number;
}

/// What a number, a quote or a line has in it cannot part fields.
void check_separator(char separator, const char* who) {
  constexpr std::string_view kTaken = "+-.\"\r\n";
  const auto between = [&](char low, char high) { return separator >= low && separator <= high; };
  if (kTaken.find(separator) == std::string_view::npos && !between('0', '9') &&
      !between('a', 'z') && !between('A', 'Z'))
    return;
  throw ValueError(
      fmt::format("{}: the separator must be no letter, digit, sign, point, quote or "
                  "end of a line; got '{}'",
                  who, shown(std::string_view(&separator, 1))));
}

class Reader {
 public:
  Reader(const std::filesystem::path& path, char separator) : path_(path), separator_(separator) {
    const auto bytes = read_file(path, kMaxBytes);
    text_.assign(bytes.begin(), bytes.end());
    if (text_.starts_with(kByteOrderMark)) at_ = kByteOrderMark.size();
  }

  CsvTable read() {
    CsvTable table;
    std::vector<double> values;
    std::vector<std::string> fields;
    std::size_t columns = 0, rows = 0;
    while (next(fields)) {
      if (columns == 0) {
        columns = fields.size();
        if (is_header(fields)) {
          table.names = fields;
          continue;
        }
      }
      if (fields.size() != columns)
        fail(fmt::format("must have {} fields as the first line; got {}", columns, fields.size()));
      for (std::size_t c = 0; c < columns; ++c) {
        double v = 0;
        const Parsed result = parse(fields[c], v);
        if (result != Parsed::number)
          fail(fmt::format("column {}: must be a number{}; got '{}'", c + 1,
                           result == Parsed::out_of_range ? " that fits a double" : "",
                           shown(fields[c])));
        values.push_back(v);
      }
      ++rows;
    }
    if (rows == 0)
      throw IoError(fmt::format("load_csv: '{}': must have a line of numbers", path_.string()));
    table.values =
        from_vector(values, {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)});
    return table;
  }

 private:
  [[noreturn]] void fail(const std::string& rule) const {
    throw IoError(fmt::format("load_csv: '{}': line {}: {}", path_.string(), line_, rule));
  }

  /// A line with some numbers and some words is no header but a mistake in the first row of
  /// numbers.
  static bool is_header(const std::vector<std::string>& fields) {
    double ignored = 0;
    for (const std::string& f : fields)
      if (parse(f, ignored) != Parsed::not_a_number) return false;
    return true;
  }

  /// The fields of the next line that is not empty; false at the end.
  bool next(std::vector<std::string>& fields) {
    fields.clear();
    while (at_ < text_.size() && (text_[at_] == '\n' || text_[at_] == '\r')) skip_line_end();
    if (at_ == text_.size()) return false;
    line_ = newlines_ + 1;
    for (;;) {
      if (fields.size() == kMaxColumns)
        fail(fmt::format("must not have more than {} fields", kMaxColumns));
      fields.push_back(field());
      if (at_ == text_.size()) return true;
      if (text_[at_] != separator_) break;
      ++at_;
    }
    skip_line_end();
    return true;
  }

  void skip_line_end() {
    if (text_[at_] == '\r') {
      ++at_;
      if (at_ == text_.size() || text_[at_] != '\n') fail_here("a CR must be followed by LF");
    }
    ++at_;
    ++newlines_;
  }

  [[noreturn]] void fail_here(const std::string& rule) {
    line_ = newlines_ + 1;
    fail(rule);
  }

  std::string field() {
    if (at_ < text_.size() && text_[at_] == '"') return quoted();
    std::size_t end = at_;
    while (end < text_.size() && text_[end] != separator_ && text_[end] != '\n' &&
           text_[end] != '\r')
      ++end;
    std::string out = text_.substr(at_, end - at_);
    at_ = end;
    return out;
  }

  std::string quoted() {
    std::string out;
    for (++at_;; ++at_) {
      if (at_ == text_.size()) fail("a quote is open at the end of the file");
      if (text_[at_] == '"') {
        if (at_ + 1 == text_.size() || text_[at_ + 1] != '"') break;
        ++at_;
      }
      newlines_ += text_[at_] == '\n';
      out += text_[at_];
    }
    ++at_;
    if (at_ < text_.size() && text_[at_] != separator_ && text_[at_] != '\n' && text_[at_] != '\r')
      fail("only a separator or the end of the line may follow a closing quote");
    return out;
  }

  const std::filesystem::path& path_;
  char separator_;
  std::string text_;
  std::size_t at_ = 0;
  std::int64_t newlines_ = 0, line_ = 1;
};

std::string header_field(const std::string& name, char separator) {
  // In quotes, too, what a reader would skip: an empty line and a byte order mark.
  if (!name.empty() && !name.starts_with(kByteOrderMark) &&
      name.find_first_of(std::string("\"\r\n") + separator) == std::string::npos)
    return name;
  std::string out = "\"";
  for (const char c : name) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + '"';
}

}  // namespace

CsvTable load_csv(const std::filesystem::path& path, char separator) {
  check_separator(separator, "load_csv");
  return Reader(path, separator).read();
}

void save_csv(const std::filesystem::path& path,
              const Tensor& values,
              const std::vector<std::string>& names,
              char separator) {
  check_separator(separator, "save_csv");
  if (values.dim() != 1 && values.dim() != 2)
    throw ShapeError(
        fmt::format("save_csv: values must be [N] or [N, D]; got {}", values.shape().str()));
  if (values.numel() == 0)
    throw ShapeError(
        fmt::format("save_csv: values must have at least one row and one column, or "
                    "load_csv would find no numbers; got {}",
                    values.shape().str()));
  const std::int64_t rows = values.size(0), columns = values.dim() == 1 ? 1 : values.size(1);
  if (columns > static_cast<std::int64_t>(kMaxColumns))
    throw ShapeError(fmt::format("save_csv: load_csv takes at most {} columns; got {}", kMaxColumns,
                                 values.shape().str()));
  if (!names.empty() && static_cast<std::int64_t>(names.size()) != columns)
    throw ShapeError(fmt::format("save_csv: {} names for {} columns", names.size(), columns));
  double ignored = 0;
  for (const std::string& name : names)
    if (parse(name, ignored) != Parsed::not_a_number)
      throw ValueError(
          fmt::format("save_csv: the name of a column must be no number, or no reader could tell "
                      "it from one; got '{}'",
                      name));
  AtomicFile file(path);
  fmt::memory_buffer out;
  const auto end_of_field = [&](std::int64_t c) {
    out.push_back(c + 1 < columns ? separator : '\n');
  };
  for (std::int64_t c = 0; c < static_cast<std::int64_t>(names.size()); ++c) {
    fmt::format_to(std::back_inserter(out), "{}",
                   header_field(names[static_cast<std::size_t>(c)], separator));
    end_of_field(c);
  }
  const Tensor x = contiguous_data(values);
  visit_any(x.dtype(), [&]<class T>() {
    const T* p = x.data<T>();
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < columns; ++c, ++p) {
        if constexpr (std::is_same_v<T, bool>)
          fmt::format_to(std::back_inserter(out), "{:d}", *p);
        else
          fmt::format_to(std::back_inserter(out), "{}", *p);
        end_of_field(c);
      }
      if (out.size() > kFlush) {
        file.write(out.data(), out.size());
        out.clear();
      }
    }
  });
  file.write(out.data(), out.size());
  file.commit();
}

}  // namespace capsfw
