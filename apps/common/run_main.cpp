#include <cstdio>
#include <filesystem>
#include <new>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/runtime.hpp>

#include "args.hpp"

namespace capsfw::apps {

void show_runtime(const Args& args, Banner banner) {
  if (args.threads() > 0) set_num_threads(args.threads());
  const RuntimeInfo info = runtime_info();
  fmt::print(banner == Banner::out ? stdout : stderr, "{}\n", info.str());
  for (const std::string& w : info.warnings) fmt::print(stderr, "warning: {}\n", w);
}

int report_failure(const Args& args, std::FILE* file, const std::string& who) {
  int code = 1;
  try {
    throw;
  } catch (const UsageError& e) {
    fmt::print(file, "error: {}{}\nSee: {} --help\n", who, e.what(), args.program());
    code = 2;
  } catch (const std::filesystem::filesystem_error& e) {
    fmt::print(file, "error: {}'{}': {}. Hint: must be a folder that can be written to\n", who,
               e.path1().string(), e.code().message());
  } catch (const std::bad_alloc&) {
    fmt::print(file, "error: {}out of memory\n", who);
  } catch (const std::exception& e) {
    fmt::print(file, "error: {}{}\n", who, e.what());
  }
  std::fflush(file);
  return code;
}

int run_main(Args& args,
             int argc,
             const char* const* argv,
             const std::function<int()>& body,
             Banner banner) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  try {
    if (const auto code = args.parse(argc, argv)) return *code;
    show_runtime(args, banner);
    return body();
  } catch (...) {
    return report_failure(args, stderr);
  }
}

}  // namespace capsfw::apps
