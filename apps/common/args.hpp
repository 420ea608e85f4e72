#pragma once
// Command lines of the programs: flags with defaults, rules and help (CLI11 underneath), and the
// frame of every main().
//
//   int epochs = 10;
//   double lr = 1e-3;
//   Args args("train", "Trains a network.");
//   args.section("Training")
//       .add("--epochs N", epochs, "passes over the training set", {.min = 1})
//       .add("--lr X", lr, "learning rate", {.above = 0});
//   return run_main(args, argc, argv, [&] { return train(epochs, lr); });

#include <cstdint>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <capsfw/core/error.hpp>

namespace capsfw::apps {

/// Flags that do not fit together, found after parsing: run_main() answers with exit code 2.
struct UsageError : Error {
  using Error::Error;
};

/// What a number may be: {.min = 1}, {.above = 0}, {.min = 0, .below = 1}. NaN and infinities are
/// never accepted.
struct Range {
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  double min = -kNone;    ///< smallest value allowed
  double above = -kNone;  ///< every value allowed is greater
  double max = kNone;     ///< largest value allowed
  double below = kNone;   ///< every value allowed is smaller

  bool contains(double v) const { return v >= min && v > above && v <= max && v < below; }
  /// "at least 0 and below 1"; "" if everything is allowed.
  std::string str() const;
};

/// Throws a capsfw::Error whose text completes "--flag: ".
using TextCheck = std::function<void(const std::string&)>;

/// The flags of a program. A spec is the names, then what stands for the value in the help:
/// "--epochs N", "-o,--out DIR", "--quick". The variable's value at the time of add() is the
/// default. A flag given twice takes the last value. `--help`, `--version` and `--threads N` exist
/// already.
class Args {
 public:
  Args(std::string program, std::string description);
  ~Args();
  Args(const Args&) = delete;
  Args& operator=(const Args&) = delete;

  /// Heading in the help for the flags that follow.
  Args& section(std::string title);
  Args& add(const std::string& spec, int& value, const std::string& help, Range range = {});
  Args& add(const std::string& spec,
            std::int64_t& value,
            const std::string& help,
            Range range = {});
  Args& add(const std::string& spec,
            std::uint64_t& value,
            const std::string& help,
            Range range = {});
  Args& add(const std::string& spec, double& value, const std::string& help, Range range = {});
  Args& add(const std::string& spec, std::string& value, std::string help, TextCheck check = {});
  /// A flag without a value, which sets `value` to true.
  Args& add(const std::string& spec, bool& value, std::string help);
  /// One of `names`.
  Args& choice(const std::string& flag,
               std::string& value,
               std::vector<std::string> names,
               std::string help);
  /// Arguments that are not flags: "FILE". All that are left go into `values`; at least `at_least`.
  Args& positional(const std::string& name,
                   std::vector<std::string>& values,
                   std::string help,
                   int at_least = 1);
  /// A line under "Examples:" at the end of the help.
  Args& example(std::string line);

  /// Fills the variables. A result means that the program must end with this exit code: 0 after
  /// --help or --version (printed on stdout), 2 after a mistake (on stderr: the flag, the rule it
  /// broke, what it got).
  std::optional<int> parse(int argc, const char* const* argv);
  /// True if the command line had this flag ("--epochs").
  bool given(const std::string& flag) const;
  /// True if this flag stands before a value, false if it is a switch. ValueError for no flag.
  bool takes_value(const std::string& flag) const;
  /// If `idle`, UsageError "--flag: WHY" for the first of `flags` that the command line had:
  /// nothing would read it. `why` says what the flag is of, what there is instead, and the cure:
  /// "of --optimizer sgd; got adam. Hint: --optimizer sgd".
  void refuse_idle(bool idle,
                   const std::string& why,
                   std::initializer_list<const char*> flags) const;
  /// Every flag with its value as text, --threads aside: what a run was started with.
  std::map<std::string, std::string> values() const;
  /// The value of --threads; 0 if not given.
  int threads() const;
  const std::string& program() const;
  /// The text of --help.
  std::string help() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Where run_main() prints the line about library, threads and CPU.
enum class Banner : std::uint8_t {
  out,  ///< stdout, as its first line
  err   ///< stderr, for programs whose stdout is data
};

/// The frame of main(): parses, sets the threads, prints runtime_info() as the first line and its
/// warnings on stderr, runs `body` and returns its exit code. An exception becomes "error: ..." on
/// stderr and exit code 1 (2 for UsageError). stdout is flushed line by line, so that it keeps its
/// order with stderr in a file.
int run_main(Args& args,
             int argc,
             const char* const* argv,
             const std::function<int()>& body,
             Banner banner = Banner::out);

/// Parts of run_main() for other frames: sets the threads and prints runtime_info();
void show_runtime(const Args& args, Banner banner = Banner::out);
/// and, inside of a catch block, says what went wrong and gives the exit code. `who`: in front.
int report_failure(const Args& args, std::FILE* file, const std::string& who = {});

}  // namespace capsfw::apps
