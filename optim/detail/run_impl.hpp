#pragma once
// Private: what a Run does behind its functions.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/optim/ema.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/progress.hpp>
#include <capsfw/optim/run.hpp>

#include "run_state.hpp"
#include "shard_sum.hpp"

namespace capsfw {
namespace detail {

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

/// A part of a checkpoint.
struct Kept {
  std::string name;
  std::function<void(StateDict&, const std::string&)> save;
  std::function<void(const StateDict&, const std::string&)> load;
};

}  // namespace detail

/// What a Run needs of a loader of any kind.
struct Run::Loading {
  std::int64_t batches, samples;    // of an epoch
  std::function<void()> end_epoch;  // reads the end that follows the last batch
  std::function<void(const Shards&)> shard;
  detail::Kept place;
};

struct Run::Impl {
  using Clock = detail::Clock;
  using Kept = detail::Kept;
  static constexpr const char* kSlower = ". Hint: a smaller --lr, or --clip 1";

  Impl(Module& n, Optimizer& o, Loading l, RunFolder& f, RunOptions opts);

  // ---- time ----

  double seconds() const { return s.seconds + detail::seconds_since(start); }
  /// Of batches of this epoch.
  double seconds_in_epoch() const {
    return s.epoch_seconds + (clock ? detail::seconds_since(*clock) : 0);
  }
  bool stopped() const {
    return halted() || s.stopped != 0 || s.step >= total ||
           (ranks != nullptr ? agreed_late : late());
  }
  bool late() const { return options.minutes > 0 && seconds() > 60 * options.minutes; }
  /// Interrupted; with several ranks, as all of them know.
  bool halted() const { return ranks != nullptr ? agreed_halt : interrupted(); }
  double epochs_done() const {
    return static_cast<double>(s.step) / static_cast<double>(loading.batches);
  }
  int epochs() const { return static_cast<int>((total + loading.batches - 1) / loading.batches); }
  std::string label() const {
    return fmt::format("{}epoch {}/{}", options.label, s.epoch, epochs());
  }
  std::string where() const { return fmt::format("{}training, step {}", options.label, s.step); }

  // ---- checkpoints ----

  StateDict state() const;
  void save();
  void load(const Checkpoint& c);
  /// The state of the newest checkpoint, if this run goes on.
  void restore();
  /// Whether it is time for a checkpoint; `last`: no step follows.
  bool due(bool last) const;

  // ---- one step ----

  /// "" for a loss to go on with, else what is wrong with it.
  std::string complaint(double loss) const;

  /// What is averaged, if anything is.
  void begin_average();
  void forget_gradients();  // of the network and of the optimizer
  /// What OnNan says of such a step. Always false.
  bool refuse(const std::string& what, double loss, double norm, const std::string& hint = kSlower);
  /// The same of a step, or of a shard of one, that overflowed.
  bool refuse(const OverflowError& e, double loss, const Metrics& metrics);
  /// What became of one shard. The last one of a batch brings the step; false before.
  bool take_shard(double loss, const Metrics& metrics);
  /// The step of a batch whose shards are all there, here and on the other ranks.
  bool take_sum(std::int64_t samples);
  /// The update and the books. False if the gradient is refused.
  bool take(double loss, std::int64_t samples, const Metrics& metrics);
  void add(const std::string& name, double value);
  Metrics means() const;
  void log_train(double norm);
  /// The lines of an epoch.
  void report(const Metrics& metrics);

  void point(const std::string& name, double value) {
    s.curves[name].epoch.push_back(epochs_done());
    s.curves[name].value.push_back(value);
  }

  // ---- several ranks ----

  /// Cuts the batches into shards, where there are several.
  void share();
  /// Rank 0's start becomes that of all.
  void start_together();
  /// An interrupt of one is an interrupt of all.
  void meet();
  /// RankError if a rank has other weights than rank 0.
  void compare_weights();
  /// What was sent, and how long it was waited for.
  void say_traffic();

  // ---- lines ----

  void write(const std::string& event, const JsonFields& fields);
  void say(const std::string& text) {
    if (silent()) return;
    if (bar) return bar->print(text);
    fmt::print(stderr, "{}\n", text);
  }
  /// Rank 0 speaks for all.
  bool silent() const { return ranks != nullptr && ranks->rank() != 0; }
  /// The batches of this epoch are over.
  void close_clock();

  Module& net;
  Optimizer& optimizer;
  Loading loading;
  RunFolder& folder;
  RunOptions options;
  std::vector<Kept> kept;
  std::int64_t total = 0;

  detail::RunState s;
  std::optional<StateDict> best;
  std::optional<EMA> average;

  bool restored = false, resumed = false;  // resumed: the epoch that a checkpoint was in goes on
  std::int64_t saved_step = -1;
  Clock::time_point start = Clock::now(), saved_at = start;
  std::optional<Clock::time_point> clock;  // runs while batches do
  std::optional<Progress> bar;
  std::optional<AnomalyGuard> guard;

  Ranks* ranks = nullptr;                    // null: this process alone
  std::optional<detail::ShardSum> sharding;  // empty: whole batches
  bool agreed_halt = false, agreed_late = false;
  std::string overflow;         // what a shard of this batch said
  std::int64_t first_step = 0;  // of this process
  RankTraffic traffic = {};     // up to then
};

}  // namespace capsfw
