// Trains small classifiers with penalties of their gradients and measures what these do: accuracy
// and its gap, both penalties, and, for multilayer perceptrons, both sides of the inequality
// between them in every layer, on the same images throughout.

#include <chrono>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/chart.hpp"
#include "common/classifier.hpp"
#include "common/log.hpp"
#include "common/penalty_probe.hpp"
#include "common/progress.hpp"
#include "common/signals.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  std::string data = "fashion-mnist", penalty = "all", form = "exact", param_form = "batch",
              hidden = "64,64", rates = "0.02,0.05,0.1,0.2,0.5", out = "out/gradient_penalty";
  ClassifierOptions model;
  std::int64_t train = 1000, val = 1000, test = 10000, steps = 1500, probe = 100;
  int batch = 50, seeds = 1, records = 10;
  std::uint64_t seed = 1;
  double lr = 1e-3, input_weight = 0.3, param_weight = 0.1, step_size = 1e-2, target = 0.3;
  bool lr_sweep = false, exact = false;
};

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

/// The images of one seed.
struct Data {
  Labelled train, val, test, probe;
  ImageSet images;

  Data(const Flags& f, const ImageSet& all, const ImageSet& test_set, std::uint64_t seed) {
    const HeldOut parts = hold_out(all, f.train + f.val, seed);
    images = parts.validation.range(0, f.train);
    train = {images.images(), images.labels()};
    const ImageSet held = parts.validation.range(f.train, f.train + f.val);
    val = {held.images(), held.labels()};
    const ImageSet tested = test_set.range(0, std::min(f.test, test_set.size()));
    test = {tested.images(), tested.labels()};
    probe = train.first(std::min(f.probe, f.train));
  }
};

/// One penalty to train with.
struct Kind {
  bool input, param;
};
const std::map<std::string, Kind> kKinds = {{"none", {false, false}},
                                            {"input", {true, false}},
                                            {"parameter", {false, true}},
                                            {"both", {true, true}}};
const std::vector<std::string> kNames = {"none", "input", "parameter", "both"};

/// ∇ of mean loss + penalties, left at the parameters. Returns the mean loss.
double penalised_step(Classifier& model, const Batch& batch, const Kind& kind, const Flags& f) {
  const TensorList params = model.parameters();
  const bool differences = f.form == "difference";
  Tensor total;
  if (kind.param && differences)  // moves the parameters: before any graph that reads them
    total = f.param_weight *
            param_gradient_penalty_difference(
                [&] { return mean(model.losses(model.scores(batch.images), batch.labels)); },
                params, {.step = f.step_size});
  const Tensor x = kind.input ? batch.images.detach().requires_grad_() : batch.images;
  const SampleFunction losses = [&](const Tensor& at) {
    return model.losses(model.scores(at), batch.labels);
  };
  const Tensor values = losses(x), loss = mean(values);
  total = total.defined() ? total + loss : loss;
  if (kind.input)
    total = total + f.input_weight * (differences ? input_gradient_penalty_difference(
                                                        losses, values, x, {.step = f.step_size})
                                                  : input_gradient_penalty(values, x));
  if (kind.param && !differences)
    total = total + f.param_weight * (f.param_form == "batch"
                                          ? param_gradient_penalty_batch(values, params)
                                          : param_gradient_penalty_per_sample(values, model));
  const TensorList g = grad({total}, params, {}, {.allow_unused = true});
  for (std::size_t i = 0; i < params.size(); ++i) Tensor(params[i]).set_grad(g[i]);
  return loss.item();
}

/// Mean and standard deviation over seeds.
struct Spread {
  std::vector<double> values;
  std::string text(double scale, int digits) const {
    double mean = 0, var = 0;
    for (const double v : values) mean += v / static_cast<double>(values.size());
    for (const double v : values) var += (v - mean) * (v - mean);
    const double n = static_cast<double>(values.size());
    return values.size() < 2 ? fmt::format("{:.{}f}", scale * mean, digits)
                             : fmt::format("{:.{}f} ± {:.{}f}", scale * mean, digits,
                                           scale * std::sqrt(var / (n - 1)), digits);
  }
};

class Study {
 public:
  explicit Study(const Flags& f)
      : f_(f),
        all_(load_mnist_like(f.data, Split::train)),
        test_(load_mnist_like(f.data, Split::test)),
        dir_(f.out) {
    if (f.train + f.val >= all_.size())
      throw UsageError(fmt::format("--train and --val: together less than {}; got {} and {}",
                                   all_.size(), f.train, f.val));
    f_.model.image = all_.image_shape();
    f_.model.classes = all_.classes();
    Rng rng;
    fmt::print("{} with {} parameters on {} images, batches of {}\n", f_.model.kind,
               make_classifier(f_.model, rng)->parameter_count(), f.train, f.batch);
    std::filesystem::create_directories(dir_);
    log_.emplace(dir_ / "metrics.jsonl", JsonLogOptions{.fresh = true});
  }

  int penalties() {
    for (const std::string& name : kNames) {
      if (f_.penalty != "all" && f_.penalty != name) continue;
      for (int k = 0; k < f_.seeds && !interrupted(); ++k)
        train(name, f_.seed + static_cast<std::uint64_t>(k), k == 0);
    }
    draw();
    summary();
    return interrupted() ? kInterruptedExit : 0;
  }

  int sweep();

 private:
  void train(const std::string& name, std::uint64_t seed, bool first) {
    const Data data(f_, all_, test_, seed);
    Rng rng(seed);
    const auto model = make_classifier(f_.model, rng);
    Adam adam(ParamList(model->named_parameters()), {.lr = f_.lr});
    DataLoader loader(data.images, {.batch_size = f_.batch, .shuffle = true, .seed = seed});
    if (first && name == "none") difference_errors(*model, data);
    Progress bar(fmt::format("{}, seed {}", name, seed), f_.steps, "steps");
    const std::int64_t every = std::max<std::int64_t>(f_.steps / f_.records, 1);
    double seconds = 0;
    std::int64_t step = 0;
    record(name, seed, step, *model, data);
    while (step < f_.steps && !interrupted())
      for (const Batch& batch : loader) {
        const auto begin = Clock::now();
        const double loss = penalised_step(*model, batch, kKinds.at(name), f_);
        if (!std::isfinite(loss))
          throw ValueError(
              fmt::format("training: the loss is {} at step {}. Hint: a smaller --lr", loss, step));
        adam.step();
        seconds += seconds_since(begin);
        bar.update(++step, fmt::format("loss {:.4f}", loss));
        if (step % every == 0 || step == f_.steps) record(name, seed, step, *model, data);
        if (step >= f_.steps || interrupted()) break;
      }
    bar.finish();
    const Score train_score = evaluate(*model, data.train), test = evaluate(*model, data.test);
    const double ms = 1000 * seconds / static_cast<double>(std::max<std::int64_t>(step, 1));
    const Penalties p = measure_penalties(*model, data.train),
                    unseen = measure_penalties(*model, data.val);
    const Score val = evaluate(*model, data.val);
    log_->write({{"event", "run"},
                 {"penalty", name},
                 {"seed", seed},
                 {"train_accuracy", train_score.accuracy},
                 {"val_accuracy", val.accuracy},
                 {"test_accuracy", test.accuracy},
                 {"gap", train_score.accuracy - test.accuracy},
                 {"train_loss", train_score.loss},
                 {"test_loss", test.loss},
                 {"input_penalty", p.input},
                 {"param_penalty_batch", p.batch},
                 {"param_penalty_per_sample", p.sample},
                 {"val_input_penalty", unseen.input},
                 {"val_param_penalty_batch", unseen.batch},
                 {"val_param_penalty_per_sample", unseen.sample},
                 {"ms_per_step", ms}});
    auto& row = rows_[name];
    const std::vector<double> cells = {train_score.accuracy,
                                       val.accuracy,
                                       test.accuracy,
                                       train_score.accuracy - test.accuracy,
                                       test.loss - train_score.loss,
                                       p.input,
                                       unseen.input,
                                       p.sample,
                                       unseen.sample,
                                       ms};
    row.resize(cells.size());
    for (std::size_t i = 0; i < cells.size(); ++i) row[i].values.push_back(cells[i]);
    if (first) {
      save_model(dir_ / fmt::format("model-{}.safetensors", name), *model, name);
      if (model->mlp() != nullptr)
        fmt::print("\npenalty {}, seed {}, after {} steps:\n{}\n", name, seed, step,
                   probes_[name].back().table());
    }
  }

  /// Accuracy, penalties and the inequality now, into the log; of the first seed also for the
  /// charts.
  void record(const std::string& name,
              std::uint64_t seed,
              std::int64_t step,
              Classifier& model,
              const Data& data) {
    Probe p = probe(model, data.probe, f_.exact ? SpectralMethod::exact : SpectralMethod::power);
    p.step = static_cast<double>(step);
    p.train = evaluate(model, data.train);
    p.val = evaluate(model, data.val);
    JsonFields fields = {{"event", "record"}, {"penalty", name}, {"seed", seed}, {"step", step}};
    p.add_to(fields);
    log_->write(fields);
    if (!p.layers.empty() && !(p.worst.ratio <= 1 + (f_.exact ? 1e-9 : 1e-6)))
      throw ValueError(
          fmt::format("the inequality does not hold at step {} with penalty {}: left side {} times "
                      "the right side, {}",
                      step, name, p.worst.ratio, p.worst.where));
    if (seed == f_.seed) probes_[name].push_back(std::move(p));
  }

  /// How far gradients by differences are from the exact ones, at the start.
  void difference_errors(Classifier& model, const Data& data) {
    for (const DifferenceError& e : measure_differences(model, data.probe)) {
      fmt::print(
          "finite differences, step {:g}{}: relative error of the gradient {:.2e} (input), "
          "{:.2e} (parameters)\n",
          e.step, e.central ? ", central" : "", e.input, e.param);
      log_->write({{"event", "difference"},
                   {"step_size", e.step},
                   {"central", e.central},
                   {"input_error", e.input},
                   {"param_error", e.param}});
    }
  }

  void draw() const {
    Chart curves(fmt::format("{} with gradient penalties", f_.model.kind),
                 {.panel_width = 420, .panel_height = 340});
    Panel &accuracy = curves.panel("accuracy, validation", {"step", "%"}),
          &gap = curves.panel("training - validation", {"step", "%"}),
          &input = curves.panel("input penalty", {"step", "log10"}),
          &param = curves.panel("parameter penalty, per sample", {"step", "log10"});
    for (const auto& [name, list] : probes_) {
      const auto series = [&list = list](auto f) {
        std::vector<double> out;
        for (const Probe& p : list) out.push_back(f(p));
        return out;
      };
      const auto steps = series([](const Probe& p) { return p.step; });
      accuracy.line(name, steps, series([](const Probe& p) { return 100 * p.val.accuracy; }));
      gap.line(name, steps,
               series([](const Probe& p) { return 100 * (p.train.accuracy - p.val.accuracy); }));
      input.line(name, steps, series([](const Probe& p) { return std::log10(p.penalties.input); }));
      param.line(name, steps,
                 series([](const Probe& p) { return std::log10(p.penalties.sample); }));
      if (!list.empty() && !list[0].layers.empty())
        draw_layers(list, name, dir_ / fmt::format("inequality-{}.png", name));
    }
    curves.save(dir_ / "curves.png");
  }

  void summary() const {
    if (rows_.empty()) return;
    const std::vector<std::string> titles = {
        "train %",      "val %",      "test %",      "gap %",     "loss gap",
        "input, train", "input, val", "par., train", "par., val", "ms/step"};
    const double scales[] = {100, 100, 100, 100, 1, 1, 1, 1, 1, 1};
    const int digits[] = {2, 2, 2, 2, 3, 3, 3, 2, 2, 2};
    fmt::print("\n{:<11}", "penalty");
    for (const std::string& t : titles) fmt::print("{:>17}", t);
    for (const std::string& name : kNames)
      if (const auto row = rows_.find(name); row != rows_.end()) {
        fmt::print("\n{:<11}", name);
        for (std::size_t i = 0; i < titles.size(); ++i)
          fmt::print("{:>17}", row->second[i].text(scales[i], digits[i]));
      }
    fmt::print("\n\nMade in {}: metrics.jsonl, curves.png, model-*.safetensors{}\n", dir_.string(),
               f_.model.kind == "mlp" ? ", inequality-*.png" : "");
  }

  Flags f_;
  ImageSet all_, test_;
  std::filesystem::path dir_;
  std::optional<JsonLog> log_;
  std::map<std::string, std::vector<Spread>> rows_;
  std::map<std::string, std::vector<Probe>> probes_;
};

/// Plain SGD at several rates to the same training loss: what ‖∇L‖² is there?
int Study::sweep() {
  Chart chart("SGD as an implicit penalty: at the same training loss");
  std::vector<double> xs, ys, tests;
  fmt::print("{:>8}{:>15}{:>17}{:>19}{:>20}{:>17}\n", "lr", "steps", "training loss", "|grad L|^2",
             "per-sample penalty", "test %");
  for (const double lr : parse_rates(f_.rates)) {
    std::vector<Spread> row(5);
    for (int k = 0; k < f_.seeds && !interrupted(); ++k) {
      const std::uint64_t seed = f_.seed + static_cast<std::uint64_t>(k);
      const Data data(f_, all_, test_, seed);
      Rng rng(seed);
      const auto model = make_classifier(f_.model, rng);
      SGD sgd(ParamList(model->named_parameters()), {.lr = lr});
      DataLoader loader(data.images, {.batch_size = f_.batch, .shuffle = true, .seed = seed});
      Progress bar(fmt::format("lr {:g}, seed {}", lr, seed), 0, "steps");
      std::int64_t steps = 0;
      Score at = evaluate(*model, data.train);
      while (at.loss > f_.target && steps < 100 * f_.steps && !interrupted()) {
        for (const Batch& batch : loader) {
          penalised_step(*model, batch, kKinds.at("none"), f_);
          sgd.step();
          bar.update(++steps, fmt::format("loss {:.4f}", at.loss));
        }
        at = evaluate(*model, data.train);
        if (!std::isfinite(at.loss)) break;
      }
      bar.finish();
      const Penalties p = measure_penalties(*model, data.train);
      const double test = evaluate(*model, data.test).accuracy;
      log_->write({{"event", "sweep"},
                   {"lr", lr},
                   {"seed", seed},
                   {"steps", steps},
                   {"train_loss", at.loss},
                   {"param_penalty_batch", p.batch},
                   {"param_penalty_per_sample", p.sample},
                   {"test_accuracy", test}});
      const double cells[] = {static_cast<double>(steps), at.loss, p.batch, p.sample, 100 * test};
      for (std::size_t i = 0; i < row.size(); ++i) row[i].values.push_back(cells[i]);
      xs.push_back(std::log10(lr));
      ys.push_back(std::log10(p.batch));
      tests.push_back(100 * test);
    }
    if (interrupted()) return kInterruptedExit;
    fmt::print("{:>8g}{:>15}{:>17}{:>19}{:>20}{:>17}\n", lr, row[0].text(1, 0), row[1].text(1, 3),
               row[2].text(1, 4), row[3].text(1, 2), row[4].text(1, 2));
  }
  chart.panel("squared gradient of the training loss", {"log10 of the learning rate", "log10"})
      .line("", xs, ys);
  chart.panel("test accuracy", {"log10 of the learning rate", "%"}).line("", xs, tests);
  chart.save(dir_ / "lr-sweep.png");
  fmt::print("\nMade in {}: metrics.jsonl, lr-sweep.png\n", dir_.string());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  Args args("gradient_penalty",
            "Trains with penalties of the input and parameter gradients, and measures them.");
  args.section("Data")
      .choice("--data", f.data, {"fashion-mnist", "mnist"}, "data set")
      .add("--train N", f.train, "training images, drawn by the seed", {.min = 1})
      .add("--val N", f.val, "validation images, for choices", {.min = 1})
      .add("--test N", f.test, "test images", {.min = 1})
      .add("--probe N", f.probe, "training images on which penalties are measured", {.min = 1});
  args.section("Network")
      .choice("--model", f.model.kind, {"mlp", "cnn", "capsnet"},
              "capsnet and cnn: penalties only, the inequality is about mlps")
      .add("--hidden LIST", f.hidden, "widths of an mlp: 64,64",
           [](const std::string& text) { parse_widths(text); })
      .choice("--activation", f.model.activation, {"tanh", "softplus", "relu", "sigmoid"},
              "of an mlp");
  args.section("Penalties")
      .choice("--penalty", f.penalty, {"all", "none", "input", "parameter", "both"},
              "all: one run with each of the others")
      .add("--input-weight X", f.input_weight, "weight of the input penalty", {.min = 0})
      .add("--param-weight X", f.param_weight, "weight of the parameter penalty", {.min = 0})
      .choice("--param-form", f.param_form, {"batch", "sample"},
              "gradient of the batch mean, or of every sample")
      .choice("--form", f.form, {"exact", "difference"},
              "gradients of penalties: double backward, or finite differences")
      .add("--step-size X", f.step_size, "of the differences", {.above = 0});
  args.section("Training")
      .add("--steps N", f.steps, "steps of Adam", {.min = 1})
      .add("--batch N", f.batch, "images per step", {.min = 1})
      .add("--lr X", f.lr, "learning rate", {.above = 0})
      .add("--seed N", f.seed, "of the first run: weights, images, order")
      .add("--seeds N", f.seeds, "runs of each kind", {.min = 1, .max = 1000})
      .add("--records N", f.records, "measurements along a run", {.min = 1, .max = 10000})
      .add("--exact", f.exact, "spectral norms exactly, in place of by converged power iteration")
      .add("--lr-sweep", f.lr_sweep, "plain SGD at several rates instead")
      .add("--rates LIST", f.rates, "of the sweep",
           [](const std::string& text) { parse_rates(text); })
      .add("--target X", f.target, "training loss at which the sweep compares", {.above = 0})
      .add("--out DIR", f.out, "folder for log, weights and pictures");
  args.example("gradient_penalty --seeds 5")
      .example("gradient_penalty --model capsnet --steps 300 --batch 25")
      .example("gradient_penalty --lr-sweep --seeds 5");
  return run_main(args, argc, argv, [&] {
    catch_interrupts();
    f.model.hidden = parse_widths(f.hidden);
    Study study(f);
    return f.lr_sweep ? study.sweep() : study.penalties();
  });
}
