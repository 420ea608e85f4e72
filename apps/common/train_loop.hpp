#pragma once
// The loop of every training program: epochs with a bar and a log, the weights that were
// best on held-out images, Ctrl-C.

#include <functional>
#include <string>
#include <vector>

#include <capsfw/data/loader.hpp>

#include "common/classifier_loss.hpp"
#include "common/log.hpp"
#include "common/train_flags.hpp"

namespace capsfw::apps {

/// The loss of an output for the batch it was made of.
using BatchLoss = std::function<Tensor(const ClassifierOutput&, const Batch&)>;

/// What is trained, and how.
struct TrainTask {
  BatchLoss loss;
  /// Before every step, for schedules of more than the learning rate; once more, with its step,
  /// when the best weights come back.
  std::function<void(std::int64_t step, std::int64_t total)> before_step = {};
  /// The score that chooses the epoch; empty: evaluate() on the images held out.
  std::function<Score()> validate = {};
  std::string label = {};  ///< in front of every line, where a program trains several networks
  JsonFields tags = {};    ///< in every line of the log
};

/// The curves of a run, by epoch; accuracies in per cent.
struct History {
  std::vector<double> step, loss, accuracy;  ///< training: means between two points
  std::vector<double> epoch, val_loss, val_accuracy;

  /// Two panels, loss and accuracy.
  void draw(const std::string& title, const std::filesystem::path& path) const;
};

/// How a run ended.
struct TrainResult {
  History history;
  int best_epoch = 0;       ///< 0: nothing was held out, the weights are the last ones
  double val_accuracy = 0;  ///< of that epoch
  std::int64_t steps = 0;
  double seconds = 0;            ///< of everything, validation included
  double seconds_per_epoch = 0;  ///< of training alone, for a full epoch
};

/// Mean loss and accuracy in evaluation mode. Stops early when interrupted. ValueError if the loss
/// is not finite: a class is found among NaN scores, too.
Score evaluate(ImageClassifier& net,
               const ImageSet& set,
               const BatchLoss& loss,
               const std::string& label);

/// Trains `net` and leaves it with the best weights. Stops early when interrupted() or after
/// flags.minutes. ValueError if the loss is not finite.
TrainResult train(ImageClassifier& net,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const TrainTask& task,
                  JsonLog& log);

}  // namespace capsfw::apps
