// Training with penalties of gradients.

#include <chrono>
#include <cmath>
#include <map>

#include <fmt/format.h>

#include <capsfw/capsfw.hpp>

#include "common/chart.hpp"
#include "common/classifier_io.hpp"
#include "common/classifier_loss.hpp"
#include "common/text.hpp"
#include "common/train_main.hpp"
#include "study.hpp"

namespace capsfw::apps {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

const std::map<std::string, Kind> kKinds = {{"none", {false, false}},
                                            {"input", {true, false}},
                                            {"parameter", {false, true}},
                                            {"both", {true, true}}};
const std::vector<std::string> kNames = {"none", "input", "parameter", "both"};
const std::vector<std::string> kColumns = {"penalty",     "train %",   "val %",        "test %",
                                           "gap %",       "loss gap",  "input, train", "input, val",
                                           "par., train", "par., val", "ms/step"};

class Runs {
 public:
  explicit Runs(Study& study) : study_(study), f_(study.flags) {}

  int run() {
    for (const std::string& name : kNames) {
      if (f_.penalty != "all" && f_.penalty != name) continue;
      for (int k = 0; k < f_.seeds && !interrupted(); ++k)
        train(name, f_.seed + static_cast<std::uint64_t>(k), k == 0);
    }
    if (study_.folder().takes()) return 0;
    if (!table().empty()) {  // else it was interrupted in the first run: there is nothing to show
      draw();
      summary();
    }
    study_.report().finish();
    return end_of_run(study_.dir());
  }

 private:
  void train(const std::string& name, std::uint64_t seed, bool first) {
    const std::string part = fmt::format("{}-{}", name, seed);
    auto& row = rows_[name];
    if (!study_.folder().take(part)) return;
    if (const auto known = study_.folder().results(part)) {
      study_.report().load(*known, "report");
      if (first) probes_[name].load(*known, "probes");
      add(row, known->at("row").to_vector<double>());
      return;
    }
    const Data data = study_.draw(seed);
    Rng rng(seed);
    const auto net = study_.make_network(rng);
    Adam adam(ParamList(net->named_parameters()), {.lr = f_.lr});
    DataLoader loader(data.images, {.batch_size = f_.batch, .shuffle = true, .seed = seed});
    const auto pass = [&](std::int64_t samples) {
      const Batch batch{data.images.images(0, samples),
                        narrow(data.images.labels(), 0, 0, samples)};
      penalised_step(*net, batch, kKinds.at(name), f_);
      return Tensor();
    };
    if (first)
      show_memory(fmt::format("penalty {}: ", name),
                  estimate_memory(
                      *net, adam,
                      f_.safety.largest_shard(std::min<std::int64_t>(f_.batch, f_.train)), pass));
    RunOptions options{.steps = f_.steps, .part = part, .quiet = true};
    options.tags = {{"penalty", name}, {"seed", seed}};
    f_.safety.put(options);
    ProbeList own;
    ProbeList& probes = first ? probes_[name] : own;
    Run run(*net, adam, loader, study_.folder(), options);
    run.keep("probes", probes);
    Progress bar(fmt::format("{}, seed {}", name, seed), f_.steps, "steps");
    const std::int64_t every = std::max<std::int64_t>(f_.steps / f_.records, 1);
    double seconds = 0;
    std::int64_t here = 0;  // steps of this process
    while (run.next_epoch()) {
      if (run.steps() == 0 && probes.list.empty()) {
        if (first && name == "none") difference_errors(*net, data);
        record(name, seed, 0, *net, data, probes);
      }
      for (const Batch& batch : run.batches(loader)) {
        const auto begin = Clock::now();
        double loss = NAN;
        bool taken = false;
        run.attempt([&] {
          loss = penalised_step(*net, batch, kKinds.at(name), f_);
          taken = run.update(loss, batch.size());
        });
        seconds += seconds_since(begin);
        ++here;
        const std::int64_t step = run.steps();
        bar.update(step, fmt::format("loss {:.4f}", loss));
        if (taken && (step % every == 0 || step == f_.steps))
          record(name, seed, step, *net, data, probes);
      }
      run.end_epoch();
    }
    run.finish();
    bar.finish();
    if (interrupted()) return;
    Ranks* const ranks = study_.folder().ranks();
    const Score train_score = evaluate(*net, data.train, ranks),
                test = evaluate(*net, data.test, ranks);
    const double ms = 1000 * seconds / static_cast<double>(std::max<std::int64_t>(here, 1));
    const Penalties p = measure_penalties(*net, data.train, ranks),
                    unseen = measure_penalties(*net, data.val, ranks);
    const Score val = evaluate(*net, data.val, ranks);
    study_.write({{"event", "run"},
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
    add(row, cells);
    if (first) {
      const ImageSet tested = some_images(f_, study_.test, f_.test, f_.seed);
      Answers answers(tested);
      answers.of(
          *net,
          [&](const ClassifierOutput& out, const Batch& batch) {
            return mean(sample_losses(*net, out, batch.labels));
          },
          fmt::format("{}, answers", name), ranks);
      answers.add_to(study_.report(), "Test images, first seed", name);
      save_classifier(study_.dir() / fmt::format("model-{}.safetensors", name), *net,
                      study_.all.class_names(), name);
      if (f_.model == "mlp")
        fmt::print("\npenalty {}, seed {}, after {} steps:\n{}\n", name, seed, f_.steps,
                   probes_[name].list.back().table());
    }
    StateDict results;
    results.set("row", from_vector(cells));
    if (first) probes_[name].save(results, "probes");
    study_.report().save(results, "report");
    study_.folder().finish(part, results);
  }

  void add(std::vector<std::vector<double>>& row, const std::vector<double>& cells) {
    row.resize(cells.size());
    for (std::size_t i = 0; i < cells.size(); ++i) row[i].push_back(cells[i]);
    study_.report().table(
        {"Result", "After the last step. The gap is between training and test set."}, kColumns,
        table());
  }

  /// Accuracy, penalties and the inequality now, into the log and to those before.
  void record(const std::string& name,
              std::uint64_t seed,
              std::int64_t step,
              ImageClassifier& net,
              const Data& data,
              ProbeList& probes) {
    Ranks* const ranks = study_.folder().ranks();
    Probe p =
        probe(net, data.probe, f_.exact ? SpectralMethod::exact : SpectralMethod::power, ranks);
    p.step = static_cast<double>(step);
    p.train = evaluate(net, data.train, ranks);
    p.val = evaluate(net, data.val, ranks);
    JsonFields fields = {{"event", "record"}, {"penalty", name}, {"seed", seed}, {"step", step}};
    p.add_to(fields);
    study_.write(fields);
    study_.report().write();
    if (!p.layers.empty() && !(p.worst.ratio <= 1 + (f_.exact ? 1e-9 : 1e-6)))
      throw ValueError(
          fmt::format("the inequality does not hold at step {} with penalty {}: left side {} times "
                      "the right side, {}",
                      step, name, p.worst.ratio, p.worst.where));
    probes.list.push_back(std::move(p));
  }

  /// How far gradients by differences are from the exact ones, at the start.
  void difference_errors(ImageClassifier& net, const Data& data) {
    for (const DifferenceError& e : measure_differences(net, data.probe)) {
      fmt::print(
          "finite differences, step {:g}{}: relative error of the gradient {:.2e} (input), "
          "{:.2e} (parameters)\n",
          e.step, e.central ? ", central" : "", e.input, e.param);
      study_.write({{"event", "difference"},
                    {"step_size", e.step},
                    {"central", e.central},
                    {"input_error", e.input},
                    {"param_error", e.param}});
    }
  }

  void draw() const {
    Chart curves(fmt::format("{} with gradient penalties", f_.model),
                 {.panel_width = 420, .panel_height = 340});
    Panel &accuracy = curves.panel("accuracy, validation", {"step", "%"}),
          &gap = curves.panel("training - validation", {"step", "%"}),
          &input = curves.panel("input penalty", {"step", "log10"}),
          &param = curves.panel("parameter penalty, per sample", {"step", "log10"});
    for (const auto& [name, probes] : probes_) {
      const std::vector<Probe>& list = probes.list;
      const auto series = [&list](auto f) {
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
        draw_layers(list, name, study_.dir() / fmt::format("inequality-{}.png", name));
    }
    curves.save(study_.dir() / "curves.png");
  }

  /// A row for each penalty, as kColumns says.
  std::vector<std::vector<std::string>> table() const {
    const double scales[] = {100, 100, 100, 100, 1, 1, 1, 1, 1, 1};
    const int digits[] = {2, 2, 2, 2, 3, 3, 3, 2, 2, 2};
    std::vector<std::vector<std::string>> out;
    for (const std::string& name : kNames)
      if (const auto row = rows_.find(name); row != rows_.end() && !row->second.empty()) {
        out.push_back({name});
        for (std::size_t i = 0; i < row->second.size(); ++i)
          out.back().push_back(spread_text(row->second[i], scales[i], digits[i]));
      }
    return out;
  }

  void summary() const {
    std::vector<std::vector<std::string>> lines = table();
    lines.insert(lines.begin(), kColumns);
    for (const auto& line : lines) {
      fmt::print("\n{:<11}", line[0]);
      for (std::size_t i = 1; i < line.size(); ++i) fmt::print("{:>17}", line[i]);
    }
    fmt::print("\n\nMade in {}: report.html, metrics.jsonl, curves.png, model-*.safetensors{}\n",
               study_.dir().string(), f_.model == "mlp" ? ", inequality-*.png" : "");
  }

  Study& study_;
  const Flags& f_;
  std::map<std::string, std::vector<std::vector<double>>> rows_;  ///< values over the seeds
  std::map<std::string, ProbeList> probes_;
};

}  // namespace

int train_with_penalties(Study& study) { return Runs(study).run(); }

}  // namespace capsfw::apps
