#include <capsfw/optim/run_folder.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <system_error>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/runtime.hpp>
#include <capsfw/data/file.hpp>
#include <capsfw/data/text.hpp>

#include "detail/claims.hpp"
#include "detail/programs.hpp"

namespace capsfw {
namespace {

namespace fs = std::filesystem;

/// Keys of the metadata of a checkpoint.
constexpr const char *kConfig = "config ", *kVersion = "capsfw", *kMachine = "machine",
                     *kLines = "lines", *kFinished = "finished";
constexpr const char* kLog = "metrics.jsonl";

std::string machine() {
  const RuntimeInfo info = runtime_info();
  return fmt::format("{}, {}, {}", info.instructions, info.blas, info.cpu);
}

void note(const std::string& text) { fmt::print(stderr, "note: {}\n", text); }

std::string value_of(const Metadata& m, const std::string& key) {
  const auto found = m.find(key);
  return found == m.end() ? std::string() : found->second;
}

bool contains(const std::vector<std::string>& list, const std::string& name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

std::optional<double> number(const std::string& text) {
  double v = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (code != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return v;
}

/// Keeps other processes out while it lives; also those on file systems that know no locks.
class Lock {
 public:
  explicit Lock(const fs::path& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(descriptor_);
      throw IoError(fmt::format(
          "run folder '{}': another run writes into it. Hint: wait for it, or take another folder",
          folder.string()));
    }
  }
  ~Lock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int descriptor_;
};

}  // namespace

struct RunFolder::Impl {
  Impl(fs::path f, RunFolderOptions o) : folder(std::move(f)), options(std::move(o)) {
    for (auto& [name, value] : options.config)
      if (!is_utf8(value)) value = latin1_to_utf8(value);  // paths may be anything
    if (Ranks* all = options.takers != nullptr ? options.takers : options.ranks) {
      if (options.takers != nullptr && options.ranks != nullptr)
        throw ValueError("RunFolder: ranks share batches or take parts, not both");
      if (options.takers != nullptr && options.keep == 0)
        throw ValueError(
            "RunFolder: ranks that take parts need checkpoints, which keep what is finished; got "
            "keep = 0. Hint: --checkpoint-keep 1, or no --spread");
      compare(*all);
      if (all->rank() == 0) open();
      char flag = resumed ? 1 : 0;
      all->broadcast(&flag, 1);
      resumed = flag != 0;
    } else {
      open();
    }
    if (options.takers == nullptr) return;
    lone.emplace(*options.takers);
    claims.emplace(folder, *options.takers);
    path = claims->own();
    if (!log) log.emplace(path / kLog, JsonLogOptions{.fresh = true});
  }

  bool writes() const { return options.ranks == nullptr || options.ranks->rank() == 0; }

  /// What decides about bits must be equal, or the copies of the network would drift apart.
  void compare(Ranks& ranks) const {
    const RuntimeInfo info = runtime_info();
    Metadata facts = options.config;
    facts["the version of capsfw"] = info.version;
    facts.merge(detail::programs());
    facts["CAPSFW_ISA, the vector instructions,"] = info.instructions;
    facts["OPENBLAS_CORETYPE, the kernels of OpenBLAS,"] = info.blas;
    for (const std::string& name : options.may_differ) facts.erase(name);
    require_equal(ranks, facts);
  }

  bool take(const std::string& name) {
    if (!claims) return true;
    const bool mine = claims->take(name);
    if (!mine || !resumed) return mine;
    const auto last = load(name);
    return !(last && last->metadata.contains(kFinished));
  }

  void open() {
    fs::create_directories(folder);
    lock.emplace(folder);
    if (options.resume) {
      const auto earlier = any_checkpoint();
      if (earlier) check(*earlier);
      resumed = earlier.has_value();
      if (!resumed) note(fmt::format("no checkpoint in {}: a new run begins", root().string()));
    }
    if (!resumed) set_aside();
    detail::Claims::collect(folder, kLog, resumed);
    AtomicFile::remove_leftovers(folder);  // of a run that was killed here
    log.emplace(folder / kLog, JsonLogOptions{.fresh = true});
  }

  fs::path root() const { return folder / "checkpoints"; }
  CheckpointFolder checkpoints(const std::string& name) const {
    return CheckpointFolder(name.empty() ? root() : root() / name, std::max(options.keep, 1));
  }
  std::optional<Checkpoint> load(const std::string& name) const {
    return checkpoints(name).load([](const std::string& why) { note(why + "; passed over"); });
  }

  /// Of whichever part: all have one configuration.
  std::optional<Checkpoint> any_checkpoint() const {
    std::vector<std::string> parts{""};
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(root(), missing))
      if (entry.is_directory()) parts.push_back(entry.path().filename().string());
    std::sort(parts.begin(), parts.end());
    for (const std::string& p : parts)
      if (auto found = checkpoints(p).load()) return found;
    return std::nullopt;
  }

  void check(const Checkpoint& c) const {
    const auto refuse = [&](const std::string& name, const std::string& now,
                            const std::string& then) {
      throw ValueError(fmt::format(
          "resume: {} is '{}' now and was '{}' in the run that left its checkpoints in '{}'. Hint: "
          "go on with what it began with, or begin a new run in another folder",
          name, now, then, folder.string()));
    };
    for (const auto& [name, now] : options.config) {
      const std::string then = value_of(c.metadata, kConfig + name);
      if (now == then || contains(options.may_change, name)) continue;
      const auto a = number(then), b = number(now);
      if (!(contains(options.may_grow, name) && a && b && *b > *a)) refuse(name, now, then);
    }
    for (const auto& [key, then] : c.metadata)
      if (const std::string name = key.substr(std::min(key.size(), std::string(kConfig).size()));
          key.starts_with(kConfig) && !options.config.contains(name) &&
          !contains(options.may_change, name))
        refuse(name, "", then);
    if (value_of(c.metadata, kVersion) != runtime_info().version ||
        value_of(c.metadata, kMachine) != machine())
      note(fmt::format(
          "the checkpoint was made by capsfw {} on {}: the last bits of what follows may "
          "be others",
          value_of(c.metadata, kVersion), value_of(c.metadata, kMachine)));
  }

  /// Checkpoints of an earlier run, which is not what goes on now.
  void set_aside() const {
    if (!fs::exists(root())) return;
    const fs::path old = folder / "checkpoints.old";
    fs::remove_all(old);
    fs::rename(root(), old);
    note(fmt::format("the checkpoints of an earlier run are now in {}", old.string()));
  }

  /// What rank 0 has read.
  std::optional<Checkpoint> shared(std::optional<Checkpoint> c) const {
    if (options.ranks == nullptr) return c;
    std::int64_t at = c ? c->step : -1;
    options.ranks->broadcast(&at, sizeof at);
    if (at < 0) return std::nullopt;
    if (!c) c.emplace(Checkpoint{.step = at, .state = {}, .metadata = {}});
    broadcast(*options.ranks, c->state);
    return c;
  }

  void write(const std::string& line) {
    if (!writes()) return;
    log->write_line(line);
    lines += line + '\n';
  }
  void replay(const Checkpoint& c) {
    lines = value_of(c.metadata, kLines);
    for (std::size_t at = 0; at < lines.size();) {
      const std::size_t end = lines.find('\n', at);
      log->write_line(lines.substr(at, end - at));
      at = end + 1;
    }
  }

  Metadata metadata() const {
    Metadata m{{kVersion, runtime_info().version}, {kMachine, machine()}, {kLines, lines}};
    for (const auto& [name, value] : options.config) m[kConfig + name] = value;
    return m;
  }

  fs::path folder, path = folder;  // of all, and of this process
  RunFolderOptions options;
  std::optional<LoneRank> lone;
  std::optional<detail::Claims> claims;
  std::optional<Lock> lock;
  std::optional<JsonLog> log;
  bool resumed = false;
  std::string part;        // that has begun
  std::string lines;       // of the log, since then
  std::int64_t step = -1;  // of its newest checkpoint
};

RunFolder::RunFolder(fs::path folder, RunFolderOptions options)
    : impl_(std::make_unique<Impl>(std::move(folder), std::move(options))) {}
RunFolder::~RunFolder() = default;

const fs::path& RunFolder::path() const { return impl_->path; }
Ranks* RunFolder::ranks() const { return impl_->lone ? &*impl_->lone : impl_->options.ranks; }
bool RunFolder::take(const std::string& part) { return impl_->take(part); }
bool RunFolder::takes() const { return impl_->options.takers != nullptr; }
bool RunFolder::keeps() const { return impl_->options.keep > 0; }
bool RunFolder::resumed() const { return impl_->resumed; }
void RunFolder::write(const JsonFields& fields) { impl_->write(json_line(fields)); }

std::optional<StateDict> RunFolder::results(const std::string& part) {
  Impl& m = *impl_;
  if (!m.resumed) return std::nullopt;
  std::optional<Checkpoint> last;
  if (m.writes()) last = m.load(part);
  if (last && !last->metadata.contains(kFinished)) last.reset();
  if (last) {
    m.replay(*last);
    m.lines.clear();
  }
  last = m.shared(std::move(last));
  if (!last) return std::nullopt;
  return std::move(last->state);
}

void RunFolder::finish(const std::string& part, const StateDict& results) {
  Impl& m = *impl_;
  if (m.writes() && m.options.keep > 0) {
    Metadata metadata = m.metadata();
    metadata[kFinished] = "true";
    CheckpointFolder(m.checkpoints(part).path(), 1).save({m.step + 1, results, metadata});
  }
  m.part.clear();
  m.lines.clear();
}

std::optional<Checkpoint> RunFolder::begin(const std::string& part) {
  Impl& m = *impl_;
  m.part = part;
  m.lines.clear();
  if (!m.resumed) return std::nullopt;
  std::optional<Checkpoint> last;
  if (m.writes()) last = m.load(part);
  if (last) m.replay(*last);
  last = m.shared(std::move(last));
  m.step = last ? last->step : -1;
  return last;
}

void RunFolder::save(std::int64_t step, const StateDict& state) {
  if (impl_->options.keep == 0 || !impl_->writes()) return;
  impl_->checkpoints(impl_->part).save({step, state, impl_->metadata()});
  impl_->step = step;
}

Checkpoint RunFolder::last() const {
  std::optional<Checkpoint> last;
  if (impl_->writes()) last = impl_->load(impl_->part);
  if (auto c = impl_->shared(std::move(last))) return std::move(*c);
  throw IoError(fmt::format("run folder '{}': no checkpoint to go back to", path().string()));
}

}  // namespace capsfw
