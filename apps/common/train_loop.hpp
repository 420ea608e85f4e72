#pragma once
// The loop of the programs that train networks of images.

#include <functional>
#include <string>
#include <vector>

#include <capsfw/optim/evaluate.hpp>
#include <capsfw/optim/run.hpp>

#include "common/report_sections.hpp"
#include "common/train_flags.hpp"

namespace capsfw::apps {

/// What is trained, and how.
struct TrainTask {
  BatchLoss loss;
  /// Loss and accuracy of a training batch; empty: `loss` of the answer to its images.
  struct Step {
    Tensor loss;
    double accuracy;
  };
  std::function<Step(const Batch& batch)> step = {};
  bool drop_last = false;  ///< leave out a last batch that is smaller than the others
  /// Before every step, for schedules of more than the learning rate; once more with the step that
  /// the weights are of, before they are evaluated.
  std::function<void(std::int64_t step, std::int64_t total)> before_step = {};
  /// The score that chooses the epoch; empty: evaluate() on the images held out.
  std::function<Score()> validate = {};
  /// Behind every epoch. The answers are those to the images held out, where evaluate() saw them.
  std::function<void(const Run& run, const Answers& held_out)> after_epoch = {};
  std::string part = {};   ///< name of its checkpoints, where a program trains several networks
  std::string label = {};  ///< in front of every line, likewise
  JsonFields tags = {};    ///< in every line of the log
};

/// The curves of a run, by epoch; accuracies in per cent.
struct History {
  std::vector<double> step, loss, accuracy;  ///< training: means between two points
  std::vector<double> epoch, val_loss, val_accuracy;

  /// Of a run whose metrics are "accuracy" and, from end_epoch(), "val_loss" and the one named.
  static History of(const Run& run, const std::string& val_accuracy = "val_accuracy");
  void save(StateDict& state, const std::string& prefix) const;
  void load(const StateDict& state, const std::string& prefix);
  /// Two panels, loss and accuracy.
  void draw(const std::string& title, const std::filesystem::path& path) const;
};

/// How a run ended.
struct TrainResult {
  History history;
  int best_epoch = 0;       ///< 0: nothing was held out, the weights are the last ones
  double val_accuracy = 0;  ///< of that epoch; NaN where there is none
  std::int64_t steps = 0;
  bool averaged = false;         ///< the weights are running averages (--average)
  double seconds = 0;            ///< of everything, validation included
  double seconds_per_epoch = 0;  ///< of training alone, for a full epoch

  /// Of a run whose metrics are named as in History::of().
  static TrainResult of(const Run& run, const std::string& val_accuracy = "val_accuracy");
  /// "weights of epoch 3, 20 s of training"; "averages of epoch 3, ..."
  std::string text() const;
};

/// Trains `net` and leaves it with the best weights. Stops early when interrupted() or after
/// flags.minutes. ValueError if the loss is not finite and the flags say no more.
TrainResult train(ImageClassifier& net,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const TrainTask& task,
                  RunFolder& folder);

/// Of all images: what a run and its checkpoints depend on, and what must be equal on all ranks.
std::string fingerprint(const HeldOut& parts, const ImageSet& test);

}  // namespace capsfw::apps
