#pragma once
// Private: one network trained on one split.

#include <functional>
#include <string>

#include <capsfw/data/text_loader.hpp>
#include <capsfw/layers/text_classifier.hpp>
#include <capsfw/optim/run_folder.hpp>

#include "common/train_loop.hpp"

#include "flags.hpp"

namespace capsfw::apps {

/// Loader options for sentences in their order, as `net` takes them.
TextLoaderOptions evaluation_options(const TextClassifier& net, const TextFlags& flags);

/// Scores f32 [N, J] of all sentences in their order, in evaluation mode. An undefined tensor if it
/// was interrupted; ValueError for scores that are not finite.
Tensor score_all(TextClassifier& net,
                 const EncodedText& text,
                 const TextFlags& flags,
                 const std::string& label);

/// One network among those of a study.
struct TextPart {
  std::string name;   ///< of its checkpoints
  std::string label;  ///< in front of every line
  JsonFields tags;    ///< in every line of the log
  std::function<void(const Run& run)> after_epoch;
};

/// Trains `net` and leaves it with the weights of the epoch that was best on `dev` (the last ones
/// where it is empty). Stops early when interrupted(), after flags.train.minutes, or after
/// flags.patience epochs without a better one. ValueError if the loss is not finite and the flags
/// say no more.
TrainResult train_text(TextClassifier& net,
                       const EncodedText& train,
                       const EncodedText& dev,
                       const TextFlags& flags,
                       const TextPart& part,
                       RunFolder& folder);

}  // namespace capsfw::apps
