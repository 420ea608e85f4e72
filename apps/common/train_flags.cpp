#include "common/train_flags.hpp"

#include <algorithm>

#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/rmsprop.hpp>
#include <capsfw/optim/sgd.hpp>

namespace capsfw::apps {

void TrainFlags::add_training(Args& args) {
  args.section("Training")
      .add("--epochs N", epochs, "passes over the training set", {.min = 1})
      .add("--steps N", steps, "stop after N steps instead (0: by epochs)", {.min = 0})
      .add("--minutes X", minutes, "stop training after X minutes (0: no limit)", {.min = 0})
      .add("--batch N", batch, "samples per step", {.min = 1, .max = 60000})
      .choice("--optimizer", optimizer, {"adam", "adamw", "sgd", "rmsprop"}, "update rule")
      .add("--lr X", lr, "learning rate", {.above = 0})
      .add("--momentum X", momentum, "of sgd", {.min = 0, .below = 1})
      .add("--weight-decay X", weight_decay, "weight decay", {.min = 0})
      .choice("--schedule", schedule, {"cosine", "exponential", "step", "constant"},
              "learning rate over time")
      .add("--decay X", decay, "factor per epoch (exponential) or per third of the run (step)",
           {.above = 0, .max = 1})
      .add("--warm-up N", warmup, "steps of linear warm-up", {.min = 0})
      .add("--clip X", clip, "largest norm of the gradient (0: off)", {.min = 0})
      .add("--seed N", seed, "of weights, order and shifts")
      .add("--out DIR", out, "folder for log, weights and pictures");
}

std::unique_ptr<Optimizer> make_optimizer(const TrainFlags& f, const NamedTensors& parameters) {
  const ParamList list(parameters);
  if (f.optimizer == "sgd")
    return std::make_unique<SGD>(
        list, SGDOptions{.lr = f.lr, .momentum = f.momentum, .weight_decay = f.weight_decay});
  if (f.optimizer == "adamw")
    return std::make_unique<AdamW>(list, AdamWOptions{.lr = f.lr, .weight_decay = f.weight_decay});
  if (f.optimizer == "rmsprop")
    return std::make_unique<RMSprop>(list,
                                     RMSpropOptions{.lr = f.lr, .weight_decay = f.weight_decay});
  return std::make_unique<Adam>(list, AdamOptions{.lr = f.lr, .weight_decay = f.weight_decay});
}

Schedule make_schedule(const TrainFlags& f, std::int64_t steps_per_epoch, std::int64_t total) {
  Schedule rate = constant_rate(f.lr);
  if (f.schedule == "step") rate = step_decay(f.lr, std::max<std::int64_t>(total / 3, 1), f.decay);
  if (f.schedule == "exponential") rate = exponential_decay(f.lr, f.decay, steps_per_epoch);
  if (f.schedule == "cosine") rate = cosine_decay(f.lr, total);
  return f.warmup > 0 ? warm_up(f.warmup, rate) : rate;
}

LoaderOptions loader_options(const TrainFlags& f) {
  return {.batch_size = f.batch,
          .shuffle = true,
          .max_shift = f.shift,
          .seed = f.seed,
          .transform = f.augmentation()};
}

}  // namespace capsfw::apps
