// Trains on single digits and tests on two at once: do class capsules find both? The experiment of
// Su 2018, From K-Means to Capsule, with its three networks.

#include <cmath>
#include <filesystem>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/chart.hpp"
#include "common/classifier_io.hpp"
#include "common/digit_pairs.hpp"
#include "common/grid.hpp"
#include "common/text.hpp"
#include "common/train_loop.hpp"
#include "common/train_main.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  TrainFlags train;
  std::string networks = "kmeans,dynamic,cnn", orientation = "vertical";
  int seeds = 1;
};

const std::vector<std::string> kNetworks = {"kmeans", "dynamic", "cnn"};

/// Both routings make three weighted sums: the first one of K-means is its starting point.
std::unique_ptr<ImageClassifier> make_net(const std::string& name, const ImageSet& set, Rng& rng) {
  const Shape& image = set.image_shape();
  if (name == "cnn")
    return std::make_unique<ConvNet>(ConvNetOptions::two_digits(image, set.classes()), rng);
  const RoutingSpec routing =
      name == "kmeans" ? "kmeans:iterations=2,squash_c=0.5" : "dynamic:iterations=3,squash_c=0.5";
  return std::make_unique<CapsNet>(CapsNetOptions::two_digits(routing, image, set.classes()), rng);
}

/// One network after its training.
struct Outcome {
  std::string network;
  std::uint64_t seed = 0;
  std::int64_t parameters = 0;
  int epoch = 0;
  double validation = 0, exact = 0, confident = 0, single = 0, seconds = 0;

  /// What is measured, as a list: what a program that goes on needs of a finished network.
  std::vector<double> numbers() const {
    return {static_cast<double>(parameters),
            static_cast<double>(epoch),
            validation,
            exact,
            confident,
            single,
            seconds};
  }
  void set_numbers(const std::vector<double>& v) {
    parameters = static_cast<std::int64_t>(v.at(0));
    epoch = static_cast<int>(v.at(1));
    validation = v.at(2);
    exact = v.at(3);
    confident = v.at(4);
    single = v.at(5);
    seconds = v.at(6);
  }
};

using Rows = std::vector<std::vector<std::string>>;

const std::vector<std::string> kHead = {"network",         "parameters",    "seeds",        "pairs",
                                        "pairs, both > ½", "single digits", "seconds a run"};
std::string about(const std::string& orientation) {
  return fmt::format(
      "Trained on single digits, tested on pairs ({}): share of pairs of which the two largest "
      "scores are the two digits; the same with both scores above ½; accuracy on single digits.",
      orientation);
}

/// A row for each network, as kHead says.
Rows table_of(const std::vector<Outcome>& outcomes) {
  Rows rows;
  for (const std::string& network : kNetworks) {
    std::vector<double> exact, confident, single;
    double seconds = 0;
    std::int64_t parameters = 0;
    for (const Outcome& o : outcomes) {
      if (o.network != network) continue;
      exact.push_back(o.exact);
      confident.push_back(o.confident);
      single.push_back(o.single);
      seconds += o.seconds;
      parameters = o.parameters;
    }
    if (exact.empty()) continue;
    rows.push_back({network, fmt::to_string(parameters), fmt::to_string(exact.size()),
                    percent(exact), percent(confident), percent(single),
                    fmt::format("{:.0f}", seconds / static_cast<double>(exact.size()))});
  }
  return rows;
}

std::string markdown(const Rows& rows, const std::string& orientation) {
  std::string text =
      fmt::format("{}\n\n| {} |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
                  about(orientation), fmt::join(kHead, " | "));
  for (const auto& row : rows) text += fmt::format("| {} |\n", fmt::join(row, " | "));
  return text;
}

void draw_pairs(ImageClassifier& net,
                const DigitPairs& pairs,
                const std::vector<std::string>& names,
                const std::filesystem::path& path,
                Report& report,
                const std::string& network) {
  constexpr std::int64_t kColumns = 10;
  const std::int64_t n = std::min<std::int64_t>(2 * kColumns, pairs.size());
  if (n == 0) return;
  const NoGradGuard no_grad;
  net.eval();
  const Tensor x = pairs.images(0, n);
  const auto order = argsort(net(x).lengths, 1, true).to_vector<std::int64_t>();
  GridOptions grid{.columns = kColumns,
                   .scale = 2,
                   .title = "test pairs with the two largest scores, the larger one first"};
  std::vector<Picture> items;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = [&](std::int64_t k) {
      return names[static_cast<std::size_t>(
          order[static_cast<std::size_t>(i * static_cast<std::int64_t>(names.size()) + k)])];
    };
    grid.captions.push_back(at(0) + " " + at(1));
    items.push_back({{select(x, 0, i)}, {grid.captions.back()}});
  }
  save_png(path, labelled_grid(drawable(x), grid));
  report.pictures({"Test pairs", "With the two largest scores, the larger one first.", network},
                  items);
}

class Experiment {
 public:
  Experiment(const Flags& flags, const Args& args)
      : flags_(flags),
        parts_(load_training(flags.train)),
        test_(load_test(flags.train, parts_.train)),
        horizontal_(flags.orientation == "horizontal"),
        held_out_pairs_(parts_.validation, horizontal_, 1),
        test_pairs_(test_, horizontal_, 1) {
    if (held_out_pairs_.size() == 0)
      throw ValueError("--val: no pair of different classes among the images held out");
    if (test_pairs_.size() == 0)
      throw ValueError("--data: no pair of different classes among the test images");
    folder_ = flags.train.safety.open(flags.train.out, args, fingerprint(parts_, test_));
    report_.emplace(*folder_,
                    fmt::format("single digits, and two at once: {}", flags.train.title()), args);
    add_data(*report_, parts_, test_);
    report_->fact("validation accuracy", "share of the pairs held out whose two digits are found");
    report_->write();
  }

  int run() {
    const std::vector<std::string> networks = split_list(flags_.networks, kNetworks);
    fmt::print("{} training images, {} pairs held out, {} test pairs\n\n", parts_.train.size(),
               held_out_pairs_.size(), test_pairs_.size());
    for (int k = 0; k < flags_.seeds && !interrupted(); ++k)
      for (const std::string& network : networks)
        if (!interrupted()) run_one(network, flags_.train.seed + static_cast<std::uint64_t>(k));
    if (folder_->takes()) return 0;
    if (!outcomes_.empty()) finish();
    report_->finish();
    return end_of_run(folder_->path());
  }

 private:
  void run_one(const std::string& network, std::uint64_t seed) {
    const std::string part = fmt::format("{}-{}", network, seed);
    if (!folder_->take(part)) return;
    if (const auto known = folder_->results(part)) {
      Outcome o{.network = network, .seed = seed};
      o.set_numbers(known->at("outcome").to_vector<double>());
      History history;
      history.load(*known, "history");
      report_->load(*known, "report");
      return add(o, history);
    }
    TrainFlags flags = flags_.train;
    flags.seed = seed;
    Rng rng(seed);
    const auto net = make_net(network, parts_.train, rng);
    if (outcomes_.empty() || outcomes_.back().seed == flags_.train.seed)
      fmt::print("{}\n{}\n", network, net->summary());
    const bool first = seed == flags_.train.seed;
    if (first) add_layers(*report_, *net, network);
    const std::string label = fmt::format("{}, seed {}: ", network, seed);
    const std::int64_t classes = parts_.train.classes();
    TrainTask task;
    task.part = part;
    task.label = label;
    task.tags = {{"network", network}, {"seed", seed}};
    task.loss = [classes](const ClassifierOutput& out, const Batch& batch) {
      return margin_loss(out.lengths, one_hot(batch.labels, classes), {.lambda = 0.25});
    };
    task.validate = [&] {
      return Score{
          NAN,
          score_pairs(*net, held_out_pairs_, label + "pairs held out", flags.safety.ranks).exact};
    };
    task.after_epoch = [&](const Run&, const Answers&) { report_->write(); };
    const TrainResult result = train(*net, parts_, flags, task, *folder_);
    save_classifier(folder_->path() / (part + ".safetensors"), *net, parts_.train);
    if (interrupted()) return;
    const TwoDigitAccuracy pairs =
        score_pairs(*net, test_pairs_, label + "test pairs", flags.safety.ranks);
    Answers answers(test_);
    const Score single = answers.of(*net, task.loss, label + "test", flags.safety.ranks);
    if (interrupted()) return;
    const Outcome o{network,
                    seed,
                    net->parameter_count(),
                    result.best_epoch,
                    result.val_accuracy,
                    pairs.exact,
                    pairs.confident,
                    single.accuracy,
                    result.seconds};
    folder_->write({{"event", "result"},
                    {"network", network},
                    {"seed", seed},
                    {"orientation", flags_.orientation},
                    {"parameters", net->parameter_count()},
                    {"best_epoch", result.best_epoch},
                    {"val_exact", result.val_accuracy},
                    {"test_exact", pairs.exact},
                    {"test_confident", pairs.confident},
                    {"test_single", single.accuracy},
                    {"train_seconds", result.seconds},
                    {"peak_memory_mb", peak_memory_mb()}});
    fmt::print("{}{:.2f} % of the test pairs, {:.2f} % of the single digits (epoch {}, {:.0f} s)\n",
               label, 100 * pairs.exact, 100 * single.accuracy, result.best_epoch, result.seconds);
    if (first) {
      draw_pairs(*net, test_pairs_, parts_.train.class_names(),
                 folder_->path() / (network + ".png"), *report_, network);
      answers.add_to(*report_, "Single test digits", network);
    }
    add(o, result.history);
    StateDict results;
    results.set("outcome", from_vector(o.numbers()));
    result.history.save(results, "history");
    report_->save(results, "report");
    folder_->finish(part, results);
  }

  void add(const Outcome& o, const History& history) {
    outcomes_.push_back(o);
    if (o.seed == flags_.train.seed) curves_.emplace_back(o.network, history);
    report_->table({"Result", about(flags_.orientation)}, kHead, table_of(outcomes_));
  }

  void finish() {
    const std::string table = markdown(table_of(outcomes_), flags_.orientation);
    save_text(folder_->path() / "table.md", table);
    Chart chart("from single digits to pairs");
    Panel& loss = chart.panel("training", {"epoch", "margin loss"});
    Panel& pairs = chart.panel("pairs held out", {"epoch", "% exact"});
    for (const auto& [network, history] : curves_) {
      loss.line(network, history.step, history.loss);
      pairs.line(network, history.epoch, history.val_accuracy);
    }
    chart.save(folder_->path() / "curves.png");
    fmt::print(
        "\n{}\nMade in {}:\n  report.html      all of it on one page, for a browser\n  table.md    "
        "     this table\n  metrics.jsonl    the runs, a JSON "
        "object per line\n  curves.png       loss and pairs, first seed\n  NETWORK.png      "
        "test pairs with what the network says\n  NETWORK-SEED.safetensors\n",
        table, folder_->path().string());
  }

  const Flags& flags_;
  HeldOut parts_;
  ImageSet test_;
  bool horizontal_;
  DigitPairs held_out_pairs_, test_pairs_;
  std::unique_ptr<RunFolder> folder_;
  std::optional<Report> report_;
  std::vector<Outcome> outcomes_;
  std::vector<std::pair<std::string, History>> curves_;
};

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  f.train.data = "mnist";
  f.train.batch = 128;
  f.train.shift = 0;
  f.train.schedule = "constant";
  f.train.out = "out/two_digits";
  Args args("two_digits",
            "Trains three networks on single digits, tests them on two digits, one above the other "
            "or side by side.");
  f.train.add_data(args);
  args.choice("--orientation", f.orientation, {"vertical", "horizontal"},
              "the second digit below or beside the first")
      .section("Networks")
      .add("--networks LIST", f.networks,
           "of kmeans (normalised means), dynamic (agreement), cnn (no capsules)",
           [](const std::string& text) { split_list(text, kNetworks); })
      .add("--seeds N", f.seeds, "runs of each network, with seeds from --seed on", {.min = 1});
  f.train.add_training(args);
  args.example("two_digits --networks kmeans --epochs 3").example("two_digits --seeds 3");
  return train_main(args, argc, argv, f.train.safety, f.train.out, [&] {
    f.train.start(args);
    return Experiment(f, args).run();
  });
}
