// capsfw_golden: holds the public functions and layers against stored reference vectors.

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "evaluate.hpp"

namespace {

namespace fs = std::filesystem;
using namespace capsfw::golden;

constexpr const char* kUsage =
    "usage: capsfw_golden --cases DIR [--only PATTERN] [--skip-unknown] [--verbose]\n\n"
    "Computes every case DIR/theme.case.safetensors in float64 and float32, compares values,\n"
    "gradients and second derivatives within the tolerances of the case, and ends with\n"
    "\"N passed, N failed, N skipped\". A case of unknown kind fails, and one that gives an\n"
    "input, a hyper-parameter or a value of one that is not honoured here. Exit status: 0 if some\n"
    "passed and none failed, 1 if one did or the cases cannot be read, 2 for a wrong command\n"
    "line.\n\n"
    "  --cases DIR      folder of cases\n"
    "  --only PATTERN   only cases whose names fit, for example 'routing.*'\n"
    "  --skip-unknown   list cases of unknown kinds and leave them out\n"
    "  --verbose        also list what passed, with the largest share of a tolerance used\n"
    "  --help           this text\n";

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Options {
  std::string cases, only = "*";
  bool skip_unknown = false, verbose = false, help = false;
};

Options parse(const std::vector<std::string>& args) {
  Options o;
  for (std::size_t i = 0; i < args.size(); ++i) {
    const std::size_t equals = args[i].starts_with("--") ? args[i].find('=') : std::string::npos;
    const std::string flag = args[i].substr(0, equals);
    const bool inlined = equals != std::string::npos;
    if (flag == "--cases" || flag == "--only") {
      if (!inlined && i + 1 == args.size()) throw UsageError(flag + " needs a value");
      (flag == "--cases" ? o.cases : o.only) = inlined ? args[i].substr(equals + 1) : args[++i];
    } else if (!inlined && flag == "--skip-unknown") {
      o.skip_unknown = true;
    } else if (!inlined && (flag == "--verbose" || flag == "--help" || flag == "-h")) {
      (flag == "--verbose" ? o.verbose : o.help) = true;
    } else {
      throw UsageError(fmt::format("unknown argument '{}'", args[i]));
    }
  }
  if (o.cases.empty() && !o.help) throw UsageError("--cases DIR is missing");
  return o;
}

std::vector<fs::path> find_cases(const Options& o) {
  if (!fs::is_directory(o.cases))
    throw capsfw::IoError(fmt::format("'{}' is not a folder", o.cases));
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(o.cases))
    if (entry.path().extension() == ".safetensors" && matches(entry.path().stem(), o.only))
      paths.push_back(entry.path());
  if (paths.empty())
    throw capsfw::IoError(fmt::format("no file {}.safetensors in '{}'", o.only, o.cases));
  std::sort(paths.begin(), paths.end());
  return paths;
}

int run_all(const Options& o) {
  int passed = 0, failed = 0, skipped = 0;
  const auto fail = [&](const fs::path& path, const std::vector<std::string>& problems) {
    ++failed;
    fmt::print("FAIL  {}\n", path.stem().string());
    for (const std::string& problem : problems) fmt::print("      {}\n", problem);
  };
  for (const fs::path& path : find_cases(o)) try {
      const CaseFile file(path);
      const Kind* kind = find_kind(file.name());
      if (kind == nullptr && o.skip_unknown) {
        ++skipped;
        fmt::print("skip  {}: of no known kind\n", file.name());
        continue;
      }
      if (kind == nullptr)
        throw capsfw::IoError(
            fmt::format("{}: of no known kind (--skip-unknown leaves it out)", file.name()));
      const Verdict verdict = check(file, *kind);
      if (!verdict.problems.empty()) {
        fail(path, verdict.problems);
        continue;
      }
      ++passed;
      if (o.verbose)
        fmt::print("ok    {}: at most {:.2g} of a tolerance{}{}\n", file.name(), verdict.worst,
                   verdict.worst_at.empty() ? "" : ", by ", verdict.worst_at);
    } catch (const std::exception& e) {
      fail(path, {e.what()});
    }
  fmt::print("{} passed, {} failed, {} skipped\n", passed, failed, skipped);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse({argv + 1, argv + argc});
    if (options.help) {
      fmt::print("{}", kUsage);
      return 0;
    }
    return run_all(options);
  } catch (const UsageError& e) {
    fmt::print(stderr, "error: {}\nSee: capsfw_golden --help\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
