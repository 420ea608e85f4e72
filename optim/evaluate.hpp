#pragma once
// How good a classifier of images is on a set.

#include <functional>
#include <string>

#include <capsfw/data/loader.hpp>
#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/optim/ranks.hpp>

namespace capsfw {

/// Mean loss (NaN: not known) and accuracy over a set.
struct Score {
  double loss = 0;      ///< mean over the samples
  double accuracy = 0;  ///< share of the samples, 0 to 1
};

/// The loss of an output for the batch it was made of.
using BatchLoss = std::function<Tensor(const ClassifierOutput&, const Batch&)>;

/// Mean loss and accuracy in evaluation mode, under a bar with this label; the mode is then what it
/// was. Stops early when interrupted(). ValueError if the loss is not finite: a class is found
/// among NaN scores, too. With `ranks`, all of which call it, each does its turn of the batches,
/// and all get the sums over all batches, in their order: the same bits as one process alone.
Score evaluate(ImageClassifier& net,
               const ImageSet& set,
               const BatchLoss& loss,
               const std::string& label,
               Ranks* ranks = nullptr);

/// Images in a batch of evaluate().
inline constexpr std::int64_t kEvaluationBatch = 256;

}  // namespace capsfw
