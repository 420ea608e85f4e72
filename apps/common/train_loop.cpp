#include "common/train_loop.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/optim/interrupt.hpp>

#include "common/chart.hpp"

namespace capsfw::apps {

History History::of(const Run& run, const std::string& val_accuracy) {
  const auto percent = [](std::vector<double> v) {
    for (double& x : v) x *= 100;
    return v;
  };
  History h;
  h.step = run.curve("loss").epoch;
  h.loss = run.curve("loss").value;
  h.accuracy = percent(run.curve("accuracy").value);
  h.epoch = run.curve(val_accuracy).epoch;
  h.val_loss = run.curve("val_loss").value;
  if (h.val_loss.empty()) h.val_loss.assign(h.epoch.size(), NAN);  // not known
  h.val_accuracy = percent(run.curve(val_accuracy).value);
  return h;
}

void History::save(StateDict& state, const std::string& prefix) const {
  StateDict all;
  all.set("step", from_vector(step));
  all.set("loss", from_vector(loss));
  all.set("accuracy", from_vector(accuracy));
  all.set("epoch", from_vector(epoch));
  all.set("val_loss", from_vector(val_loss));
  all.set("val_accuracy", from_vector(val_accuracy));
  state.merge(prefix, all);
}

void History::load(const StateDict& state, const std::string& prefix) {
  const StateDict all = state.under(prefix);
  step = all.at("step").to_vector<double>();
  loss = all.at("loss").to_vector<double>();
  accuracy = all.at("accuracy").to_vector<double>();
  epoch = all.at("epoch").to_vector<double>();
  val_loss = all.at("val_loss").to_vector<double>();
  val_accuracy = all.at("val_accuracy").to_vector<double>();
}

void History::draw(const std::string& title, const std::filesystem::path& path) const {
  Chart chart(title);
  chart.panel("loss", {"epoch", "loss"})
      .line("training", step, loss)
      .line("validation", epoch, val_loss);
  chart.panel("accuracy", {"epoch", "%"})
      .line("training", step, accuracy)
      .line("validation", epoch, val_accuracy);
  chart.save(path.string());
}

TrainResult TrainResult::of(const Run& run, const std::string& val_accuracy) {
  return {.history = History::of(run, val_accuracy),
          .best_epoch = run.best_epoch(),
          .val_accuracy = run.best_epoch() > 0 ? run.best_score() : NAN,
          .steps = run.steps(),
          .averaged = run.averages(),
          .seconds = run.seconds(),
          .seconds_per_epoch = run.seconds_per_epoch()};
}

std::string TrainResult::text() const {
  return fmt::format(
      "{} of {}, {:.0f} s of training", averaged ? "averages" : "weights",
      best_epoch > 0 ? fmt::format("epoch {}", best_epoch) : std::string("the last step"), seconds);
}

TrainResult train(ImageClassifier& net,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const TrainTask& task,
                  RunFolder& folder) {
  LoaderOptions loading = loader_options(flags);
  loading.drop_last = task.drop_last;
  DataLoader loader(parts.train, loading);
  const auto optimizer = make_optimizer(flags, net.named_parameters());
  const auto forward = [&](const Batch& batch) -> TrainTask::Step {
    if (task.step) return task.step(batch);
    const ClassifierOutput out = net(batch.images, batch.labels);
    return {task.loss(out, batch), accuracy(out.lengths, batch.labels)};
  };
  const auto step = [&](std::int64_t samples) {
    return forward({parts.train.images(0, samples), narrow(parts.train.labels(), 0, 0, samples)})
        .loss;
  };
  show_memory(task.label, estimate_memory(net, *optimizer,
                                          flags.safety.largest_shard(std::min<std::int64_t>(
                                              flags.batch, parts.train.size())),
                                          step));
  RunOptions options = run_options(flags, loader.size());
  options.part = task.part;
  options.label = task.label;
  options.tags = task.tags;
  Run run(net, *optimizer, loader, folder, options);
  Answers answers(parts.validation);
  // As it was for the last of so many steps: a run may go on with an evaluation, before any step.
  const auto set_schedule = [&](std::int64_t steps) {
    if (task.before_step && steps > 0) task.before_step(steps - 1, run.total());
  };
  const auto end_epoch = [&](const Metrics& metrics, std::optional<double> score) {
    run.end_epoch(metrics, score);
    if (task.after_epoch && !interrupted()) task.after_epoch(run, answers);
  };
  while (run.next_epoch()) {
    for (const Batch& batch : run.batches(loader)) {
      if (task.before_step) task.before_step(run.steps(), run.total());
      run.attempt([&] {
        const TrainTask::Step now = forward(batch);
        run.step(now.loss, batch.size(), {{"accuracy", now.accuracy}});
      });
    }
    set_schedule(run.steps());
    run.averaged([&] {
      if (parts.validation.size() == 0) return end_epoch({}, std::nullopt);
      const Score val =
          task.validate ? task.validate()
                        : answers.of(net, task.loss, task.label + "validation", flags.safety.ranks);
      end_epoch({{"val_loss", val.loss}, {"val_accuracy", val.accuracy}}, val.accuracy);
    });
  }
  run.finish();
  set_schedule(run.best_epoch() > 0 ? run.best_step() : run.steps());
  return TrainResult::of(run);
}

std::string fingerprint(const HeldOut& parts, const ImageSet& test) {
  const auto of = [](const ImageSet& s) { return s.size() > 0 ? capsfw::fingerprint(s) : "none"; };
  return fmt::format("{}; {}; {}", of(parts.train), of(parts.validation), of(test));
}

}  // namespace capsfw::apps
