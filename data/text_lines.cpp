#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

#include "detail/utf8.hpp"

namespace capsfw {
namespace {

constexpr std::int64_t kMaxFile = std::int64_t{1} << 30;
constexpr std::size_t kMaxLine = std::size_t{1} << 20, kMaxLines = std::size_t{1} << 24;

/// Ends of lines: LF, CR LF or CR.
std::size_t count_lines(std::string_view text) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    n += text[i] == '\n' || (text[i] == '\r' && !text.substr(i + 1).starts_with('\n'));
  return n;
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();)
    if (detail::next_code_point(bytes, at) == detail::kBadUtf8) return false;
  return true;
}

bool is_printable(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();)
    if (const char32_t c = detail::next_code_point(bytes, at);
        c == detail::kBadUtf8 || detail::is_control(c))
      return false;
  return true;
}

std::string shown(std::string_view text, std::size_t most) {
  const std::string_view head = text.substr(0, most);
  std::string out;
  for (std::size_t at = 0; at < head.size();) {
    const std::size_t begin = at;
    const char32_t c = detail::next_code_point(head, at);
    // A letter that `most` cuts in two is left out.
    if (c == detail::kBadUtf8 && head.size() < text.size() && head.size() - begin < 4) break;
    for (std::size_t i = begin; i < at; ++i)
      out += detail::is_control(c) || c == detail::kBadUtf8
                 ? fmt::format("\\x{:02x}", static_cast<std::uint8_t>(head[i]))
                 : std::string(1, head[i]);
  }
  return out;
}

std::string latin1_to_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  for (const char c : bytes) detail::append_utf8(out, static_cast<unsigned char>(c));
  return out;
}

std::vector<std::string> read_lines(const std::filesystem::path& path, Encoding encoding) {
  const std::vector<std::uint8_t> bytes = read_file(path, kMaxFile);
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const bool latin1 = encoding == Encoding::detect && !is_utf8(text);
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  std::vector<std::string> lines;
  const auto fail = [&](const std::string& rule) {
    throw IoError(fmt::format("text '{}': line {}: {}", path.string(), lines.size() + 1, rule));
  };
  // An empty line takes one byte of the file and many of memory.
  if (const std::size_t n = count_lines(text); n > kMaxLines)
    throw IoError(fmt::format("text '{}': must not have more than {} lines; got {}", path.string(),
                              kMaxLines, n));
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("\r\n"), text.size());
    const std::string_view line = text.substr(0, end);
    if (line.size() > kMaxLine)
      fail(fmt::format("must not be longer than {} bytes; got {}", kMaxLine, line.size()));
    if (line.find('\0') != std::string_view::npos)
      fail("must not hold a NUL byte. Hint: is this a text file, in UTF-8 or Latin-1?");
    if (encoding == Encoding::utf8 && !is_utf8(line))
      fail("must be UTF-8. Hint: is the file in Latin-1? Encoding::detect takes both");
    lines.push_back(latin1 ? latin1_to_utf8(line) : std::string(line));
    text.remove_prefix(end);
    if (text.starts_with("\r\n"))
      text.remove_prefix(2);
    else if (!text.empty())
      text.remove_prefix(1);
  }
  return lines;
}

}  // namespace capsfw
