#pragma once
// How far a long loop has come. On a terminal: a bar that redraws itself at most ten times a second
// and leaves no trace; in a file or a pipe: plain lines, at most one in ten seconds. Always stderr.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace capsfw {

/// "0:07", "12:34", "1:02:03"; "-:--" for what is not known (negative, NaN, infinite).
std::string format_duration(double seconds);
/// "54,000".
std::string format_count(std::int64_t n);
/// Three significant digits: "812", "8.12", "0.0812", "12.3k", "1.23M"; "-" when not known.
std::string format_rate(double per_second);

/// Everything a line of progress shows.
struct ProgressState {
  std::string label;       ///< "epoch 2/5"
  std::int64_t done = 0;   ///< units done
  std::int64_t total = 0;  ///< units in all; 0 if not known
  std::string unit;        ///< "images"
  double elapsed = 0;      ///< seconds
  std::string status;      ///< "loss 0.123  acc 91.2 %"
};

/// Units per second; NaN before there is anything to divide.
double progress_rate(const ProgressState& s);
/// Seconds to go at the mean rate so far; NaN if not known.
double progress_eta(const ProgressState& s);
/// One line for a terminal of `columns`, never wider than columns - 1: what matters least is left
/// out first. `unicode`: the bar may use box-drawing characters.
std::string progress_bar_line(const ProgressState& s, int columns, bool unicode);
/// One line for a file.
std::string progress_plain_line(const ProgressState& s);

/// Progress bar("epoch 1/5", 55000, "images");
/// for (...) bar.update(done, "loss 0.123  acc 91.2 %");
/// bar.finish();
class Progress {
 public:
  /// `total` 0 if not known. Shows nothing yet.
  Progress(std::string label, std::int64_t total, std::string unit);
  /// Erases the bar if finish() was not reached.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` units in all so far. Cheap unless it is time to draw.
  void update(std::int64_t done, std::string_view status = {});
  /// Prints a line of text above the bar.
  void print(std::string_view text);
  /// The end: erases the bar; where there is none, prints the last state as a line. `summary`, if
  /// given, is printed in both cases instead.
  void finish(std::string_view summary = {});

  /// What was done so far, and in which time.
  const ProgressState& state() const { return state_; }

 private:
  using Clock = std::chrono::steady_clock;
  void draw();
  void erase();

  ProgressState state_;
  bool terminal_;
  bool unicode_;
  bool drawn_ = false;
  bool finished_ = false;
  Clock::time_point start_;
  Clock::time_point next_;  // when the next line is due
};

}  // namespace capsfw
