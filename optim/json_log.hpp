#pragma once
// Logs that programs read: one JSON object per line.

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace capsfw {

/// A value of a log line. Numbers that JSON cannot express (NaN, infinity) become null.
class JsonValue {
 public:
  /// Whole numbers keep their sign and size; floating-point ones become double.
  JsonValue(bool v) : v_(v) {}
  /// As above.
  template <std::signed_integral T>
  JsonValue(T v) : v_(static_cast<std::int64_t>(v)) {}
  /// As above.
  template <std::unsigned_integral T>
  JsonValue(T v) : v_(static_cast<std::uint64_t>(v)) {}
  /// As above.
  template <std::floating_point T>
  JsonValue(T v) : v_(static_cast<double>(v)) {}
  /// Text.
  JsonValue(const char* v) : v_(std::string(v)) {}
  JsonValue(std::string_view v) : v_(std::string(v)) {}
  JsonValue(std::string v) : v_(std::move(v)) {}
  JsonValue(std::vector<double> v) : v_(std::move(v)) {}

  /// The value in the type that is written.
  const auto& variant() const { return v_; }

 private:
  std::variant<bool, std::int64_t, std::uint64_t, double, std::string, std::vector<double>> v_;
};

/// Keys with their values, in the order of the line.
using JsonFields = std::vector<std::pair<std::string, JsonValue>>;

/// {"epoch":1,"loss":0.25}: always valid JSON on one line, keys in the given order; of two equal
/// keys the last one wins, and bytes that are not UTF-8 are replaced.
std::string json_line(const JsonFields& fields);

/// How a JsonLog opens its file.
struct JsonLogOptions {
  bool fresh = false;  ///< start with an empty file instead of appending to what is there
};

/// Appends JSON lines to a file; each line is in the file when write() returns, so that a run can
/// be followed while it lasts and loses nothing when it is killed.
class JsonLog {
 public:
  /// Opens `path`; IoError if that is impossible. The folder must exist.
  explicit JsonLog(const std::filesystem::path& path, JsonLogOptions options = {});

  /// log.write({{"epoch", 3}, {"loss", 0.25}}). IoError if the line cannot be written.
  void write(const JsonFields& fields);
  /// A line that json_line() has made.
  void write_line(const std::string& line);

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace capsfw
