#include "common/train_loop.hpp"

#include <chrono>
#include <cmath>
#include <optional>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/optim/clip.hpp>

#include "common/chart.hpp"
#include "common/memory.hpp"
#include "common/progress.hpp"
#include "common/signals.hpp"

namespace capsfw::apps {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

void require_finite(double loss, const std::string& when) {
  if (!std::isfinite(loss))
    throw ValueError(
        fmt::format("{}: the loss is {}. Hint: a smaller --lr, or --clip 1", when, loss));
}

/// Sums over the images of an epoch.
struct Totals {
  double images = 0, loss = 0, hits = 0;
};

class Run {
 public:
  Run(ImageClassifier& net,
      const HeldOut& parts,
      const TrainFlags& flags,
      const TrainTask& task,
      JsonLog& log)
      : net_(net),
        parts_(parts),
        flags_(flags),
        task_(task),
        log_(log),
        loader_(parts.train, loader_options(flags)),
        total_(flags.steps > 0 ? flags.steps : flags.epochs * loader_.size()),
        optimizer_(make_optimizer(flags, net.named_parameters())),
        rate_(make_schedule(flags, loader_.size(), total_)) {}

  TrainResult run() {
    const int last = static_cast<int>((total_ + loader_.size() - 1) / loader_.size());
    for (int epoch = 1; epoch <= last && !stopped(); ++epoch) run_epoch(epoch, last);
    if (best_) {
      net_.load_state_dict(*best_);
      if (task_.before_step) task_.before_step(best_step_, total_);
    }
    result_.steps = step_;
    result_.seconds = seconds_since(start_);
    result_.seconds_per_epoch = trained_images_ > 0 ? trained_seconds_ / trained_images_ *
                                                          static_cast<double>(loader_.images())
                                                    : NAN;
    return std::move(result_);
  }

 private:
  bool stopped() const {
    return interrupted() || step_ >= total_ ||
           (flags_.minutes > 0 && seconds_since(start_) > 60 * flags_.minutes);
  }

  void write(const std::string& event, JsonFields fields) {
    JsonFields line{{"event", event}};
    line.insert(line.end(), task_.tags.begin(), task_.tags.end());
    line.insert(line.end(), fields.begin(), fields.end());
    log_.write(line);
  }

  double epochs_done() const {
    return static_cast<double>(step_) / static_cast<double>(loader_.size());
  }

  void run_step(const Batch& batch, Totals& sum) {
    if (task_.before_step) task_.before_step(step_, total_);
    apply(rate_, step_, *optimizer_);
    const ClassifierOutput out = net_(batch.images, batch.labels);
    const Tensor loss = task_.loss(out, batch);
    const double value = loss.item();
    require_finite(value, fmt::format("training, step {}", step_));
    optimizer_->zero_grad();
    backward(loss);
    if (flags_.clip > 0) clip_grad_norm(net_.parameters(), flags_.clip);
    optimizer_->step();
    ++step_;
    const auto n = static_cast<double>(batch.size());
    sum.images += n;
    sum.loss += n * value;
    sum.hits += n * accuracy(out.lengths, batch.labels);
  }

  void run_epoch(int epoch, int last) {
    const auto begin = Clock::now();
    const std::string label = fmt::format("{}epoch {}/{}", task_.label, epoch, last);
    Progress bar(label, std::min(loader_.images(), (total_ - step_) * flags_.batch), "images");
    Totals sum, drawn;
    for (const Batch& batch : loader_) {
      run_step(batch, sum);
      bar.update(static_cast<std::int64_t>(sum.images),
                 fmt::format("loss {:.4f}  acc {:.2f} %", sum.loss / sum.images,
                             100 * sum.hits / sum.images));
      if (step_ % std::max<std::int64_t>(loader_.size() / 10, 1) == 0) {
        write("train", {{"step", step_},
                        {"epoch", epoch},
                        {"loss", sum.loss / sum.images},
                        {"accuracy", sum.hits / sum.images},
                        {"lr", optimizer_->lr()}});
        // The curve shows the mean since its last point; the bar and the log that of the epoch.
        const double since = sum.images - drawn.images;
        result_.history.step.push_back(epochs_done());
        result_.history.loss.push_back((sum.loss - drawn.loss) / since);
        result_.history.accuracy.push_back(100 * (sum.hits - drawn.hits) / since);
        drawn = sum;
      }
      if (stopped()) break;
    }
    const double seconds = seconds_since(begin);
    trained_seconds_ += seconds;
    trained_images_ += sum.images;
    bar.finish();
    if (interrupted()) return;
    std::optional<Score> val;
    if (parts_.validation.size() > 0)
      val = task_.validate
                ? task_.validate()
                : evaluate(net_, parts_.validation, task_.loss, task_.label + "validation");
    if (interrupted()) return;
    report(epoch, label, sum, seconds, val);
    if (val && val->accuracy >= result_.val_accuracy) keep(epoch, val->accuracy);
  }

  void report(int epoch,
              const std::string& label,
              const Totals& sum,
              double seconds,
              const std::optional<Score>& val) {
    const double rate = sum.images / seconds;
    std::string validation;
    if (val)
      validation = fmt::format("   validation{} acc {:.2f} %",
                               std::isnan(val->loss) ? "" : fmt::format(" loss {:.4f} ", val->loss),
                               100 * val->accuracy);
    fmt::print("{:<12} loss {:.4f}  acc {:.2f} %{}   {:.0f} images/s  {:.0f} s  peak {:.0f} MB\n",
               label, sum.loss / sum.images, 100 * sum.hits / sum.images, validation, rate, seconds,
               peak_memory_mb());
    write("epoch", {{"epoch", epoch},
                    {"step", step_},
                    {"loss", sum.loss / sum.images},
                    {"accuracy", sum.hits / sum.images},
                    {"val_loss", val ? val->loss : NAN},
                    {"val_accuracy", val ? val->accuracy : NAN},
                    {"images_per_second", rate},
                    {"seconds", seconds},
                    {"peak_memory_mb", peak_memory_mb()}});
    if (!val) return;
    result_.history.epoch.push_back(epochs_done());
    result_.history.val_loss.push_back(val->loss);
    result_.history.val_accuracy.push_back(100 * val->accuracy);
  }

  void keep(int epoch, double accuracy) {
    result_.best_epoch = epoch;
    best_step_ = step_ - 1;
    result_.val_accuracy = accuracy;
    best_.emplace();
    for (const auto& [name, t] : net_.state_dict()) best_->set(name, empty_like(t).copy_(t));
  }

  ImageClassifier& net_;
  const HeldOut& parts_;
  const TrainFlags& flags_;
  const TrainTask& task_;
  JsonLog& log_;
  DataLoader loader_;
  std::int64_t total_, step_ = 0, best_step_ = 0;
  std::unique_ptr<Optimizer> optimizer_;
  Schedule rate_;
  TrainResult result_;
  std::optional<StateDict> best_;
  double trained_seconds_ = 0, trained_images_ = 0;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

void History::draw(const std::string& title, const std::filesystem::path& path) const {
  Chart chart(title);
  chart.panel("loss", {"epoch", "loss"})
      .line("training", step, loss)
      .line("validation", epoch, val_loss);
  chart.panel("accuracy", {"epoch", "%"})
      .line("training", step, accuracy)
      .line("validation", epoch, val_accuracy);
  chart.save(path.string());
}

Score evaluate(ImageClassifier& net,
               const ImageSet& set,
               const BatchLoss& loss,
               const std::string& label) {
  const NoGradGuard no_grad;
  const bool was_training = net.training();
  net.eval();
  DataLoader loader(set, {.batch_size = 256});
  Progress bar(label, set.size(), "images");
  Score sum;
  std::int64_t done = 0;
  for (const Batch& b : loader) {
    if (interrupted()) break;
    const ClassifierOutput out = net(b.images);
    const auto n = static_cast<double>(b.size());
    sum.loss += n * loss(out, b).item();
    sum.accuracy += n * accuracy(out.lengths, b.labels);
    bar.update(done += b.size());
  }
  net.train(was_training);
  require_finite(sum.loss, label);
  const auto n = static_cast<double>(std::max<std::int64_t>(done, 1));
  return {sum.loss / n, sum.accuracy / n};
}

TrainResult train(ImageClassifier& net,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const TrainTask& task,
                  JsonLog& log) {
  return Run(net, parts, flags, task, log).run();
}

}  // namespace capsfw::apps
