#include "common/train_program.hpp"

#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/data/checkpoint.hpp>
#include <capsfw/data/image.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/memory.hpp>

#include "common/classifier_io.hpp"
#include "common/grid.hpp"
#include "common/text.hpp"
#include "common/train_main.hpp"

namespace capsfw::apps {
namespace {

/// Inputs above their reconstructions from the longest capsule.
void draw_reconstructions(ImageClassifier& net,
                          const ImageSet& set,
                          const std::filesystem::path& path) {
  const NoGradGuard no_grad;
  constexpr std::int64_t kColumns = 10;
  const std::int64_t rows = std::min<std::int64_t>(3, set.size() / kColumns);
  if (!net.has_decoder() || rows == 0) return;
  net.eval();
  const Tensor x = set.images(0, rows * kColumns);
  const ClassifierOutput out = net(x);
  const auto predicted = argmax(out.lengths, 1).to_vector<std::int64_t>();
  TensorList lines;
  GridOptions grid{.columns = kColumns,
                   .scale = 3,
                   .title = "input above its reconstruction from the longest capsule",
                   .group = 2};
  for (std::int64_t r = 0; r < rows; ++r) {
    lines.push_back(narrow(x, 0, r * kColumns, kColumns));
    lines.push_back(narrow(out.reconstruction, 0, r * kColumns, kColumns));
    grid.rows.insert(grid.rows.end(), {"input", "capsule"});
    for (std::int64_t i = 0; i < kColumns; ++i)
      grid.captions.push_back(
          set.class_names()[static_cast<std::size_t>(set.label(r * kColumns + i))]);
    for (std::int64_t i = 0; i < kColumns; ++i)
      grid.captions.push_back(set.class_names()[static_cast<std::size_t>(
          predicted[static_cast<std::size_t>(r * kColumns + i)])]);
  }
  save_png(path, labelled_grid(drawable(cat(lines)), grid));
}

/// The accuracy; nothing if it was interrupted. No pictures without a title.
std::optional<double> test_once(ImageClassifier& net,
                                const ImageSet& test,
                                const TrainFlags& flags,
                                const TrainTask& task,
                                const TrainResult& result,
                                const std::string& title,
                                RunFolder& folder,
                                Report& report) {
  const std::filesystem::path dir = flags.out;
  Answers answers(test);
  const Score score = answers.of(net, task.loss, task.label + "test", flags.safety.ranks);
  const int iterations = net.routing_iterations(), none = net.uniform_iterations();
  std::optional<Score> uniform;
  if (none >= 0) {
    net.set_routing_iterations(none);
    uniform =
        evaluate(net, test, task.loss, task.label + "test, uniform couplings", flags.safety.ranks);
    net.set_routing_iterations(iterations);
  }
  if (interrupted()) return std::nullopt;
  JsonFields line{{"event", "test"}};
  line.insert(line.end(), task.tags.begin(), task.tags.end());
  const JsonFields rest{{"step", result.steps},
                        {"best_epoch", result.best_epoch},
                        {"val_accuracy", result.val_accuracy},
                        {"routing_iterations", iterations},
                        {"test_loss", score.loss},
                        {"test_accuracy_uniform_couplings", uniform ? uniform->accuracy : NAN},
                        {"train_seconds", result.seconds},
                        {"peak_memory_mb", peak_memory_mb()},
                        {"test_accuracy", score.accuracy}};
  line.insert(line.end(), rest.begin(), rest.end());
  folder.write(line);
  fmt::print(
      "\n{}test accuracy {:.2f} %{}{} ({})\n", task.label, 100 * score.accuracy,
      iterations > 0
          ? fmt::format(" with {} routing iteration{}", iterations, iterations == 1 ? "" : "s")
          : "",
      uniform ? fmt::format(", {:.2f} % with uniform couplings", 100 * uniform->accuracy) : "",
      result.text());
  if (title.empty()) return score.accuracy;
  answers.add_to(report,
                 flags.seeds > 1 ? fmt::format("Test set, seed {}", flags.seed) : "Test set");
  add_reconstructions(report, net, test);
  report.headline("test accuracy", percent({score.accuracy}));
  draw_reconstructions(net, test, dir / "reconstructions.png");
  result.history.draw(title, dir / "curves.png");
  fmt::print(
      "\nMade in {}:\n  report.html          all of it on one page, for a browser\n  "
      "metrics.jsonl        the run, a JSON object per line\n  "
      "model.safetensors    the weights; try: predict --model {} IMAGE.png\n"
      "  curves.png           loss and accuracy\n",
      dir.string(), (dir / "model.safetensors").string());
  if (net.has_decoder())
    fmt::print("  reconstructions.png  test images beside what their capsule remembers\n");
  return score.accuracy;
}

/// Whether a run of one seed goes on, whose checkpoints have no folder of their own.
bool began_with_one_seed(const RunFolder& folder) {
  char yes =
      folder.resumed() && !CheckpointFolder(folder.path() / "checkpoints").files().empty() ? 1 : 0;
  if (Ranks* ranks = folder.ranks()) ranks->broadcast(&yes, 1);  // rank 0 has them
  return yes != 0;
}

}  // namespace

int train_program(const MakeNet& make,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const MakeTask& task_of,
                  const Args& args,
                  const std::string& title) {
  const ImageSet test = load_test(flags, parts.train);
  if (flags.safety.takers != nullptr && flags.seeds == 1)
    throw ValueError(
        "--spread: there is one network only. Hint: --seeds trains several; without --spread all "
        "processes share each batch");
  std::unique_ptr<RunFolder> folder;
  std::optional<Report> report;
  std::vector<double> accuracies;
  for (int k = 0; k < flags.seeds; ++k) {
    TrainFlags f = flags;
    f.seed += static_cast<std::uint64_t>(k);
    Rng rng(f.seed);
    const auto net = make(rng);
    TrainTask task = task_of(*net);
    if (!f.load.empty()) net->load_state_dict(load_weights(f.load));
    if (!folder) {
      // Not before this: whatever fails above leaves an earlier run in this folder as it is.
      std::vector<std::string> may_grow;
      if (!f.rate_needs_length() && !task.before_step && f.seeds == 1)
        may_grow = {"--epochs", "--steps"};
      folder = f.safety.open(f.out, args, fingerprint(parts, test), may_grow);
      fmt::print("{}\n{} training images, {} validation images\n\n", net->summary(),
                 parts.train.size(), parts.validation.size());
      report.emplace(*folder, title, args);
      add_data(*report, parts, test);
      add_layers(*report, *net);
      report->write();
    }
    task.after_epoch = [&](const Run& run, const Answers& held_out) {
      if (k == 0) held_out.add_to(*report, fmt::format("Images held out, epoch {}", run.epoch()));
      if (k == 0 && run.best_epoch() > 0)
        report->headline(fmt::format("of the images held out, epoch {}", run.best_epoch()),
                         percent({run.best_score()}));
      report->write();
    };
    std::string file = "model.safetensors";
    task.tags = {{"seed", f.seed}};
    if (f.seeds > 1) {
      task.label = fmt::format("seed {}, ", f.seed);
      if (k > 0) file = fmt::format("model-{}.safetensors", f.seed);
      const std::string part = fmt::format("seed-{}", f.seed);
      if (!folder->take(part)) continue;
      if (k > 0 || !began_with_one_seed(*folder)) task.part = part;
      if (const auto known = folder->results(task.part)) {
        accuracies.push_back(known->at("test_accuracy").item());
        report->load(*known, "report");
        continue;
      }
    }
    const TrainResult result = train(*net, parts, f, task, *folder);
    const std::filesystem::path model = folder->path() / file;
    save_classifier(model, *net, parts.train);
    std::optional<double> accuracy;
    if (!interrupted())
      accuracy = test_once(*net, test, f, task, result, k == 0 ? title : "", *folder, *report);
    if (!accuracy || f.seeds == 1) report->finish();
    if (!accuracy) {
      fmt::print("Interrupted: the weights so far are in {}; {}\n", model.string(),
                 way_on(folder->path()));
      return kInterruptedExit;
    }
    accuracies.push_back(*accuracy);
    if (f.seeds == 1) return 0;  // its last checkpoint stays, for more epochs
    StateDict results;
    results.set("test_accuracy", from_vector<double>({*accuracy}));
    report->save(results, "report");
    folder->finish(task.part, results);
  }
  if (folder->takes()) return 0;
  const Spread spread = spread_of(accuracies);
  folder->write({{"event", "result"},
                 {"seeds", flags.seeds},
                 {"test_accuracy", spread.mean},
                 {"test_accuracy_std", spread.deviation}});
  report->headline(fmt::format("test accuracy of {} seeds", flags.seeds), percent(accuracies));
  report->finish();
  fmt::print("\ntest accuracy of {} seeds: {}\n", accuracies.size(), percent(accuracies));
  return 0;
}

}  // namespace capsfw::apps
