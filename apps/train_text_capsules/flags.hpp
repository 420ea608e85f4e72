#pragma once
// Private: the command line of train_text_capsules.

#include <string>
#include <vector>

#include <capsfw/data/text.hpp>
#include <capsfw/layers/text_nets.hpp>

#include "common/args.hpp"
#include "common/train_flags.hpp"

namespace capsfw::apps {

/// Everything that can be said, and what it makes.
struct TextFlags {
  TrainFlags train;
  std::string data = "trec", test, encoding = "detect", edges = "mark", vectors, channels = "tuned",
              arch = "a", ngrams, routing = "dynamic", loss = "auto", predict, explain, model;
  std::int64_t folds = 10, run_folds = 1, seeds = 1, min_count = 1, max_length = 0, dim = 300,
               bucket = 32, filters = 0, types = 32, capsule_dim = 16, window = 1,
               window_types = 16, hidden = 128, patience = 5;
  double dev = 0.1, range = 0.05, word_dropout = 0.5, squash_c = 1, keep = 1, dropout = 0.5,
         threshold = 0.5;
  bool noise_class = false, transfer = false;

  void add_to(Args& args);
  /// UsageError for flags that do not fit together.
  void check(const Args& args) const;

  TextOptions text_options() const;
  /// `length`: words of the longest training sentence, for a network that needs it.
  std::unique_ptr<TextClassifier> make(const Tensor& table,
                                       std::int64_t classes,
                                       std::int64_t length,
                                       Rng& rng) const;
  /// Whether the network has capsules.
  bool capsules() const;
  /// "margin", "ce", ...: that of the flag, or the one that suits the network.
  std::string loss_name() const;
};

/// The loss of an output for labels i64 [B]. `progress` in [0, 1] moves the margin of spread_loss.
Tensor text_loss(const std::string& name,
                 const ClassifierOutput& out,
                 const Tensor& labels,
                 double progress);

}  // namespace capsfw::apps
