#include "claims.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace capsfw::detail {
namespace {

namespace fs = std::filesystem;

constexpr const char *kRanks = "checkpoints.ranks", *kClaims = "claims-";

}  // namespace

Claims::Claims(const fs::path& folder, Ranks& takers) : leads_(takers.rank() == 0) {
  const fs::path root = folder / kRanks;
  std::string name;
  if (leads_) {
    fs::create_directories(root);
    name = (root / (std::string(kClaims) + "XXXXXX")).string();
    // Without one nobody will see it.
    name = ::mkdtemp(name.data()) != nullptr ? fs::path(name).filename().string() : "none";
  }
  broadcast(takers, name);
  claims_ = root / name;
  // A shared disk may be late to show what another machine has made.
  for (int tries = 0; tries < 50 && !fs::exists(claims_); ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const std::vector<std::string> blind = takers.gather(fs::exists(claims_) ? "" : "blind");
  for (std::size_t r = 0; r < blind.size(); ++r)
    if (!blind[r].empty())
      throw RankError(
          fmt::format("rank {} does not see what rank 0 writes into '{}'. Hint: ranks that take "
                      "networks of their own need a folder that all of them share",
                      r, folder.string()));
  own_ = leads_ ? folder : root / fmt::to_string(takers.rank());
  fs::create_directories(own_);
}

bool Claims::take(const std::string& part) {
  if (!std::exchange(asked_, true) && !leads_) return false;
  const fs::path path = claims_ / part;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0 && errno == EEXIST) return false;
  if (file < 0)
    throw IoError(fmt::format("run folder: cannot write '{}': {}", path.string(),
                              std::generic_category().message(errno)));
  ::close(file);
  return true;
}

void Claims::collect(const fs::path& folder, const std::string& log, bool keep) {
  const fs::path root = folder / kRanks;
  std::error_code none;
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(root, none))
    if (keep && entry.is_regular_file() && entry.path().filename() != log &&
        !entry.path().parent_path().filename().string().starts_with(kClaims))
      files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files) fs::rename(file, folder / file.filename());
  fs::remove_all(root);
}

}  // namespace capsfw::detail
