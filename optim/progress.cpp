#include <capsfw/optim/progress.hpp>

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include <fmt/format.h>

namespace capsfw {
namespace {

constexpr auto kRedraw = std::chrono::milliseconds(100);
constexpr auto kPlainEvery = std::chrono::seconds(10);
constexpr int kBarMin = 10;
constexpr int kBarMax = 30;
constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

std::string_view environment(const char* name) {
  const char* v = std::getenv(name);
  return v == nullptr ? std::string_view() : v;
}

bool stderr_is_terminal() { return ::isatty(STDERR_FILENO) == 1 && environment("TERM") != "dumb"; }

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (const std::string_view v = environment(name); !v.empty())
      return v.find("UTF-8") != v.npos || v.find("utf8") != v.npos || v.find("utf-8") != v.npos;
  return false;
}

int terminal_columns() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

/// Columns that UTF-8 text takes: all characters but continuation bytes.
int width_of(std::string_view text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string cut(std::string_view text, int columns) {
  std::size_t at = 0;
  for (int n = 0; at < text.size(); ++at)
    if ((text[at] & 0xC0) != 0x80 && n++ == columns) break;
  return std::string(text.substr(0, at));
}

double fraction(const ProgressState& s) {
  if (s.total <= 0) return 0;
  return std::clamp(static_cast<double>(s.done) / static_cast<double>(s.total), 0.0, 1.0);
}

/// "43 %", and 100 % not before the end.
std::string percent(const ProgressState& s) {
  return fmt::format("{:3d} %", static_cast<int>(fraction(s) * 100));
}

std::string bar(double part, int width, bool unicode) {
  const int halves = static_cast<int>(part * width * 2);
  std::string out;
  for (int i = 0; i < width; ++i) {
    const int filled = std::clamp(halves - 2 * i, 0, 2);
    if (unicode)
      out += filled == 2 ? "━" : filled == 1 ? "╸" : "┈";
    else
      out += filled == 2 ? '=' : filled == 1 ? '-' : '.';
  }
  return out;
}

std::string count_text(const ProgressState& s) {
  if (s.total <= 0) return fmt::format("{} {}", format_count(s.done), s.unit);
  return fmt::format("{}/{}", format_count(s.done), format_count(s.total));
}

std::string rate_text(const ProgressState& s) {
  return fmt::format("{} {}/s", format_rate(progress_rate(s)), s.unit);
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& p : parts)
    if (!p.empty()) out += (out.empty() ? "" : "  ") + p;
  return out;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "-:--";
  const auto t = static_cast<std::int64_t>(std::llround(seconds));
  if (t < 3600) return fmt::format("{}:{:02}", t / 60, t % 60);
  return fmt::format("{}:{:02}:{:02}", t / 3600, t / 60 % 60, t % 60);
}

std::string format_count(std::int64_t n) {
  std::string out = std::to_string(n);
  const std::size_t first = n < 0 ? 1 : 0;
  for (std::size_t at = out.size(); at > first + 3; at -= 3) out.insert(at - 3, 1, ',');
  return out;
}

std::string format_rate(double per_second) {
  if (!std::isfinite(per_second) || per_second < 0) return "-";
  std::string_view suffix = "";
  for (const std::string_view larger : {"k", "M", "G"}) {
    if (per_second < (suffix.empty() ? 9999.5 : 999.5)) break;
    per_second /= 1000;
    suffix = larger;
  }
  if (per_second < 0.9995) return fmt::format("{:.3g}{}", per_second, suffix);
  const int decimals = per_second < 9.995 ? 2 : per_second < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", per_second, decimals, suffix);
}

double progress_rate(const ProgressState& s) {
  return s.elapsed > 0 && s.done > 0 ? static_cast<double>(s.done) / s.elapsed : kUnknown;
}

double progress_eta(const ProgressState& s) {
  if (s.total <= 0) return kUnknown;
  return static_cast<double>(std::max<std::int64_t>(0, s.total - s.done)) / progress_rate(s);
}

std::string progress_bar_line(const ProgressState& s, int columns, bool unicode) {
  const int room = std::max(columns - 1, 1);
  const bool known = s.total > 0;
  const std::string share = known ? percent(s) : "";
  const std::string eta = known ? "ETA " + format_duration(progress_eta(s)) : "";
  const std::string elapsed = format_duration(s.elapsed);
  const std::string times = known ? elapsed + "  " + eta : elapsed;
  struct Choice {
    bool with_bar;
    std::vector<std::string> parts;
  };
  // From everything to next to nothing; the first one that fits is shown.
  const std::vector<Choice> choices = {
      {true, {share, count_text(s), rate_text(s), s.status, times}},
      {true, {share, rate_text(s), s.status, times}},
      {true, {share, rate_text(s), s.status, eta}},
      {true, {share, s.status, eta}},
      {false, {share, s.status, eta}},
      {false, {share, s.status}}};
  for (const auto& [with_bar, parts] : choices) {
    const std::string text = joined(parts);
    const int left = room - width_of(joined({s.label, text}));
    if (with_bar && known && left >= kBarMin + 2)
      return joined({s.label, bar(fraction(s), std::min(left - 2, kBarMax), unicode), text});
    if (!(with_bar && known) && left >= 0) return joined({s.label, text});
  }
  return cut(joined({s.label, share, s.status}), room);
}

std::string progress_plain_line(const ProgressState& s) {
  const bool known = s.total > 0;
  const bool over = known && s.done >= s.total;
  const std::string times = known && !over ? fmt::format("{}  ETA {}", format_duration(s.elapsed),
                                                         format_duration(progress_eta(s)))
                                           : format_duration(s.elapsed);
  return joined({s.label, known ? percent(s) : "", count_text(s) + (known ? " " + s.unit : ""),
                 rate_text(s), s.status, times});
}

Progress::Progress(std::string label, std::int64_t total, std::string unit)
    : terminal_(stderr_is_terminal()), unicode_(locale_is_utf8()), start_(Clock::now()) {
  state_.label = std::move(label);
  state_.total = total;
  state_.unit = std::move(unit);
  next_ = start_ + (terminal_ ? Clock::duration::zero() : Clock::duration(kPlainEvery));
}

Progress::~Progress() {
  if (!finished_) erase();
}

void Progress::update(std::int64_t done, std::string_view status) {
  state_.done = done;
  state_.status = status;
  const auto now = Clock::now();
  state_.elapsed = std::chrono::duration<double>(now - start_).count();
  if (finished_ || now < next_) return;
  draw();
  next_ = now + (terminal_ ? Clock::duration(kRedraw) : Clock::duration(kPlainEvery));
}

void Progress::print(std::string_view text) {
  const bool redraw = drawn_;
  erase();
  fmt::print(stderr, "{}\n", text);
  if (redraw) draw();
}

void Progress::finish(std::string_view summary) {
  if (finished_) return;
  finished_ = true;
  state_.elapsed = std::chrono::duration<double>(Clock::now() - start_).count();
  erase();
  if (!summary.empty())
    fmt::print(stderr, "{}\n", summary);
  else if (!terminal_)
    fmt::print(stderr, "{}\n", progress_plain_line(state_));
}

void Progress::draw() {
  if (!terminal_) {
    fmt::print(stderr, "{}\n", progress_plain_line(state_));
    return;
  }
  // In one write, so that nothing flickers: to column 0, the line, erase what was longer.
  fmt::print(stderr, "\r{}\x1b[K", progress_bar_line(state_, terminal_columns(), unicode_));
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::erase() {
  if (!drawn_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace capsfw
