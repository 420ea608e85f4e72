// What the programs share: log, progress, signals, memory.

#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <functional>
#include <limits>

#include <nlohmann/json.hpp>

#include <capsfw/core/error.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/json_log.hpp>
#include <capsfw/optim/memory.hpp>
#include <capsfw/optim/progress.hpp>

#include "apps_support.hpp"
#include "optim_thread_ranks.hpp"

using namespace capsfw;
using namespace apps_test;
using namespace optim_test;

namespace {

int columns_of(const std::string& utf8) {
  int n = 0;
  for (char c : utf8) n += (c & 0xC0) != 0x80;
  return n;
}

/// The exit code of a process that does `f`, silently; -1 if a signal ended it.
int exit_code_of(const std::function<int()>& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) ::_exit(9);
    ::_exit(f());
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/// One of two ranks, the other of which says nothing: no threads, which not every sanitizer allows
/// behind a fork.
struct Half : ThreadRanks {
  using ThreadRanks::ThreadRanks;
  std::vector<std::string> gather(const std::string& mine) override { return {mine, ""}; }
};

}  // namespace

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

TEST_CASE("log: lines are in the file at once, files are continued, repaired or started afresh") {
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
  CHECK(format_rate(0.08126) == "0.0813");
  CHECK(format_rate(8.126) == "8.13");
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
    const auto exit_code_after = [&](int signals, bool slowly = true) {
      return exit_code_of([&] {
        catch_interrupts();
        if (interrupted()) return 1;
        for (int i = 0; i < signals; ++i) {
          if (i > 0 && slowly) ::usleep(1'100'000);
          ::raise(signal);
        }
        return interrupted() ? 2 : 3;
      });
    };
    CHECK(exit_code_after(0) == 3);
    CHECK(exit_code_after(1) == 2);
    CHECK(exit_code_after(2) == kInterruptedExit);
    // At once: Ctrl-C twice means it; SIGTERM comes from a scheduler and from a launcher.
    CHECK(exit_code_after(2, false) == (signal == SIGINT ? kInterruptedExit : 2));
  }
}

TEST_CASE("signals: a rank whose own signal comes behind that of another one goes on to its end") {
  CHECK(exit_code_of([] {
          catch_interrupts();
          request_interrupt();  // the other one's, as all have agreed
          ::raise(SIGTERM);
          return interrupted() ? 2 : 3;
        }) == 2);
}

TEST_CASE(
    "signals: one that comes to a rank interrupts all of them where they meet, and not before") {
  CHECK(exit_code_of([] {
          World world(2);
          Half half(world, 0);
          catch_interrupts(&half);
          int wrong = interrupted() || interrupt_pending() ? 1 : 0;
          ::raise(SIGTERM);
          wrong += !interrupted() && interrupt_pending() ? 0 : 2;
          // What a rank does without the others goes to its end, as it does on them.
          const auto turn = [](std::int64_t) { return zeros({1}); };
          wrong += in_turns(nullptr, 3, turn).size() == 3 && !interrupted() ? 0 : 8;
          wrong += agree_on_interrupt(&half) && interrupted() ? 0 : 4;
          return wrong;
        }) == 0);
  // Nobody was signalled; and alone there is nobody to meet.
  std::vector<int> agreed(2, -1);
  on_ranks(2, [&](ThreadRanks& ranks) {
    agreed[static_cast<std::size_t>(ranks.rank())] = agree_on_interrupt(&ranks) ? 1 : 0;
  });
  CHECK(agreed == std::vector<int>{0, 0});
  CHECK(!agree_on_interrupt(nullptr));
}

TEST_CASE("signals: one between the turns of a list ends it early, and for all ranks") {
  CHECK(exit_code_of([] {
          World world(2);
          Half half(world, 0);
          catch_interrupts(&half);
          std::vector<std::int64_t> done;
          const TensorList all = in_turns(&half, 9, [&](std::int64_t k) {
            done.push_back(k);
            if (k == 2) ::raise(SIGTERM);
            return zeros({1});
          });
          int wrong = done == std::vector<std::int64_t>{0, 2} ? 0 : 1;
          wrong += all.size() == 2 ? 0 : 2;
          wrong += interrupted() ? 0 : 4;
          return wrong;
        }) == 0);
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
