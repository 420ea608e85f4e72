#pragma once
// The folder that a program trains into: its log, its checkpoints, and whether an earlier run goes
// on.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <capsfw/data/checkpoint.hpp>
#include <capsfw/optim/json_log.hpp>
#include <capsfw/optim/ranks.hpp>

namespace capsfw {

/// Options of RunFolder.
struct RunFolderOptions {
  /// Go on with the run that left its checkpoints in the folder; without any, begin.
  bool resume = false;
  /// What the run depends on, by the names of its flags: kept in every checkpoint, and compared
  /// when a run goes on.
  Metadata config = {};
  std::vector<std::string> may_change = {};  ///< entries of `config` that may be others
  std::vector<std::string> may_grow = {};    ///< entries that may be larger numbers
  std::vector<std::string> may_differ = {};  ///< entries that may differ between ranks
  int keep = 2;                              ///< checkpoints of each part; 0: none are written
  /// The processes that train together. Rank 0 alone reads and writes the folder, which may lie on
  /// a disk of its own; the others get from it what it reads. `config` must be equal on all of
  /// them, but for `may_differ`. Must outlive the folder; null: this process alone.
  Ranks* ranks = nullptr;
  /// Processes that share the parts among them instead, see RunFolder::take(). All of them must see
  /// the folder; `config` must be equal on all of them, likewise. Not together with `ranks`. Must
  /// outlive the folder. ValueError without checkpoints, which keep what is finished.
  Ranks* takers = nullptr;
};

/// DIR/metrics.jsonl and DIR/checkpoints. A program trains one network after the other: each is a
/// part with a name, checkpoints in a folder of that name, and lines of the log, which travel in
/// its checkpoints. A run that goes on writes the log anew: what had been written up to the
/// checkpoint, and then what comes; so no line is lost or doubled, whatever became of the file.
///
///   RunFolder folder("out/a", {.resume = resume, .config = {{"--lr", "0.1"}}});
///   folder.write({{"event", "start"}});
///
/// One run at a time may use a folder. A run that begins where another one has left checkpoints
/// moves them to DIR/checkpoints.old. What a killed run has left under a temporary name goes.
///
/// Parts that do not depend on each other can be shared among processes, `takers`: each takes the
/// next one that nobody has, and trains it alone. Then one process goes through all parts once
/// more, with `resume`, and finds them finished: log and results are those of a single process.
class RunFolder {
 public:
  /// IoError if the folder cannot be written or another process uses it. With `resume`, ValueError,
  /// and nothing is changed, if an entry of `config` differs from that of the checkpoints.
  /// RankError if `config`, the program, its libraries or instructions differ between ranks.
  explicit RunFolder(std::filesystem::path folder, RunFolderOptions options = {});
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  /// The folder; with `takers`, that of this rank: DIR of rank 0, DIR/checkpoints.ranks/K of
  /// others. What those leave there moves to DIR when it is opened again; so files should have the
  /// names of their parts, or belong to the first one, which is always rank 0's.
  const std::filesystem::path& path() const;
  /// See RunFolderOptions; with `takers` a LoneRank. To be called back by those who train: a rank
  /// that does not call progress() for long counts as lost.
  Ranks* ranks() const;
  /// True if it keeps checkpoints (RunFolderOptions::keep).
  bool keeps() const;
  /// True if the folder was opened with `resume` and there was something to go on with.
  bool resumed() const;

  /// A line of the log.
  void write(const JsonFields& fields);

  /// Whether this process is to work on a part: with `takers`, if it is not finished and nobody
  /// else has taken it; else always. The first part asked about is rank 0's.
  bool take(const std::string& part);
  /// True with `takers`: results are of some parts only, and it is too early to sum them up.
  bool takes() const;

  /// The results of a part that had been finished; its lines are in the log again.
  std::optional<StateDict> results(const std::string& part);
  /// Ends a part: its results take the place of its checkpoints.
  void finish(const std::string& part, const StateDict& results);

  /// Begins a part, or goes on with it: its newest checkpoint, if this run goes on and there is
  /// one.
  std::optional<Checkpoint> begin(const std::string& part);
  /// Writes a checkpoint of the part that has begun.
  void save(std::int64_t step, const StateDict& state);
  /// Its newest checkpoint, for a run that goes back. IoError if there is none.
  Checkpoint last() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace capsfw
