// Trains one small capsule network after the other, which differ in the routing alone, under one
// budget, and puts them into a table with networks without capsules of the same size.

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/chart.hpp"
#include "common/text.hpp"
#include "common/train_loop.hpp"
#include "common/train_main.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  TrainFlags train;
  std::string routings = "dynamic,kmeans,uniform", iterations, votes = "full", squash_c, sharpness,
              baselines = "se,cnn", decoder = "none";
  int seeds = 1;
};

const std::vector<std::string> kVotes = {"full", "shared", "factorised", "matrix"};
const std::vector<std::string> kBaselines = {"none", "se", "cnn"};

const std::vector<std::string> kColumns = {"network",    "r",          "votes", "c",
                                           "K",          "parameters", "seeds", "test accuracy",
                                           "s an epoch", "peak MB"};

double mean_of(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x;
  return sum / static_cast<double>(v.size());
}

/// One row of the table: a capsule network, or a baseline by name.
struct Row {
  std::string baseline;
  RoutingSpec routing;
  std::string votes;
  std::string more = {};  // options that tell it from others of its name
  std::int64_t parameters = 0;
  std::vector<double> accuracy = {}, seconds = {}, megabytes = {};  // of each seed
  History history = {};                                             // of the first one

  std::string option(const char* name) const {
    return baseline.empty() && routing.has(name) ? routing.get(name) : "";
  }
  std::string network() const { return (baseline.empty() ? routing.name() : baseline) + more; }
  std::string label() const {
    if (!baseline.empty()) return baseline;
    std::string text = routing.name();
    if (routing.has("iterations")) text += " r=" + option("iterations");
    if (votes != "full") text += " " + votes;
    if (routing.has("squash_c") && option("squash_c") != "1") text += " c=" + option("squash_c");
    if (routing.has("sharpness")) text += " K=" + option("sharpness");
    return text + more;
  }
  /// The columns up to the seeds.
  std::vector<std::string> about() const {
    return {network(),
            option("iterations"),
            baseline.empty() ? votes : "",
            option("squash_c"),
            option("sharpness"),
            fmt::to_string(parameters),
            fmt::to_string(accuracy.size())};
  }
  /// All columns.
  std::vector<std::string> cells() const {
    std::vector<std::string> all = about();
    all.push_back(percent(accuracy));
    all.push_back(fmt::format("{:.1f}", mean_of(seconds)));
    all.push_back(fmt::format("{:.0f}", mean_of(megabytes)));
    return all;
  }
};

/// `specs` with every value of an option; those without such an option stay as they are. UsageError
/// if all of them do.
std::vector<RoutingSpec> crossed(const std::vector<RoutingSpec>& specs,
                                 const char* flag,
                                 const char* option,
                                 const std::string& values) {
  if (values.empty()) return specs;
  if (std::none_of(specs.begin(), specs.end(), [&](const auto& s) { return s.has(option); }))
    throw UsageError(fmt::format(
        "{}: of a routing with the option {}; none of --routings has it. Hint: route --list", flag,
        option));
  std::vector<RoutingSpec> out;
  for (const RoutingSpec& spec : specs) {
    if (!spec.has(option)) out.push_back(spec);
    if (spec.has(option))
      for (const std::string& value : split_list(values)) out.push_back(spec.with(option, value));
  }
  return out;
}

/// Gives rows of one label the options in which they differ. UsageError if there are none.
void tell_apart(std::vector<Row>& rows) {
  std::map<std::string, std::vector<Row*>> groups;
  for (Row& row : rows) groups[row.label()].push_back(&row);
  for (const auto& [label, group] : groups) {
    const Row* first = group[0];
    const std::string& options = first->routing.options();
    if (group.size() == 1) continue;
    std::set<std::string> labels;
    const auto fields = options.empty() ? std::vector<std::string>() : split_list(options);
    for (const std::string& field : fields) {
      const std::string name = field.substr(0, field.find('='));
      const auto differs = [&](const Row* row) {
        return row->routing.get(name) != first->routing.get(name);
      };
      if (std::none_of(group.begin(), group.end(), differs)) continue;
      for (Row* row : group) row->more += fmt::format(" {}={}", name, row->routing.get(name));
    }
    for (const Row* row : group) labels.insert(row->label());
    if (labels.size() < group.size())
      throw UsageError(fmt::format("{}: stands in the comparison more than once", label));
  }
}

std::vector<Row> rows_of(const Flags& f) {
  std::vector<RoutingSpec> specs;
  for (const std::string& name : split_list(f.routings)) specs.emplace_back(name);
  specs = crossed(specs, "--iterations", "iterations", f.iterations);
  specs = crossed(specs, "--squash-c", "squash_c", f.squash_c);
  specs = crossed(specs, "--sharpness", "sharpness", f.sharpness);
  std::vector<Row> rows;
  for (const std::string& votes : split_list(f.votes, kVotes))
    for (const RoutingSpec& spec : specs)
      rows.push_back({.baseline = "", .routing = spec, .votes = votes});
  for (const std::string& name : split_list(f.baselines, kBaselines))
    if (name != "none") rows.push_back({.baseline = name, .routing = {}, .votes = ""});
  tell_apart(rows);
  return rows;
}

CapsNetOptions capsnet(const Row& row, const ImageSet& set, bool decoder) {
  CapsNetOptions o = CapsNetOptions::compact(set.image_shape(), set.classes());
  if (!row.votes.empty()) o.dense.votes = vote_weights(row.votes);
  o.dense.routing = row.routing;
  // Poses are square matrices there, and a child has as many numbers as a parent.
  if (row.votes == "matrix") o.primary = {8, 16};
  if (!decoder) o.decoder = DecoderKind::none;
  return o;
}

std::unique_ptr<ImageClassifier> make_net(const Row& row,
                                          const ImageSet& set,
                                          bool decoder,
                                          Rng& rng) {
  const CapsNetOptions o = capsnet(row, set, decoder);
  if (row.baseline.empty()) return std::make_unique<CapsNet>(o, rng);
  return std::make_unique<ConvNet>(ConvNetOptions::beside(o, row.baseline == "se" ? 16 : 0), rng);
}

class Comparison {
 public:
  Comparison(const Flags& flags, std::vector<Row> rows, const Args& args)
      : flags_(flags),
        rows_(std::move(rows)),
        parts_(load_training(flags.train)),
        test_(load_test(flags.train, parts_.train)) {
    // Whatever does not fit is found now, and not after an hour.
    for (Row& row : rows_) {
      Rng rng(1);
      row.parameters = make_net(row, parts_.train, decoder(), rng)->parameter_count();
    }
    folder_ = flags.train.safety.open(flags.train.out, args, fingerprint(parts_, test_));
    report_.emplace(*folder_, fmt::format("routings on {}", flags.train.title()), args);
    add_data(*report_, parts_, test_);
    report_->write();
  }

  int run() {
    fmt::print("{} networks, {} seeds, {} training images\n\n", rows_.size(), flags_.seeds,
               parts_.train.size());
    for (int k = 0; k < flags_.seeds; ++k)
      for (Row& row : rows_)
        if (!interrupted()) run_one(row, flags_.train.seed + static_cast<std::uint64_t>(k));
    if (folder_->takes()) return 0;
    std::erase_if(rows_, [](const Row& row) { return row.accuracy.empty(); });
    if (!rows_.empty()) finish();
    report_->finish();
    return end_of_run(folder_->path());
  }

 private:
  bool decoder() const { return flags_.decoder == "conv"; }

  void run_one(Row& row, std::uint64_t seed) {
    const std::string part = fmt::format("{}-{}", &row - rows_.data() + 1, seed);
    if (!folder_->take(part)) return;
    if (const auto known = folder_->results(part)) {
      History history;
      history.load(*known, "history");
      report_->load(*known, "report");
      return add(row, seed, known->at("row").to_vector<double>(), std::move(history));
    }
    TrainFlags flags = flags_.train;
    flags.seed = seed;
    reset_peak_memory();
    const auto before = static_cast<double>(memory_stats().live);
    Rng rng(seed);
    const auto net = make_net(row, parts_.train, decoder(), rng);
    const std::int64_t classes = parts_.train.classes();
    TrainTask task;
    task.part = part;
    task.label = fmt::format("{}, seed {}: ", row.label(), seed);
    task.tags = {{"network", row.label()}, {"seed", seed}};
    task.loss = [classes](const ClassifierOutput& out, const Batch& batch) {
      return capsnet_loss(out, batch.images, one_hot(batch.labels, classes));
    };
    task.after_epoch = [&](const Run&, const Answers&) { report_->write(); };
    const bool first = seed == flags_.train.seed;
    if (first) add_layers(*report_, *net, row.label());
    TrainResult result = train(*net, parts_, flags, task, *folder_);
    const double megabytes = (static_cast<double>(memory_stats().peak) - before) / 1e6;
    if (interrupted()) return;
    Answers answers(test_);
    const Score score = answers.of(*net, task.loss, task.label + "test", flags.safety.ranks);
    if (interrupted()) return;
    if (first) answers.add_to(*report_, "Test set", row.label());
    fmt::print("{}test accuracy {:.2f} %\n", task.label, 100 * score.accuracy);
    folder_->write({{"event", "result"},
                    {"network", row.label()},
                    {"seed", seed},
                    {"routing", row.baseline.empty() ? row.routing.text() : ""},
                    {"votes", row.votes},
                    {"parameters", row.parameters},
                    {"best_epoch", result.best_epoch},
                    {"steps", result.steps},
                    {"test_accuracy", score.accuracy},
                    {"seconds_per_epoch", result.seconds_per_epoch},
                    {"peak_tensor_mb", megabytes}});
    const std::vector<double> numbers{score.accuracy, result.seconds_per_epoch, megabytes};
    StateDict results;
    results.set("row", from_vector(numbers));
    result.history.save(results, "history");
    add(row, seed, numbers, std::move(result.history));
    report_->save(results, "report");
    folder_->finish(part, results);
  }

  void add(Row& row, std::uint64_t seed, const std::vector<double>& numbers, History history) {
    row.accuracy.push_back(numbers.at(0));
    row.seconds.push_back(numbers.at(1));
    row.megabytes.push_back(numbers.at(2));
    if (seed == flags_.train.seed) row.history = std::move(history);
    std::vector<std::vector<std::string>> table;
    for (const Row& r : rows_)
      if (!r.accuracy.empty()) table.push_back(r.cells());
    report_->table({"Result", "Means over the seeds, with standard deviations."}, kColumns, table);
  }

  void finish() {
    std::string markdown = fmt::format(
        "| {} |\n| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        fmt::join(kColumns, " | "));
    std::string csv =
        "network,iterations,votes,squash_c,sharpness,parameters,seeds,test_accuracy,"
        "seconds_per_epoch,peak_tensor_mb\n";
    Chart chart(fmt::format("routings on {}", flags_.train.title()));
    Panel& curves = chart.panel("validation, first seed", {"epoch", "% correct"});
    Panel& cost = chart.panel("test accuracy over cost", {"seconds an epoch", "% correct"});
    for (const Row& row : rows_) {
      const double seconds = mean_of(row.seconds), megabytes = mean_of(row.megabytes);
      markdown += fmt::format("| {} |\n", fmt::join(row.cells(), " | "));
      csv += fmt::format("{},{:.5f},{:.2f},{:.1f}\n", fmt::join(row.about(), ","),
                         mean_of(row.accuracy), seconds, megabytes);
      curves.line(row.label(), row.history.epoch, row.history.val_accuracy);
      cost.line(row.label(), {seconds}, {100 * mean_of(row.accuracy)});
    }
    save_text(folder_->path() / "table.md", markdown);
    save_text(folder_->path() / "table.csv", csv);
    chart.save(folder_->path() / "chart.png");
    fmt::print("\n{}\nMade in {}: report.html, table.md, table.csv, chart.png, metrics.jsonl\n",
               markdown, folder_->path().string());
  }

  const Flags& flags_;
  std::vector<Row> rows_;
  HeldOut parts_;
  ImageSet test_;
  std::unique_ptr<RunFolder> folder_;
  std::optional<Report> report_;
};

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  f.train.data = "mnist";
  f.train.epochs = 2;
  f.train.out = "out/compare_routings";
  const auto numbers = [](const std::string& text) {
    for (const std::string& item : split_list(text)) {
      std::size_t end = 0;
      try {
        static_cast<void>(std::stod(item, &end));
      } catch (const std::exception&) {
        end = 0;
      }
      if (end != item.size())
        throw ValueError(fmt::format("must be a list of numbers; got '{}'", text));
    }
  };
  Args args("compare_routings",
            "Trains networks that differ in their routing under one budget and compares them.");
  f.train.add_data(args);
  args.section("Networks (lists are crossed; a routing without such an option stands once)")
      .add("--routings LIST", f.routings, "names of routings: dynamic,kmeans,em,...",
           [](const std::string& text) {
             for (const std::string& name : split_list(text)) const RoutingSpec spec(name);
           })
      .add("--iterations LIST", f.iterations, "routing iterations; empty: of each routing its own",
           numbers)
      .add("--votes LIST", f.votes, "of full, shared, factorised, matrix",
           [](const std::string& text) { split_list(text, kVotes); })
      .add("--squash-c LIST", f.squash_c, "constants c of the squash", numbers)
      .add("--sharpness LIST", f.sharpness, "K of the softmax of K-means routing", numbers)
      .add("--baselines LIST", f.baselines, "of se, cnn: without capsules, as large; or none",
           [](const std::string& text) { split_list(text, kBaselines); })
      .choice("--decoder", f.decoder, {"none", "conv"}, "reconstruction beside the capsules")
      .add("--seeds N", f.seeds, "runs of each network, with seeds from --seed on", {.min = 1});
  f.train.add_training(args);
  args.example("compare_routings --routings kmeans --iterations 1,2,3 --sharpness 1,4,16")
      .example("compare_routings --votes full,shared,factorised --squash-c 1,0.5 --seeds 3");
  return train_main(args, argc, argv, f.train.safety, f.train.out, [&] {
    f.train.start(args);
    return Comparison(f, rows_of(f), args).run();
  });
}
