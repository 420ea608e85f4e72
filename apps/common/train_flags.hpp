#pragma once
// How a network is trained, on the command line.

#include <memory>
#include <string>

#include <capsfw/data/loader.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/optim/schedule.hpp>

#include "common/args.hpp"
#include "common/data_flags.hpp"

namespace capsfw::apps {

/// The flags of training. A program changes the defaults before add_to().
struct TrainFlags : DataFlags {
  std::string optimizer = "adam", schedule = "cosine", load = {}, out;
  int epochs = 10, batch = 64, warmup = 0;
  std::int64_t steps = 0;
  std::uint64_t seed = 1;
  double lr = 1e-3, momentum = 0.9, weight_decay = 0, decay = 0.9, clip = 0, minutes = 0;

  /// Section "Training": --epochs, --steps, ..., --seed. The caller may add more to it.
  void add_training(Args& args);
};

std::unique_ptr<Optimizer> make_optimizer(const TrainFlags& flags, const NamedTensors& parameters);
Schedule make_schedule(const TrainFlags& flags, std::int64_t steps_per_epoch, std::int64_t total);

/// Batches of a training set, shuffled and changed as the flags say.
LoaderOptions loader_options(const TrainFlags& flags);

}  // namespace capsfw::apps
