#include "common/train_main.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <thread>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/runtime.hpp>
#include <capsfw/data/checkpoint.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/mpi_ranks.hpp>

namespace capsfw::apps {
namespace {

namespace fs = std::filesystem;

/// A folder that goes with the process; or, where that was killed, with the next one.
class PassingFolder {
 public:
  PassingFolder() {
    std::string name = (fs::temp_directory_path() / (std::string(kBegin) + "XXXXXX")).string();
    if (::mkdtemp(name.data()) == nullptr)
      throw IoError(fmt::format("cannot make the folder '{}'. Hint: TMPDIR", name));
    path_ = name;
    lock_ = locked(path_);
    remove_leftovers();
  }
  ~PassingFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
    if (lock_ >= 0) ::close(lock_);
  }
  PassingFolder(const PassingFolder&) = delete;
  PassingFolder& operator=(const PassingFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  static constexpr const char* kBegin = "capsfw-rank-";

  /// A descriptor that holds the lock of the folder; -1 if somebody else has it.
  static int locked(const fs::path& folder) {
    const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0 || ::flock(file, LOCK_EX | LOCK_NB) == 0) return file;
    ::close(file);
    return -1;
  }
  /// Folders whose process is gone; younger ones may not be locked yet.
  static void remove_leftovers() {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(fs::temp_directory_path(), ignored)) {
      if (!entry.path().filename().string().starts_with(kBegin)) continue;
      const auto age = fs::file_time_type::clock::now() - entry.last_write_time(ignored);
      if (age < std::chrono::minutes(2)) continue;
      const int file = locked(entry.path());
      if (file < 0) continue;
      fs::remove_all(entry.path(), ignored);
      ::close(file);
    }
  }

  std::string path_;
  int lock_ = -1;
};

/// From now on nothing that this process says is heard, but for what goes to the result.
std::FILE* silenced() {
  std::fflush(nullptr);
  const int errors = ::dup(STDERR_FILENO), nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (errors < 0 || nowhere < 0) return stderr;
  ::dup2(nowhere, STDOUT_FILENO);
  ::dup2(nowhere, STDERR_FILENO);
  ::close(nowhere);
  std::FILE* file = ::fdopen(errors, "w");
  return file != nullptr ? file : stderr;
}

/// The processors that this rank may use, with the name of its host.
struct Place {
  std::string host;
  cpu_set_t cpus;

  static Place here() {
    Place p;
    CPU_ZERO(&p.cpus);
    static_cast<void>(sched_getaffinity(0, sizeof p.cpus, &p.cpus));
    char name[256] = "";
    static_cast<void>(::gethostname(name, sizeof name - 1));
    p.host = name;
    return p;
  }
  std::string str() const {
    std::string text;
    for (int i = 0; i < CPU_SETSIZE; ++i) text += CPU_ISSET(i, &cpus) ? '1' : '0';
    return text + host;
  }
  static Place of(const std::string& text) {
    Place p{text.substr(CPU_SETSIZE), {}};
    CPU_ZERO(&p.cpus);
    for (int i = 0; i < CPU_SETSIZE; ++i)
      if (text[static_cast<std::size_t>(i)] == '1') CPU_SET(i, &p.cpus);
    return p;
  }
  bool shares(const Place& other) const {
    cpu_set_t both;
    CPU_AND(&both, &cpus, &other.cpus);
    return host == other.host && CPU_COUNT(&both) > 0;
  }
};

/// Sets the threads of this rank, unless somebody has said how many, and says so on rank 0.
void place_threads(Ranks& ranks, const Args& args) {
  const Place mine = Place::here();
  std::map<std::string, int> hosts;
  int sharers = 0;
  for (const std::string& text : ranks.gather(mine.str())) {
    const Place other = Place::of(text);
    sharers += mine.shares(other) ? 1 : 0;
    ++hosts[other.host];
  }
  const char* said = std::getenv("CAPSFW_NUM_THREADS");
  if (args.threads() == 0 && (said == nullptr || *said == '\0'))
    set_num_threads(std::max(1, num_threads() / std::max(sharers, 1)));
  int least = 1 << 20, most = 0;
  for (const std::string& text : ranks.gather(fmt::to_string(num_threads()))) {
    least = std::min(least, std::stoi(text));
    most = std::max(most, std::stoi(text));
  }
  fmt::print("{} ranks on {} host{}, {} thread{} each\n", ranks.size(), hosts.size(),
             hosts.size() == 1 ? "" : "s",
             least == most ? fmt::to_string(most) : fmt::format("{} to {}", least, most),
             most == 1 ? "" : "s");
  // The launcher itself is not bound; but a container may have fewer processors than its host.
  cpu_set_t launcher;
  if (sched_getaffinity(::getppid(), sizeof launcher, &launcher) == 0 &&
      CPU_COUNT(&mine.cpus) * hosts[mine.host] < CPU_COUNT(&launcher) * sharers)
    fmt::print(stderr,
               "note: the launcher has bound this rank to {} of {} processors. Hint: mpirun "
               "--bind-to none lets ranks share all of them\n",
               CPU_COUNT(&mine.cpus), CPU_COUNT(&launcher));
}

/// Runs it, or says that it was interrupted before it had a folder.
int run_or_say(const std::function<int()>& body,
               const SafetyFlags& safety,
               const std::string& out) {
  try {
    return body();
  } catch (const NotBegun&) {
    fmt::print("Interrupted: {}\n",
               safety.resume || safety.collects ? way_on(out) : "nothing was trained");
    return kInterruptedExit;
  }
}

/// Each rank takes networks of its own; then rank 0 finds all of them finished.
int spread(Ranks& ranks,
           SafetyFlags& safety,
           const std::string& out,
           const std::function<int()>& body) {
  LoneRank lone(ranks);
  safety.ranks = &lone;
  safety.takers = &ranks;
  const int code = run_or_say(body, safety, out);
  ranks.wait_for_all();
  bool whole = true;
  for (const std::string& said : ranks.gather(interrupted() ? "interrupted" : ""))
    whole = whole && said.empty();
  // Now: mpirun ends all others behind the first rank that ends with a code.
  if (!whole && code == 0 && ranks.rank() == 0) fmt::print("Interrupted: {}\n", way_on(out));
  ranks.finish();
  if (!whole) return kInterruptedExit;
  if (ranks.rank() > 0) return 0;
  safety.ranks = safety.takers = nullptr;
  safety.collects = true;
  return run_or_say(body, safety, out);
}

}  // namespace

int train_main(Args& args,
               int argc,
               const char* const* argv,
               SafetyFlags& safety,
               std::string& out,
               const std::function<int()>& body) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  std::unique_ptr<Ranks> ranks;
  std::optional<PassingFolder> folder;
  std::FILE* errors = stderr;
  try {
    if (const auto code = args.parse(argc, argv)) return *code;
    args.refuse_idle(
        launched_ranks() == 0,
        fmt::format("of several processes; there is one. Hint: mpirun -np N {}", args.program()),
        {"--spread", "--rank-timeout"});
    if (const int launched = launched_ranks(); launched > 1) {
      ranks = mpi_ranks({.timeout = safety.rank_timeout});
      if (ranks->size() != launched)
        throw ValueError(fmt::format(
            "MPI sees {} of the {} processes that were started. Hint: the launcher belongs to "
            "another MPI than the program was built with",
            ranks->size(), launched));
    }
    if (ranks && ranks->rank() > 0) {
      errors = silenced();
      if (!safety.spread) out = folder.emplace().path();
    }
    show_runtime(args);
    if (ranks) place_threads(*ranks, args);
    if (ranks && safety.spread) return spread(*ranks, safety, out, body);
    safety.ranks = ranks.get();
    const int code = run_or_say(body, safety, out);
    if (ranks) ranks->finish();
    return code;
  } catch (...) {
    if (!ranks) return report_failure(args, stderr);
    // What all have found out, rank 0 says.
    if (ranks->rank() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(700));
    const int code = report_failure(args, errors, fmt::format("rank {}: ", ranks->rank()));
    folder.reset();
    ranks->abort(code);
    return code;
  }
}

std::string way_on(const std::filesystem::path& folder) {
  const fs::path root = folder / "checkpoints";  // of one network, or a folder for each
  bool found = false;
  try {
    found = !CheckpointFolder(root).files().empty();
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(root, missing))
      found =
          found || (entry.is_directory(missing) && !CheckpointFolder(entry.path()).files().empty());
  } catch (const IoError& e) {
    return e.what();
  }
  return found ? "--resume goes on" : "there is no checkpoint";
}

int end_of_run(const std::filesystem::path& folder) {
  if (!interrupted()) return 0;
  fmt::print("Interrupted: {}\n", way_on(folder));
  return kInterruptedExit;
}

}  // namespace capsfw::apps
