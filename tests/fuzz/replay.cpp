// Every file of the corpora through its target, and damaged copies of it: what a fuzzer does, in
// seconds, with any compiler, and the same every time.
//
//   replay CORPUS [COPIES]
//
// Without sanitizers the address space may grow by 512 MiB over what the program has at its start.

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <capsfw/core/random.hpp>

#include "targets.hpp"

namespace {

using capsfw::Rng;
using capsfw::fuzz::Target;
using Buffer = std::vector<std::uint8_t>;
namespace fs = std::filesystem;

constexpr std::size_t kGrowth = std::size_t{512} << 20;

Buffer read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::size_t below(Rng& rng, std::size_t n) { return n == 0 ? 0 : rng.next() % n; }

/// One to four changes: a bit, a byte, a large number, a cut, more bytes, a part twice.
Buffer damaged(Buffer b, Rng& rng) {
  for (std::size_t k = 0, n = 1 + below(rng, 4); k < n; ++k) {
    const std::size_t at = below(rng, b.size());
    const auto here = b.begin() + static_cast<std::ptrdiff_t>(at);
    switch (b.empty() ? 4 : below(rng, 7)) {
      case 0:
        b[at] ^= static_cast<std::uint8_t>(1U << below(rng, 8));
        break;
      case 1:
        b[at] = static_cast<std::uint8_t>(rng.next());
        break;
      case 2:  // lengths, offsets and counts
        for (std::size_t i = at, end = std::min(b.size(), at + 4 * (1 + below(rng, 2))); i < end;
             ++i)
          b[i] = below(rng, 3) == 0 ? 0x7f : 0xff;
        break;
      case 3:
        b.resize(at);
        break;
      case 4: {
        Buffer more(below(rng, 40));
        std::generate(more.begin(), more.end(),
                      [&] { return static_cast<std::uint8_t>(rng.next()); });
        b.insert(here, more.begin(), more.end());
        break;
      }
      case 5: {
        const Buffer part(here, here + static_cast<std::ptrdiff_t>(below(rng, b.size() - at)));
        b.insert(b.begin() + static_cast<std::ptrdiff_t>(below(rng, b.size())), part.begin(),
                 part.end());
        break;
      }
      default:
        b.erase(here, here + static_cast<std::ptrdiff_t>(below(rng, b.size() - at)));
    }
  }
  return b;
}

/// What is wrong with a target's answer to these bytes; "" if nothing.
std::string finding(const Target& target, const Buffer& bytes, bool* accepted = nullptr) {
  try {
    const bool read = target.run(bytes);
    if (accepted != nullptr) *accepted = read;
    return "";
  } catch (const std::exception& e) {
    return e.what();
  }
}

/// Shows a finding and keeps its bytes.
void report(const Target& target,
            const fs::path& seed,
            int copy,
            const Buffer& bytes,
            const std::string& what) {
  const fs::path kept =
      fs::temp_directory_path() / ("capsfw-finding-" + std::string(target.name) + "-" +
                                   seed.filename().string() + "-" + std::to_string(copy));
  std::ofstream(kept, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  std::printf("FINDING %s, %s, copy %d, kept as %s: %.500s\n", std::string(target.name).c_str(),
              seed.filename().c_str(), copy, kept.c_str(), what.c_str());
}

void limit_memory() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t limit = pages * 4096 + kGrowth;
  const rlimit both{limit, limit};
  if (::setrlimit(RLIMIT_AS, &both) != 0) std::printf("no limit of memory\n");
#endif
}

/// Every target over its folder of `corpus`: the exit code.
int replay(const fs::path& corpus, int most) {
  int findings = 0;
  for (const Target& target : capsfw::fuzz::kTargets) {
    const int copies = most / target.cost;
    std::vector<fs::path> seeds;
    for (const auto& entry : fs::directory_iterator(corpus / target.name))
      seeds.push_back(entry.path());
    std::sort(seeds.begin(), seeds.end());
    int good = 0, damaged_good = 0;
    for (const fs::path& seed : seeds) {
      const Buffer bytes = read_all(seed);
      bool accepted = false;
      std::string wrong = finding(target, bytes, &accepted);
      good += accepted;
      if (wrong.empty() && accepted && seed.filename().string().starts_with("promise"))
        wrong = "a false promise was believed";
      if (!wrong.empty()) report(target, seed, 0, bytes, wrong), ++findings;
      Rng rng(7);
      for (int k = 1; k <= copies; ++k) {
        const Buffer copy = damaged(bytes, rng);
        wrong = finding(target, copy, &accepted);
        damaged_good += accepted;
        if (!wrong.empty()) report(target, seed, k, copy, wrong), ++findings;
      }
    }
    std::printf("%-12s %3zu files, %d good; %d damaged copies each, %d of all still readable\n",
                std::string(target.name).c_str(), seeds.size(), good, copies, damaged_good);
    std::fflush(stdout);
    if (good < 3) {
      std::printf("FINDING %s: of its seeds at least three must be good\n",
                  std::string(target.name).c_str());
      ++findings;
    }
  }
  return findings == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::printf("usage: %s CORPUS [COPIES]\n", argv[0]);
    return 2;
  }
  limit_memory();
  try {
    return replay(argv[1], argc > 2 ? std::atoi(argv[2]) : 200);
  } catch (const std::exception& e) {  // a folder that is missing; findings are no exceptions here
    std::fprintf(stderr, "error: %s\n", e.what());
    return 2;
  }
}
