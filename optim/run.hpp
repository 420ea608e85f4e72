#pragma once
// What a training loop needs besides network, loss and data: a bar, a log, the best weights,
// checkpoints, and an eye on numbers that are none.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <capsfw/data/loader.hpp>
#include <capsfw/data/text_loader.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/optim/run_folder.hpp>
#include <capsfw/optim/schedule.hpp>

namespace capsfw {

/// What becomes of a step whose loss or gradient is NaN or infinite, in which a routing throws an
/// OverflowError (see Run::attempt), or whose loss has jumped.
enum class OnNan : std::uint8_t {
  stop,       ///< ValueError
  skip_step,  ///< the weights stay as they are, and the next batch follows
  /// The state of the last checkpoint, with half the learning rate from there on; the sixth time is
  /// a ValueError. Writes a checkpoint in front of the first step; ValueError where the folder
  /// keeps none.
  rollback
};

/// Options of Run.
struct RunOptions {
  int epochs = 1;          ///< passes over the data
  std::int64_t steps = 0;  ///< end after so many steps instead; 0: by epochs
  double minutes = 0;      ///< end after so many minutes of training; 0: no limit
  Schedule rate = {};      ///< learning rate of a step; empty: that of the optimizer now
  double clip = 0;         ///< largest norm of the optimizer's gradient; 0: as it comes

  /// Decay of an EMA (with warm-up) of parameters and running statistics, which is evaluated and
  /// kept in place of the last weights, see averaged(); 0: none.
  double average = 0;

  std::string part = {};        ///< see RunFolder
  std::string label = {};       ///< in front of every line that is shown
  JsonFields tags = {};         ///< in every line of the log
  std::string unit = "images";  ///< of the bar
  bool later_wins = true;       ///< of two epochs with the same score the later one is better

  /// No bar, no lines of steps and epochs: the program shows and logs what it wants.
  bool quiet = false;

  double checkpoint_minutes = 5;      ///< time between checkpoints; 0: only when the run ends
  std::int64_t checkpoint_steps = 0;  ///< a checkpoint behind every so many steps as well; 0: none

  bool check_numbers = false;  ///< an AnomalyGuard, for as long as the Run lives
  OnNan on_nan = OnNan::stop;  ///< what to do about a loss or gradient that is not finite
  /// A loss so many times the running mean of about the last 100, once there have been 20, counts
  /// as NaN; 0: none does. Of losses whose mean is above 0.
  double spike = 0;

  /// Cuts every batch into so many shards, a power of two that the number of ranks divides, whose
  /// gradients are added by a binary tree: the same bits for every number of ranks, one included.
  /// 0: one shard for each rank, added in whatever order is fastest.
  std::int64_t shards = 0;
};

/// Numbers of a step or an epoch by name. A name that ends in "accuracy" is shown in per cent.
using Metrics = std::vector<std::pair<std::string, double>>;

/// Values over the epochs, for charts.
struct Curve {
  std::vector<double> epoch;  ///< counted from the start, with fractions
  std::vector<double> value;  ///< at that time
};

/// The state of a run. The loops stay those of the program (from apps/lesson_3_training.cpp):
///
///   Run run(net, adam, loader, folder, {.epochs = 3});
///   while (run.next_epoch()) {
///     for (const Batch& batch : run.batches(loader)) {
///       const Tensor loss = ...;
///       run.step(loss, batch.size(), {{"accuracy", ...}});
///     }
///     run.end_epoch({{"val_accuracy", score}}, score);
///   }
///   run.finish();
///
/// Checkpoints are written between two steps: they hold the weights, the best ones so far, the
/// optimizer, generators of the network, the place in the data, all sums and curves, the lines of
/// the log, and what the program adds by keep(). A run that goes on from one takes the same steps,
/// and writes the same lines, bit for bit, as if it had never stopped; times and memory aside.
/// Schedules of a program follow from steps(). The first SIGINT or SIGTERM (see catch_interrupts)
/// ends the loops behind a last checkpoint.
///
/// With several ranks (RunFolderOptions::ranks) or RunOptions::shards the same loops train on
/// shards of the batches: batches() gives those of this rank, one after the other, the loss is the
/// mean over one of them, and the step is taken with the last one. Gradients, loss, metrics and
/// running statistics become those of the whole batch, weighted by samples; every shard has random
/// numbers of its own, and layers that look at a whole batch (batch norm) see a shard. All ranks
/// have the same weights before every step; those of rank 0 at the start, or of its checkpoint.
/// RankError, which names the rank, where one does not answer or has other weights than rank 0.
class Run {
 public:
  /// The loader must be at the start of an epoch. Everything must outlive the Run. ValueError for
  /// options out of range.
  Run(Module& net,
      Optimizer& optimizer,
      DataLoader& loader,
      RunFolder& folder,
      RunOptions options = {});
  Run(Module& net,
      Optimizer& optimizer,
      TextLoader& loader,
      RunFolder& folder,
      RunOptions options = {});
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  /// Adds `object` to the checkpoints by its save(StateDict&, prefix) and load(StateDict, prefix),
  /// as Rng has them. Before the first next_epoch().
  template <class T>
  void keep(const std::string& name, T& object) {
    if constexpr (std::is_same_v<T, Rng>) add_generator(object);
    add_kept(
        name, [&object](StateDict& s, const std::string& prefix) { object.save(s, prefix); },
        [&object](const StateDict& s, const std::string& prefix) { object.load(s, prefix); });
  }

  /// True if there is another epoch to go, or to go on with. The first call restores the state of a
  /// checkpoint.
  bool next_epoch();

  template <class Loader, class Batch>
  class Batches;
  /// The batches that are left of this epoch.
  Batches<DataLoader, Batch> batches(DataLoader& loader);
  Batches<TextLoader, TextBatch> batches(TextLoader& loader);

  /// One step: gradient of `loss`, norm and clipping, update, sums, bar and log. `samples` is the
  /// weight of this batch in the means of the epoch. False if the weights were left as they are
  /// (see OnNan), or other shards of the batch are still to come.
  bool step(const Tensor& loss, std::int64_t samples, const Metrics& metrics = {});
  /// The same where the gradients already are at the parameters; `loss` is for the books.
  bool update(double loss, std::int64_t samples, const Metrics& metrics = {});

  /// Calls `step`, which computes a loss and calls step() or update():
  ///
  ///   run.attempt([&] { run.step(loss_of(net(batch.images), batch), batch.size()); });
  ///
  /// An OverflowError from the network is treated like a loss that is not finite (see OnNan).
  void attempt(const std::function<void()>& step);

  /// Calls `evaluate` while the network computes with its averages (RunOptions::average):
  ///
  ///   run.averaged([&] { run.end_epoch({{"val_accuracy", ...}}, evaluate(net)); });
  ///
  /// and goes on where training was, also behind an exception. Without averages it only calls it.
  void averaged(const std::function<void()>& evaluate);

  /// Reports an epoch: a line shown, a line logged. With a score, remembers the weights if they are
  /// the best so far. Does nothing once interrupted(): what was evaluated then may be part of it.
  void end_epoch(const Metrics& metrics = {}, std::optional<double> score = std::nullopt);

  /// No epoch follows this one.
  void stop();
  /// The end: the network gets the best weights, if there was a score; else its averages, if there
  /// are any.
  void finish();

  /// A line of the log with the tags of this run.
  void write(const std::string& event, const JsonFields& fields);

  std::int64_t steps() const;        ///< taken so far
  bool averages() const;             ///< is there a running average (RunOptions::average)?
  std::int64_t shard() const;        ///< number of the shard at hand, from 0
  std::int64_t shards() const;       ///< of a batch
  std::int64_t total() const;        ///< to be taken
  int epoch() const;                 ///< the one that runs, from 1
  int epochs() const;                ///< in all
  double seconds() const;            ///< of the whole run, pauses left out
  double seconds_per_epoch() const;  ///< of a full epoch, evaluation left out; NaN before any step
  int best_epoch() const;            ///< 0 before any score
  double best_score() const;         ///< 0 before any score
  std::int64_t best_step() const;    ///< steps() then
  /// Of "loss" and the metrics of step() (means between two points) and of end_epoch().
  const Curve& curve(const std::string& name) const;

 private:
  struct Impl;
  struct Loading;
  Run(Module& net, Optimizer& optimizer, Loading loading, RunFolder& folder, RunOptions options);
  void add_kept(const std::string& name,
                std::function<void(StateDict&, const std::string&)> save,
                std::function<void(const StateDict&, const std::string&)> load);
  void add_generator(Rng& rng);
  bool go_on();
  void begin_batch(std::int64_t samples);
  void enter_shard();
  [[noreturn]] static void ended_early();
  std::unique_ptr<Impl> impl_;
};

/// A range to loop over once.
template <class Loader, class Batch>
class Run::Batches {
 public:
  /// Of what is left of an epoch of `loader`.
  Batches(Run& run, Loader& loader) : run_(&run), loader_(&loader) {}

  /// Reads a batch, or a shard of one, at a time, and ends where the run does.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Batch;
    using difference_type = std::ptrdiff_t;
    using pointer = const Batch*;
    using reference = const Batch&;

    Iterator(Run& run, Loader& loader) : run_(&run), loader_(&loader) { ++*this; }
    const Batch& operator*() const { return shards_[at_]; }
    const Batch* operator->() const { return &shards_[at_]; }
    Iterator& operator++() {
      if (at_ < shards_.size()) shards_[at_++] = {};  // its memory may serve the next one
      while (at_ == shards_.size()) {                 // a rank may have no shard of a batch
        if (!run_->go_on()) {
          run_ = nullptr;
          return *this;
        }
        if (!loader_->next(shards_)) ended_early();
        at_ = 0;
        run_->begin_batch(loader_->drawn());
      }
      run_->enter_shard();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& i, std::default_sentinel_t) { return !i.run_; }

   private:
    Run* run_;
    Loader* loader_;
    std::vector<Batch> shards_;
    std::size_t at_ = 0;
  };
  Iterator begin() { return Iterator(*run_, *loader_); }
  std::default_sentinel_t end() { return {}; }

 private:
  Run* run_;
  Loader* loader_;
};

inline Run::Batches<DataLoader, Batch> Run::batches(DataLoader& loader) { return {*this, loader}; }
inline Run::Batches<TextLoader, TextBatch> Run::batches(TextLoader& loader) {
  return {*this, loader};
}

}  // namespace capsfw
