// What the programs share: flags, log, progress, signals, memory.

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/runtime.hpp>

#include "common/args.hpp"
#include "common/log.hpp"
#include "common/memory.hpp"
#include "common/progress.hpp"
#include "common/signals.hpp"
#include "common/text.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

namespace fs = std::filesystem;

/// A folder that goes with its test.
struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "capsfw-apps-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
};

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

/// What `run` writes to a file descriptor (1 or 2), which is no terminal meanwhile.
template <class F>
std::string written_to(int descriptor, F&& run) {
  std::fflush(nullptr);
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  const int kept = ::dup(descriptor);
  ::dup2(::fileno(file), descriptor);
  run();
  std::fflush(nullptr);
  ::dup2(kept, descriptor);
  ::close(kept);
  std::string out;
  std::rewind(file);
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) out += static_cast<char>(c);
  std::fclose(file);
  return out;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// A small program with a flag of every kind.
struct Program {
  int epochs = 10;
  std::int64_t steps = -1;
  std::uint64_t seed = 7;
  double lr = 1e-3;
  std::string out = "out/run";
  std::string data = "mnist";
  bool quick = false;
  std::vector<std::string> files;
  Args args{"demo", "Shows what flags do."};

  explicit Program(bool with_files = false) {
    args.section("Training")
        .add("-e,--epochs N", epochs, "passes over the data", {.min = 1, .max = 1000})
        .add("--steps N", steps, "steps")
        .add("--seed N", seed, "seed")
        .add("--lr X", lr, "learning rate", {.above = 0})
        .add("-o,--out DIR", out, "folder",
             [](const std::string& text) {
               if (text.empty()) throw ValueError("must not be empty");
             })
        .choice("--data", data, {"mnist", "fashion-mnist"}, "images")
        .add("--quick", quick, "few steps");
    if (with_files) args.positional("FILE", files, "pictures");
  }
  std::optional<int> parse(std::vector<const char*> words) {
    words.insert(words.begin(), "demo");
    return args.parse(static_cast<int>(words.size()), words.data());
  }
};

/// The complaint about a command line, after checking that it ends with exit code 2.
std::string complaint(const std::vector<const char*>& words, bool with_files = false) {
  Program p(with_files);
  std::optional<int> code;
  const std::string text = written_to(STDERR_FILENO, [&] { code = p.parse(words); });
  CHECK(code == 2);
  CHECK(contains(text, "error: "));
  CHECK(contains(text, "demo --help"));
  return lines(text).front();
}

int columns_of(const std::string& utf8) {
  int n = 0;
  for (char c : utf8) n += (c & 0xC0) != 0x80;
  return n;
}

}  // namespace

TEST_CASE("args: defaults stay, flags in every spelling are read, the last one wins") {
  Program none;
  CHECK_FALSE(none.parse({}).has_value());
  CHECK(none.epochs == 10);
  CHECK_FALSE(none.args.given("--epochs"));
  CHECK(none.args.threads() == 0);

  Program p;
  CHECK_FALSE(
      p.parse({"-e", "3", "--lr=0.5", "--epochs", "4", "--steps", "-20", "--quick", "--data",
               "fashion-mnist", "-oa b", "--seed", "18446744073709551615", "--threads", "2"})
          .has_value());
  CHECK(p.epochs == 4);
  CHECK(p.lr == 0.5);
  CHECK(p.steps == -20);
  CHECK(p.quick);
  CHECK(p.data == "fashion-mnist");
  CHECK(p.out == "a b");
  CHECK(p.seed == 18446744073709551615ULL);
  CHECK(p.args.threads() == 2);
  CHECK(p.args.given("--epochs"));
  CHECK(p.args.given("--quick"));
  CHECK_THROWS_AS(p.args.given("--nothing"), ValueError);
}

TEST_CASE("args: a mistake names the flag, the rule and what it got") {
  CHECK(complaint({"--epochs", "0"}) ==
        "error: --epochs: must be a whole number, at least 1 and at most 1000; got '0'");
  CHECK(complaint({"-e", "3.5"}) ==
        "error: --epochs: must be a whole number, at least 1 and at most 1000; got '3.5'");
  CHECK(complaint({"--steps", "99999999999999999999"}) ==
        "error: --steps: must be a whole number; got '99999999999999999999', which is out of "
        "range");
  CHECK(complaint({"--seed", "-1"}) ==
        "error: --seed: must be a whole number, at least 0; got '-1'");
  for (const char* bad : {"0", "-1", "nan", "inf", "1e999", "0.1x", "", " 1", "0x10"})
    CHECK(complaint({"--lr", bad}) ==
          "error: --lr: must be a number, above 0; got '" + std::string(bad) +
              (bad == std::string("1e999") ? "', which is out of range" : "'"));
  CHECK(complaint({"--data", "cifar"}) ==
        "error: --data: must be one of mnist, fashion-mnist; got 'cifar'");
  CHECK(complaint({"--out", ""}) == "error: --out: must not be empty");
  CHECK(complaint({"--epochs"}) == "error: --epochs: needs a value; got none");
  CHECK(complaint({"--quick=1"}) == "error: --quick: takes no value");
  CHECK(complaint({"--threads", "0"}) ==
        "error: --threads: must be a whole number, at least 1 and at most 1024; got '0'");
}

TEST_CASE("args: unknown flags and arguments are refused, with a hint where one is near") {
  CHECK(complaint({"--epoch", "3"}) == "error: --epoch: unknown flag. Hint: --epochs?");
  CHECK(complaint({"--dta=mnist"}) == "error: --dta: unknown flag. Hint: --data?");
  CHECK(complaint({"--frobnicate"}) == "error: --frobnicate: unknown flag");
  CHECK(complaint({"picture.png"}) == "error: 'picture.png': unexpected argument");
  CHECK(contains(complaint({}, true), "FILE"));
}

TEST_CASE("args: arguments that are no flags are collected in their order") {
  Program p(true);
  CHECK_FALSE(p.parse({"b.png", "--epochs", "2", "a.png"}).has_value());
  CHECK(p.files == std::vector<std::string>{"b.png", "a.png"});
  CHECK(p.epochs == 2);
}

TEST_CASE("args: the help goes to stdout with defaults and rules, and ends the program with 0") {
  for (const char* flag : {"--help", "-h"}) {
    Program p(true);
    p.args.example("demo --quick");
    std::optional<int> code;
    const std::string text = written_to(STDOUT_FILENO, [&] { code = p.parse({flag}); });
    CHECK(code == 0);
    CHECK(text == p.args.help());
    for (const char* part :
         {"Shows what flags do.", "Usage: demo [flags] FILE...", "Training:", "-e, --epochs N",
          "(default 10; at least 1 and at most 1000)", "(default 0.001; above 0)",
          "--data mnist|fashion-mnist", "(default out/run)", "--threads N", "--version",
          "Examples:\n  demo --quick"})
      CHECK_MESSAGE(contains(text, part), part);
    for (const std::string& line : lines(text)) CHECK(line.size() <= 96);
  }
  Program p;
  std::optional<int> code;
  const std::string text = written_to(STDOUT_FILENO, [&] { code = p.parse({"--version"}); });
  CHECK(code == 0);
  CHECK(contains(text, runtime_info().version));
}

TEST_CASE("run_main: exit codes, messages, threads and the first line") {
  const int threads = num_threads();
  const auto run = [](const std::vector<const char*>& flags, const std::function<int()>& body,
                      Banner banner = Banner::out) {
    Program p;
    std::vector<const char*> words{"demo"};
    words.insert(words.end(), flags.begin(), flags.end());
    struct {
      int code = -1;
      std::string out, err;
    } r;
    r.out = written_to(STDOUT_FILENO, [&] {
      r.err = written_to(STDERR_FILENO, [&] {
        r.code = run_main(p.args, static_cast<int>(words.size()), words.data(), body, banner);
      });
    });
    return r;
  };
  int seen = 0;
  const auto fine = run({"--threads", "3"}, [&] {
    seen = num_threads();
    std::puts("result");
    return 5;
  });
  CHECK(fine.code == 5);
  CHECK(seen == 3);
  CHECK(lines(fine.out) == std::vector<std::string>{runtime_info().str(), "result"});
  CHECK(contains(fine.out, "3 threads"));

  const auto data = run(
      {}, [] { return 0; }, Banner::err);
  CHECK(data.out.empty());
  CHECK(lines(data.err).front() == runtime_info().str());

  bool ran = false;
  CHECK(run({"--bad"}, [&] { return ran = true, 0; }).code == 2);
  CHECK(run({"--help"}, [&] { return ran = true, 0; }).code == 0);
  CHECK_FALSE(ran);

  const auto io = run({}, []() -> int { throw IoError("file: broken"); });
  CHECK(io.code == 1);
  CHECK(contains(io.err, "error: file: broken\n"));
  const auto usage = run({}, []() -> int { throw UsageError("--a needs --b"); });
  CHECK(usage.code == 2);
  CHECK(contains(usage.err, "error: --a needs --b\nSee: demo --help\n"));
  const auto memory = run({}, []() -> int { throw std::bad_alloc(); });
  CHECK(memory.code == 1);
  CHECK(contains(memory.err, "error: out of memory"));
  set_num_threads(threads);
}

TEST_CASE("text: wrapping keeps every word, and hints need a near miss") {
  CHECK(wrapped("aa bb cc", 5, 0) == "aa bb\ncc");
  CHECK(wrapped("aa bb cc", 7, 2) == "aa bb\n  cc");
  CHECK(wrapped("longerthanwidth b", 4, 0) == "longerthanwidth\nb");
  CHECK(wrapped("", 10, 3).empty());
  CHECK(closest("--epoch", {"--lr", "--epochs"}) == "--epochs");
  CHECK(closest("--xyz", {"--lr", "--epochs"}).empty());
  CHECK(closest("", {"--lr"}).empty());
}

TEST_CASE("log: every line is valid JSON, whatever the values are") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const std::string line = json_line({{"epoch", 3},
                                      {"loss", nan},
                                      {"worst", inf},
                                      {"least", -inf},
                                      {"third", 1.0 / 3},
                                      {"f", 0.5F},
                                      {"seed", std::numeric_limits<std::uint64_t>::max()},
                                      {"low", std::numeric_limits<std::int64_t>::min()},
                                      {"done", true},
                                      {"text", "quote \" line\nbreak \\ tab\t"},
                                      {"bytes", std::string("a\xff\xc3(")},
                                      {"zero", std::string(1, '\0')},
                                      {"list", std::vector<double>{1, nan}},
                                      {"", ""}});
  CHECK_FALSE(contains(line, "\n"));
  const auto j = nlohmann::json::parse(line);
  CHECK(j["epoch"] == 3);
  CHECK(j["loss"].is_null());
  CHECK(j["worst"].is_null());
  CHECK(j["least"].is_null());
  CHECK(j["third"].get<double>() == 1.0 / 3);
  CHECK(j["f"] == 0.5);
  CHECK(j["seed"].get<std::uint64_t>() == std::numeric_limits<std::uint64_t>::max());
  CHECK(j["low"].get<std::int64_t>() == std::numeric_limits<std::int64_t>::min());
  CHECK(j["done"] == true);
  CHECK(j["text"] == "quote \" line\nbreak \\ tab\t");
  CHECK(j["list"][1].is_null());
  CHECK(j[""] == "");
  CHECK(line.starts_with("{\"epoch\":3,\"loss\":null,"));
  CHECK(json_line({}) == "{}");
  CHECK(json_line({{"a", 1}, {"b", 2}, {"a", 3}}) == "{\"a\":3,\"b\":2}");
}

TEST_CASE("log: lines are in the file at once; files are continued, repaired or started afresh") {
  const Folder folder;
  const fs::path path = folder.path / "metrics.jsonl";
  {
    JsonLog log(path);
    log.write({{"epoch", 1}});
    CHECK(content(path) == "{\"epoch\":1}\n");
  }
  JsonLog(path).write({{"epoch", 2}});
  CHECK(content(path) == "{\"epoch\":1}\n{\"epoch\":2}\n");

  std::ofstream(path, std::ios::app) << "{\"epo";  // a process was killed here
  JsonLog(path).write({{"epoch", 3}});
  CHECK(lines(content(path)).back() == "{\"epoch\":3}");

  JsonLog(path, {.fresh = true}).write({{"epoch", 4}});
  CHECK(content(path) == "{\"epoch\":4}\n");
}

TEST_CASE("log: a path that cannot be written is an IoError that names it") {
  const Folder folder;
  const std::string missing = (folder.path / "no" / "metrics.jsonl").string();
  try {
    JsonLog log(missing);
    FAIL("no exception");
  } catch (const IoError& e) {
    CHECK(contains(e.what(), missing));
  }
  CHECK_THROWS_AS(JsonLog(folder.path), IoError);
  CHECK_FALSE(fs::exists(missing));
  // The device on which every write fails, as on a full disk.
  if (fs::exists("/dev/full")) {
    JsonLog full("/dev/full");
    CHECK_THROWS_AS(full.write({{"epoch", 1}}), IoError);
  }
}

TEST_CASE("progress: durations, counts and rates read well") {
  CHECK(format_duration(0) == "0:00");
  CHECK(format_duration(7.4) == "0:07");
  CHECK(format_duration(59.6) == "1:00");
  CHECK(format_duration(754) == "12:34");
  CHECK(format_duration(3723) == "1:02:03");
  CHECK(format_duration(360000) == "100:00:00");
  for (double odd : {-1.0, std::nan(""), double(INFINITY), 1e300})
    CHECK(format_duration(odd) == "-:--");
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(-1234567) == "-1,234,567");
  CHECK(format_rate(0.08125) == "0.0813");
  CHECK(format_rate(8.125) == "8.13");
  CHECK(format_rate(99.97) == "100");
  CHECK(format_rate(812.3) == "812");
  CHECK(format_rate(9876.4) == "9876");
  CHECK(format_rate(12345) == "12.3k");
  CHECK(format_rate(999999) == "1.00M");
  CHECK(format_rate(std::nan("")) == "-");
  CHECK(format_rate(INFINITY) == "-");
}

TEST_CASE("progress: rate and time to go") {
  ProgressState s{
      .label = "", .done = 250, .total = 1000, .unit = "images", .elapsed = 10, .status = ""};
  CHECK(progress_rate(s) == 25);
  CHECK(progress_eta(s) == 30);
  s.done = 1200;
  CHECK(progress_eta(s) == 0);
  s.done = 0;
  CHECK(std::isnan(progress_rate(s)));
  CHECK(std::isnan(progress_eta(s)));
  s.total = 0;
  s.done = 5;
  CHECK(std::isnan(progress_eta(s)));
}

TEST_CASE("progress: the line fits every terminal and drops what matters least first") {
  const ProgressState s{.label = "epoch 2/5",
                        .done = 27500,
                        .total = 55000,
                        .unit = "images",
                        .elapsed = 61,
                        .status = "loss 0.123  acc 91.2 %"};
  for (bool unicode : {false, true})
    for (int columns = 1; columns <= 200; ++columns)
      CHECK(columns_of(progress_bar_line(s, columns, unicode)) <= std::max(columns - 1, 1));
  const std::string wide = progress_bar_line(s, 200, false);
  for (const char* part : {"epoch 2/5  ===============...............", " 50 %", "27,500/55,000",
                           "451 images/s", "loss 0.123  acc 91.2 %", "1:01  ETA 1:01"})
    CHECK_MESSAGE(contains(wide, part), part);
  CHECK(contains(progress_bar_line(s, 50, false), "acc 91.2 %"));
  CHECK_FALSE(contains(progress_bar_line(s, 50, false), "27,500"));
  CHECK(contains(progress_bar_line(s, 30, false), " 50 %"));

  ProgressState open = s;
  open.total = 0;
  CHECK(contains(progress_bar_line(open, 200, false), "27,500 images"));
  CHECK_FALSE(contains(progress_bar_line(open, 200, false), "ETA"));

  ProgressState nearly = s;
  nearly.done = 54999;
  CHECK(contains(progress_bar_line(nearly, 200, false), " 99 %"));
  CHECK(progress_plain_line(s) ==
        "epoch 2/5   50 %  27,500/55,000 images  451 images/s  loss 0.123  acc 91.2 %  1:01  ETA "
        "1:01");
  nearly.done = 55000;
  CHECK_FALSE(contains(progress_plain_line(nearly), "ETA"));
}

TEST_CASE("progress: in a pipe, one closing line without control characters") {
  const std::string text = written_to(STDERR_FILENO, [] {
    Progress p("epoch 1/1", 1000, "images");
    for (int i = 1; i <= 1000; ++i) p.update(i, "loss 1");
    p.print("a note");
    p.finish();
    p.finish();
    p.update(3);
  });
  REQUIRE(lines(text).size() == 2);
  CHECK(lines(text)[0] == "a note");
  CHECK(lines(text)[1].starts_with("epoch 1/1  100 %  1,000/1,000 images"));
  CHECK(text.find_first_of("\r\x1b") == std::string::npos);

  CHECK(written_to(STDERR_FILENO, [] { Progress("x", 9, "y").finish("summary"); }) == "summary\n");
  CHECK(written_to(STDERR_FILENO, [] { Progress("x", 9, "y").update(1); }).empty());
}

TEST_CASE("signals: the first one is a request, the second one ends the process with 130") {
  for (int signal : {SIGINT, SIGTERM}) {
    const auto exit_code_after = [&](int signals) {
      const pid_t child = ::fork();
      if (child == 0) {
        std::freopen("/dev/null", "w", stderr);
        catch_interrupts();
        if (interrupted()) ::_exit(1);
        for (int i = 0; i < signals; ++i) ::raise(signal);
        ::_exit(interrupted() ? 2 : 3);
      }
      int status = 0;
      REQUIRE(::waitpid(child, &status, 0) == child);
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    };
    CHECK(exit_code_after(0) == 3);
    CHECK(exit_code_after(1) == 2);
    CHECK(exit_code_after(2) == kInterruptedExit);
  }
}

TEST_CASE("memory: the peak covers what was touched and never falls") {
  constexpr std::size_t kBytes = 64'000'000;
  {
    std::vector<char> block(kBytes, 1);
    CHECK(block[kBytes / 2] == 1);
  }
  const double peak = peak_memory_mb();
  CHECK(peak >= 64);
  CHECK(peak < 1e6);
  CHECK(peak_memory_mb() >= peak);
}
