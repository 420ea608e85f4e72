#include <cstdio>
#include <filesystem>
#include <new>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/runtime.hpp>

#include "args.hpp"

namespace capsfw::apps {

int run_main(Args& args,
             int argc,
             const char* const* argv,
             const std::function<int()>& body,
             Banner banner) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  try {
    if (const auto code = args.parse(argc, argv)) return *code;
    if (args.threads() > 0) set_num_threads(args.threads());
    const RuntimeInfo info = runtime_info();
    fmt::print(banner == Banner::out ? stdout : stderr, "{}\n", info.str());
    for (const std::string& w : info.warnings) fmt::print(stderr, "warning: {}\n", w);
    return body();
  } catch (const UsageError& e) {
    fmt::print(stderr, "error: {}\nSee: {} --help\n", e.what(), args.program());
    return 2;
  } catch (const std::filesystem::filesystem_error& e) {
    fmt::print(stderr, "error: '{}': {}. Hint: must be a folder that can be written to\n",
               e.path1().string(), e.code().message());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory\n");
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
  }
  return 1;
}

}  // namespace capsfw::apps
