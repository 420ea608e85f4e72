#include "train.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/progress.hpp>

#include "common/classifier_loss.hpp"

namespace capsfw::apps {
namespace {

/// Far from the small stream numbers that programs use with the same seed.
constexpr std::uint64_t kWordDropout = 0x3d80'0000'0000'0000;

TextLoaderOptions training_options(const TextClassifier& net, const TextFlags& flags) {
  TextLoaderOptions o = evaluation_options(net, flags);
  o.batch_size = flags.train.batch;
  o.shuffle = true;
  o.bucket = flags.bucket;
  o.seed = flags.train.seed;
  return o;
}

/// The vectors of the words, of whose numbers a share is dropped; a function of seed and `draw`.
ClassifierOutput forward(TextClassifier& net,
                         const TextBatch& batch,
                         const TextFlags& flags,
                         std::int64_t draw) {
  if (flags.word_dropout == 0) return net(batch.ids, batch.mask);
  const WordEmbedding& table = net.words();
  Tensor words = embedding(table.weight, batch.ids);
  if (table.fixed.defined()) words = cat({embedding(table.fixed, batch.ids), words}, -1);
  Rng rng(flags.train.seed, kWordDropout + static_cast<std::uint64_t>(draw));
  const double keep = 1 - flags.word_dropout;
  const Tensor kept = to(rng.bernoulli(words.shape(), keep), words.dtype());
  return net.from_words(words * kept * (1 / keep), batch.mask);
}

/// The sentences at these positions as one batch, as `options` have it.
TextBatch batch_of(const EncodedText& text,
                   const std::vector<std::int64_t>& positions,
                   const TextLoaderOptions& options) {
  return pad_batch(text, positions, options.min_length, options.max_length);
}

/// The longest sentences, which take the most memory.
TextBatch longest(const EncodedText& text, std::int64_t count, const TextLoaderOptions& options) {
  const auto words = [&](std::int64_t i) { return text.ids[static_cast<std::size_t>(i)].size(); };
  std::vector<std::int64_t> order(text.ids.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return words(a) > words(b); });
  order.resize(static_cast<std::size_t>(count));
  return batch_of(text, order, options);
}

}  // namespace

TextLoaderOptions evaluation_options(const TextClassifier& net, const TextFlags& flags) {
  std::int64_t longest = net.longest();
  if (flags.max_length > 0)
    longest = longest > 0 ? std::min(longest, flags.max_length) : flags.max_length;
  return {.batch_size = 100, .min_length = net.least_length(), .max_length = longest};
}

Tensor score_all(TextClassifier& net,
                 const EncodedText& text,
                 const TextFlags& flags,
                 const std::string& label) {
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  const TextLoaderOptions options = evaluation_options(net, flags);
  Progress bar(label, text.size(), "sentences");
  const auto scores_of = [&](std::int64_t turn) {
    const std::int64_t begin = turn * options.batch_size,
                       end = std::min(begin + options.batch_size, text.size());
    std::vector<std::int64_t> positions(static_cast<std::size_t>(end - begin));
    std::iota(positions.begin(), positions.end(), begin);
    const TextBatch batch = batch_of(text, positions, options);
    bar.update(end);
    return class_scores(net(batch.ids, batch.mask));
  };
  const std::int64_t turns = (text.size() + options.batch_size - 1) / options.batch_size;
  const TensorList parts = in_turns(flags.train.safety.ranks, turns, scores_of);
  if (interrupted()) return {};
  const Tensor scores = cat(parts);
  // A class would be found among NaN scores, too.
  if (!all(isfinite(scores)))
    throw ValueError(
        fmt::format("{}: a score is not finite. Hint: a smaller --lr, or --clip 1", label));
  return scores;
}

TrainResult train_text(TextClassifier& net,
                       const EncodedText& train,
                       const EncodedText& dev,
                       const TextFlags& flags,
                       const TextPart& part,
                       RunFolder& folder) {
  TextLoader loader(train, training_options(net, flags));
  const auto optimizer = make_optimizer(flags.train, net.named_parameters());
  const auto step = [&](std::int64_t samples) {
    const TextBatch batch = longest(train, samples, evaluation_options(net, flags));
    return text_loss(flags.loss_name(), forward(net, batch, flags, 0), batch.labels, 0);
  };
  show_memory(part.label, estimate_memory(net, *optimizer,
                                          flags.train.safety.largest_shard(std::min<std::int64_t>(
                                              flags.train.batch, train.size())),
                                          step));
  RunOptions options = run_options(flags.train, loader.size());
  options.part = part.name;
  options.label = part.label;
  options.tags = part.tags;
  options.unit = "sentences";
  options.later_wins = false;
  const Tensor dev_labels = from_vector(dev.labels);
  Run run(net, *optimizer, loader, folder, options);
  while (run.next_epoch()) {
    net.train();
    for (const TextBatch& batch : run.batches(loader)) {
      const double progress = static_cast<double>(run.steps()) / static_cast<double>(run.total());
      run.attempt([&] {
        const ClassifierOutput out =
            forward(net, batch, flags, run.steps() * run.shards() + run.shard());
        run.step(text_loss(flags.loss_name(), out, batch.labels, progress), batch.size(),
                 {{"accuracy", accuracy(class_scores(out), batch.labels)}});
      });
    }
    run.averaged([&] {
      if (dev.size() == 0) {
        run.end_epoch();
        return part.after_epoch(run);
      }
      const Tensor scores = score_all(net, dev, flags, part.label + "development");
      if (!scores.defined()) return;  // interrupted
      const double score = accuracy(scores, dev_labels);
      run.end_epoch({{"dev_accuracy", score}}, score);
      part.after_epoch(run);
      if (flags.patience > 0 && run.epoch() - run.best_epoch() >= flags.patience) run.stop();
    });
  }
  run.finish();
  return TrainResult::of(run, "dev_accuracy");
}

}  // namespace capsfw::apps
