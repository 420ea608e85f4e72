#pragma once
// What the runs of gradient_penalty have in common.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include <capsfw/data/loader.hpp>
#include <capsfw/layers/image_classifier.hpp>

#include "common/data_flags.hpp"
#include "common/penalty_probe.hpp"
#include "common/report_sections.hpp"
#include "common/train_flags.hpp"

namespace capsfw::apps {

/// The command line.
struct Flags : DataFlags {
  std::string penalty = "all", form = "exact", param_form = "batch", hidden = "64,64",
              model = "mlp", activation = "tanh", rates = "0.02,0.05,0.1,0.2,0.5",
              out = "out/gradient_penalty";
  std::int64_t train = 1000, test = 10000, steps = 1500, probe = 100;
  int batch = 50, seeds = 1, records = 10;
  std::uint64_t seed = 1;
  double lr = 1e-3, input_weight = 0.3, param_weight = 0.1, step_size = 1e-2, target = 0.3;
  bool lr_sweep = false, exact = false;
  SafetyFlags safety = {};
};

/// The images of one seed.
struct Data {
  Labelled train, val, test, probe;
  ImageSet images;
};

/// The data, and the folder with the log of all runs.
class Study {
 public:
  /// UsageError if there are too few images.
  Study(const Flags& f, const Args& args);
  Data draw(std::uint64_t seed) const;
  std::unique_ptr<ImageClassifier> make_network(Rng& rng) const;
  /// A line for the log.
  void write(const JsonFields& fields) { folder_->write(fields); }
  RunFolder& folder() { return *folder_; }
  const std::filesystem::path& dir() const { return folder_->path(); }
  Report& report() { return *report_; }

  const Flags& flags;
  const ImageSet all, test;

 private:
  std::unique_ptr<RunFolder> folder_;
  std::optional<Report> report_;
};

/// What to train with.
struct Kind {
  bool input = false, param = false;
};
/// ∇ of mean loss + penalties, left at the parameters. Returns the mean loss.
double penalised_step(ImageClassifier& net, const Batch& batch, const Kind& kind, const Flags& f);

/// Runs with each of the penalties. Returns the exit code.
int train_with_penalties(Study& study);
/// Plain SGD at several rates to the same training loss: what ‖∇L‖² is there? Returns the exit
/// code.
int sweep_learning_rates(Study& study);

}  // namespace capsfw::apps
