#include "train.hpp"

#include <chrono>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/optim/clip.hpp>

#include "common/memory.hpp"
#include "common/progress.hpp"
#include "common/signals.hpp"

namespace capsfw::apps {
namespace {

/// Far from the small stream numbers that programs use with the same seed.
constexpr std::uint64_t kWordDropout = 0x3d80'0000'0000'0000;

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

TextLoaderOptions training_options(const TextClassifier& net, const TextFlags& flags) {
  TextLoaderOptions o = evaluation_options(net, flags);
  o.batch_size = flags.train.batch;
  o.shuffle = true;
  o.bucket = flags.bucket;
  o.seed = flags.train.seed;
  return o;
}

class Run {
 public:
  Run(TextClassifier& net,
      const EncodedText& train,
      const EncodedText& dev,
      const TextFlags& flags,
      std::string label,
      JsonFields tags,
      JsonLog& log)
      : net_(net),
        dev_(dev),
        flags_(flags),
        label_(std::move(label)),
        tags_(std::move(tags)),
        log_(log),
        loader_(train, training_options(net, flags)),
        total_(flags.train.steps > 0 ? flags.train.steps : flags.train.epochs * loader_.size()),
        optimizer_(make_optimizer(flags.train, net.named_parameters())),
        rate_(make_schedule(flags.train, loader_.size(), total_)),
        dev_labels_(from_vector(dev.labels)) {}

  TrainResult run() {
    const int last = static_cast<int>((total_ + loader_.size() - 1) / loader_.size());
    int epoch = 1;
    for (; epoch <= last && !stopped(); ++epoch) run_epoch(epoch, last);
    if (best_) net_.load_state_dict(*best_);
    result_.steps = step_;
    result_.seconds = seconds_since(start_);
    result_.seconds_per_epoch = trained_seconds_ / std::max(epoch - 1, 1);
    return std::move(result_);
  }

 private:
  bool stopped() const {
    return interrupted() || step_ >= total_ || late_ ||
           (flags_.train.minutes > 0 && seconds_since(start_) > 60 * flags_.train.minutes);
  }

  void write(const std::string& event, const JsonFields& fields) {
    JsonFields line{{"event", event}};
    line.insert(line.end(), tags_.begin(), tags_.end());
    line.insert(line.end(), fields.begin(), fields.end());
    log_.write(line);
  }

  /// The vectors of the words, of whose numbers a share is dropped; a function of seed and step.
  ClassifierOutput forward(const TextBatch& batch) {
    if (flags_.word_dropout == 0) return net_(batch.ids, batch.mask);
    const WordEmbedding& table = net_.words();
    Tensor words = embedding(table.weight, batch.ids);
    if (table.fixed.defined()) words = cat({embedding(table.fixed, batch.ids), words}, -1);
    Rng rng(flags_.train.seed, kWordDropout + static_cast<std::uint64_t>(step_));
    const double keep = 1 - flags_.word_dropout;
    const Tensor kept = to(rng.bernoulli(words.shape(), keep), words.dtype());
    return net_.from_words(words * kept * (1 / keep), batch.mask);
  }

  void run_step(const TextBatch& batch) {
    apply(rate_, step_, *optimizer_);
    const ClassifierOutput out = forward(batch);
    const Tensor loss = text_loss(flags_.loss_name(), out, batch.labels,
                                  static_cast<double>(step_) / static_cast<double>(total_));
    const double value = loss.item();
    if (!std::isfinite(value))
      throw ValueError(
          fmt::format("{}training, step {}: the loss is {}. Hint: a smaller --lr, or "
                      "--clip 1",
                      label_, step_, value));
    optimizer_->zero_grad();
    backward(loss);
    if (flags_.train.clip > 0) clip_grad_norm(net_.parameters(), flags_.train.clip);
    optimizer_->step();
    ++step_;
    const auto n = static_cast<double>(batch.size());
    seen_ += n;
    loss_ += n * value;
    hits_ += n * accuracy(class_scores(out), batch.labels);
  }

  void run_epoch(int epoch, int last) {
    const auto begin = Clock::now();
    const std::string label = fmt::format("{}epoch {}/{}", label_, epoch, last);
    Progress bar(label, std::min(loader_.sentences(), (total_ - step_) * flags_.train.batch),
                 "sentences");
    seen_ = loss_ = hits_ = 0;
    net_.train();
    for (const TextBatch& batch : loader_) {
      run_step(batch);
      bar.update(static_cast<std::int64_t>(seen_),
                 fmt::format("loss {:.4f}  acc {:.2f} %", loss_ / seen_, 100 * hits_ / seen_));
      if (stopped()) break;
    }
    const double seconds = seconds_since(begin);
    trained_seconds_ += seconds;
    bar.finish();
    if (interrupted()) return;
    double dev = NAN;
    if (dev_.size() > 0) {
      const Tensor scores = score_all(net_, dev_, flags_, label_ + "development");
      if (interrupted()) return;
      dev = accuracy(scores, dev_labels_);
    }
    report(epoch, label, dev, seconds);
    if (std::isnan(dev)) return;
    if (dev > result_.val_accuracy || !best_) return keep(epoch, dev);
    late_ = flags_.patience > 0 && epoch - result_.best_epoch >= flags_.patience;
  }

  void report(int epoch, const std::string& label, double dev, double seconds) {
    const double at = static_cast<double>(step_) / static_cast<double>(loader_.size());
    History& h = result_.history;
    h.step.push_back(at);
    h.loss.push_back(loss_ / seen_);
    h.accuracy.push_back(100 * hits_ / seen_);
    if (!std::isnan(dev)) {
      h.epoch.push_back(at);
      h.val_loss.push_back(NAN);
      h.val_accuracy.push_back(100 * dev);
    }
    fmt::print(
        "{:<12} loss {:.4f}  acc {:.2f} %{}   {:.0f} sentences/s  {:.1f} s  peak {:.0f} MB\n",
        label, loss_ / seen_, 100 * hits_ / seen_,
        std::isnan(dev) ? "" : fmt::format("   development {:.2f} %", 100 * dev), seen_ / seconds,
        seconds, peak_memory_mb());
    write("epoch", {{"epoch", epoch},
                    {"step", step_},
                    {"loss", loss_ / seen_},
                    {"accuracy", hits_ / seen_},
                    {"dev_accuracy", dev},
                    {"seconds", seconds},
                    {"peak_memory_mb", peak_memory_mb()}});
  }

  void keep(int epoch, double dev) {
    result_.best_epoch = epoch;
    result_.val_accuracy = dev;
    best_.emplace();
    for (const auto& [name, t] : net_.state_dict()) best_->set(name, empty_like(t).copy_(t));
  }

  TextClassifier& net_;
  const EncodedText& dev_;
  const TextFlags& flags_;
  std::string label_;
  JsonFields tags_;
  JsonLog& log_;
  TextLoader loader_;
  std::int64_t total_, step_ = 0;
  std::unique_ptr<Optimizer> optimizer_;
  Schedule rate_;
  Tensor dev_labels_;
  TrainResult result_;
  std::optional<StateDict> best_;
  bool late_ = false;
  double seen_ = 0, loss_ = 0, hits_ = 0, trained_seconds_ = 0;
  Clock::time_point start_ = Clock::now();
};

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
  const bool was_training = net.training();
  net.eval();
  TextLoader loader(text, evaluation_options(net, flags));
  Progress bar(label, text.size(), "sentences");
  TensorList parts;
  std::int64_t done = 0;
  for (const TextBatch& batch : loader) {
    if (interrupted()) break;
    parts.push_back(class_scores(net(batch.ids, batch.mask)));
    bar.update(done += batch.size());
  }
  net.train(was_training);
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
                       const std::string& label,
                       const JsonFields& tags,
                       JsonLog& log) {
  return Run(net, train, dev, flags, label, tags, log).run();
}

}  // namespace capsfw::apps
