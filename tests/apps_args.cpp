// Flags and the frame of main().

#include <functional>
#include <new>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/runtime.hpp>
#include <capsfw/data/checkpoint.hpp>

#include "apps_support.hpp"
#include "common/args.hpp"
#include "common/text.hpp"
#include "common/train_main.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using namespace apps_test;

namespace {

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
  CHECK(p.args.takes_value("--epochs"));
  CHECK(p.args.takes_value("--data"));
  CHECK_FALSE(p.args.takes_value("--quick"));
  CHECK_THROWS_AS(p.args.takes_value("--nothing"), ValueError);
}

TEST_CASE("args: a flag that nothing would read is refused where it was given, and only there") {
  Program p;
  CHECK_FALSE(p.parse({"--seed", "7", "--quick"}).has_value());  // 7 is the default
  p.args.refuse_idle(false, "of something else", {"--seed", "--quick"});
  p.args.refuse_idle(true, "of something else", {"--epochs", "--steps"});
  CHECK_THROWS_WITH_AS(p.args.refuse_idle(true, "of --lr; got none", {"--epochs", "--seed"}),
                       "--seed: of --lr; got none", UsageError);
  CHECK_THROWS_AS(p.args.refuse_idle(true, "of something else", {"--nothing"}), ValueError);
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

TEST_CASE("way_on: of one network, of several, of none, and of a folder that cannot be read") {
  const Folder one, several, closed;
  CHECK(way_on(one.path / "missing") == "there is no checkpoint");
  fs::create_directories(several.path / "checkpoints" / "cnn");
  CHECK(way_on(several.path) == "there is no checkpoint");
  const Checkpoint checkpoint{.step = 3, .state = {}, .metadata = {}};
  CheckpointFolder(one.path / "checkpoints").save(checkpoint);
  CheckpointFolder(several.path / "checkpoints" / "caps").save(checkpoint);
  CHECK(way_on(one.path) == "--resume goes on");
  CHECK(way_on(several.path) == "--resume goes on");
  fs::create_symlink("checkpoints", closed.path / "checkpoints");  // a link to itself
  CHECK(contains(way_on(closed.path), "cannot be read"));
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

TEST_CASE("text: lists, means, medians and ranked scores") {
  CHECK(split_at_commas("a,,a") == std::vector<std::string>{"a", "", "a"});
  CHECK(split_at_commas("") == std::vector<std::string>{""});
  CHECK(split_list("b,a") == std::vector<std::string>{"b", "a"});
  for (const char* bad : {"", "a,", "a,b,a"}) CHECK_THROWS_AS(split_list(bad), ValueError);
  CHECK(percent({0.5}) == "50.00 %");
  CHECK(percent({0.5, 0.25, 0.75}) == "50.00 ± 25.00 %");
  CHECK(median({3, 1, 2}) == 2);
  CHECK(median({4, 1, 2, 3}) == 2.5);
  CHECK(ranked_scores({"a", "bcd"}, {0.01, 0.09}) == "bcd\n  bcd  0.090 ####\n  a    0.010 \n");
}
