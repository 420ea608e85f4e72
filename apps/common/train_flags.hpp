#pragma once
// How a network is trained, on the command line.

#include <memory>
#include <string>

#include <capsfw/data/loader.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/optim/memory_estimate.hpp>
#include <capsfw/optim/run.hpp>
#include <capsfw/optim/schedule.hpp>

#include "common/args.hpp"
#include "common/data_flags.hpp"

namespace capsfw::apps {

/// Thrown where a program was interrupted before it had a folder: there is nothing to keep.
struct NotBegun {};

/// The flags of checkpoints, bad numbers, memory and several processes, for every program that
/// trains.
struct SafetyFlags {
  bool resume = false, check_numbers = false;
  double checkpoint_minutes = 5, spike = 0;
  std::int64_t checkpoint_steps = 0;
  int checkpoint_keep = 2;
  std::string on_nan = "stop", memory_limit = "none";
  std::int64_t shards = 0;
  double rank_timeout = 60;
  bool spread = false;
  Ranks *ranks = nullptr, *takers = nullptr;  ///< see train_main()
  bool collects = false;  ///< finds what ranks have finished: goes on without --resume

  /// Sections "Checkpoints, bad numbers, memory" and "Several processes".
  void add_to(Args& args);
  /// Once, before anything is read: interrupts end the run, and memory has its limit. UsageError
  /// for flags that nothing would read.
  void start(const Args& args) const;
  /// Samples of the largest shard of a batch of so many.
  std::int64_t largest_shard(std::int64_t batch) const;
  /// Puts them into the options of a run.
  void put(RunOptions& options) const;
  /// The folder `out`, with all flags of the program as what its checkpoints depend on. `data`: a
  /// fingerprint of what is trained on. `may_grow`: flags that may be larger when a run goes on.
  /// All ranks meet here first: NotBegun if one of them was interrupted.
  std::unique_ptr<RunFolder> open(const std::string& out,
                                  const Args& args,
                                  const std::string& data,
                                  std::vector<std::string> may_grow = {}) const;
};

/// Shows what a step will take, and a warning if the machine has less. MemoryError beyond
/// --memory-limit.
void show_memory(const std::string& label, const MemoryEstimate& estimate);

/// The flags of training. A program changes the defaults before add_to().
struct TrainFlags : DataFlags {
  std::string optimizer = "adam", schedule = "cosine", load = {}, out;
  int epochs = 10, batch = 64, warmup = 0, seeds = 1;
  std::int64_t steps = 0;
  std::uint64_t seed = 1;
  double lr = 1e-3, momentum = 0.9, weight_decay = 0, decay = 0.9, clip = 0, average = 0,
         minutes = 0;
  SafetyFlags safety = {};

  /// Sections "Checkpoints, bad numbers, memory" and "Training": --epochs, --steps, ..., --seed.
  /// The caller may add more to the latter.
  void add_training(Args& args);
  /// safety.start(), and UsageError for flags of another optimizer or schedule.
  void start(const Args& args) const;
  /// True if the learning rate depends on the length of the run.
  bool rate_needs_length() const { return schedule == "cosine" || schedule == "step"; }
};

std::unique_ptr<Optimizer> make_optimizer(const TrainFlags& flags, const NamedTensors& parameters);
Schedule make_schedule(const TrainFlags& flags, std::int64_t steps_per_epoch, std::int64_t total);

/// Batches of a training set, shuffled and changed as the flags say.
LoaderOptions loader_options(const TrainFlags& flags);

/// Length, learning rate, clipping and safety of a run over a loader with so many batches.
RunOptions run_options(const TrainFlags& flags, std::int64_t steps_per_epoch);

}  // namespace capsfw::apps
