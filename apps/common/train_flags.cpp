#include "common/train_flags.hpp"

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/rmsprop.hpp>
#include <capsfw/optim/sgd.hpp>

#include "common/text.hpp"

namespace capsfw::apps {
namespace {

/// 0: none.
std::size_t parse_limit(const std::string& text) { return text == "none" ? 0 : parse_bytes(text); }

}  // namespace

void SafetyFlags::add_to(Args& args) {
  args.section("Checkpoints, bad numbers, memory")
      .add("--resume", resume, "go on with the run in the folder of --out, bit for bit")
      .add("--checkpoint-minutes X", checkpoint_minutes,
           "minutes between checkpoints (0: only at the end and on Ctrl-C)", {.min = 0})
      .add("--checkpoint-steps N", checkpoint_steps,
           "steps between checkpoints, besides those by minutes (0: none)", {.min = 0})
      .add("--checkpoint-keep N", checkpoint_keep,
           "checkpoints that are kept (0: none are written)", {.min = 0, .max = 1000})
      .choice(
          "--on-nan", on_nan, {"stop", "skip-step", "rollback"},
          "when loss or gradient is not finite: stop, leave out the step, or go back to the last "
          "checkpoint with half the learning rate, five times at most")
      .add("--spike X", spike,
           "a loss X times the mean of the last 100 steps counts as not finite (0: none does)",
           {.min = 0})
      .add("--check-numbers", check_numbers,
           "name the op and the layer of the first number that is not finite (slow)")
      .add("--memory-limit SIZE", memory_limit,
           "most memory of tensors, as 512M, 2G or 2Gi: a run that needs more ends with an error; "
           "none: what the machine has",
           [](const std::string& text) { parse_limit(text); })
      .section("Several processes (mpirun -np N ...)")
      .add("--shards N", shards,
           "cut batches into N parts, a power of two: the same bits for every number of processes "
           "that divides it (0: a part for each process, added in the fastest order)",
           {.min = 0, .max = 1 << 20})
      .add(
          "--spread", spread,
          "of several networks (seeds, folds, routings, ...) each process trains some, in place of "
          "a part of every batch of each")
      .add("--rank-timeout X", rank_timeout,
           "seconds without an answer after which a process counts as lost", {.above = 0});
}

void SafetyFlags::start(const Args& args) const {
  args.refuse_idle(checkpoint_keep == 0,
                   "of checkpoints; --checkpoint-keep is 0. Hint: --checkpoint-keep 2",
                   {"--checkpoint-minutes", "--checkpoint-steps"});
  if (on_nan == "rollback" && checkpoint_keep == 0)
    throw UsageError(
        "--on-nan rollback: goes back to checkpoints; --checkpoint-keep is 0. Hint: "
        "--checkpoint-keep 2");
  catch_interrupts(ranks);
  set_memory_limit(parse_limit(memory_limit));
}

void show_memory(const std::string& label, const MemoryEstimate& estimate) {
  const std::string warning = check_memory(estimate);
  fmt::print("{}{}\n", label, estimate.str());
  if (!warning.empty()) fmt::print(stderr, "warning: {}{}\n", label, warning);
}

std::int64_t SafetyFlags::largest_shard(std::int64_t batch) const {
  const std::int64_t n = shards > 0 ? shards : ranks != nullptr ? ranks->size() : 1;
  return (batch + n - 1) / n;
}

void SafetyFlags::put(RunOptions& o) const {
  o.shards = shards;
  o.checkpoint_minutes = checkpoint_minutes;
  o.checkpoint_steps = checkpoint_steps;
  o.check_numbers = check_numbers;
  o.spike = spike;
  o.on_nan = on_nan == "rollback"    ? OnNan::rollback
             : on_nan == "skip-step" ? OnNan::skip_step
                                     : OnNan::stop;
}

std::unique_ptr<RunFolder> SafetyFlags::open(const std::string& out,
                                             const Args& args,
                                             const std::string& data,
                                             std::vector<std::string> may_grow) const {
  if (agree_on_interrupt(takers != nullptr ? takers : ranks)) throw NotBegun();
  RunFolderOptions o{
      .resume = resume || collects,
      .config = args.values(),
      .may_change = {"--resume", "--out", "--minutes", "--checkpoint-minutes", "--checkpoint-steps",
                     "--checkpoint-keep", "--on-nan", "--spike", "--check-numbers",
                     "--memory-limit", "--rank-timeout", "--spread"},
      .may_grow = std::move(may_grow),
      .may_differ = {"--out", "--memory-limit", "--rank-timeout"},
      .keep = checkpoint_keep,
      .ranks = takers == nullptr ? ranks : nullptr,
      .takers = takers};
  o.may_grow.emplace_back("--seeds");  // those that were finished are not trained again
  o.config["the data"] = data;
  return std::make_unique<RunFolder>(out, std::move(o));
}

void TrainFlags::add_training(Args& args) {
  safety.add_to(args);
  args.section("Training")
      .add("--epochs N", epochs, "passes over the training set", {.min = 1})
      .add("--steps N", steps, "stop after N steps instead (0: by epochs)", {.min = 0})
      .add("--minutes X", minutes, "stop training after X minutes (0: no limit)", {.min = 0})
      .add("--batch N", batch, "samples per step", {.min = 1, .max = 60000})
      .choice("--optimizer", optimizer, {"adam", "adamw", "sgd", "rmsprop"}, "update rule")
      .add("--lr X", lr, "learning rate", {.above = 0})
      .add("--momentum X", momentum, "of --optimizer sgd", {.min = 0, .below = 1})
      .add("--weight-decay X", weight_decay, "weight decay", {.min = 0})
      .choice("--schedule", schedule, {"cosine", "exponential", "step", "constant"},
              "learning rate over time")
      .add("--decay X", decay, "factor per epoch (exponential) or per third of the run (step)",
           {.above = 0, .max = 1})
      .add("--warm-up N", warmup, "steps of linear warm-up", {.min = 0})
      .add("--clip X", clip, "largest norm of the gradient (0: off)", {.min = 0})
      .add("--average X", average,
           "decay of a running average of the weights, which is evaluated and kept in place of the "
           "last ones (0: none; 0.999 remembers about 1,000 steps)",
           {.min = 0, .below = 1})
      .add("--seed N", seed, "of weights, order and shifts")
      .add("--out DIR", out, "folder for log, weights and pictures");
}

void TrainFlags::start(const Args& args) const {
  args.refuse_idle(optimizer != "sgd",
                   fmt::format("of --optimizer sgd; got {}. Hint: --optimizer sgd", optimizer),
                   {"--momentum"});
  args.refuse_idle(schedule != "exponential" && schedule != "step",
                   fmt::format("of --schedule exponential or step; got {}. Hint: --schedule "
                               "exponential",
                               schedule),
                   {"--decay"});
  safety.start(args);
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

RunOptions run_options(const TrainFlags& f, std::int64_t steps_per_epoch) {
  RunOptions o{.epochs = f.epochs,
               .steps = f.steps,
               .minutes = f.minutes,
               .clip = f.clip,
               .average = f.average};
  o.rate = make_schedule(f, steps_per_epoch, f.steps > 0 ? f.steps : f.epochs * steps_per_epoch);
  f.safety.put(o);
  return o;
}

}  // namespace capsfw::apps
