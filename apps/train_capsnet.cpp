// Trains a capsule network on images, keeps the weights that were best on held-out training images,
// and reads the test set once, at the end.

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/capsnet_io.hpp"
#include "common/chart.hpp"
#include "common/grid.hpp"
#include "common/log.hpp"
#include "common/memory.hpp"
#include "common/progress.hpp"
#include "common/signals.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  std::string data = "fashion-mnist", optimizer = "adam", schedule = "cosine",
              out = "out/train_capsnet", load = {};
  NetFlags net;
  int epochs = 10, batch = 64, shift = 2, warmup = 0;
  std::int64_t steps = 0, val = 5000;
  std::uint64_t seed = 1;
  double lr = 1e-3, momentum = 0.9, weight_decay = 0, decay = 0.9, clip = 0,
         reconstruction = 0.0005, minutes = 0;
};

std::unique_ptr<Optimizer> make_optimizer(const Flags& f, const NamedTensors& params) {
  const ParamList list(params);
  if (f.optimizer == "sgd")
    return std::make_unique<SGD>(
        list, SGDOptions{.lr = f.lr, .momentum = f.momentum, .weight_decay = f.weight_decay});
  if (f.optimizer == "adamw")
    return std::make_unique<AdamW>(list, AdamWOptions{.lr = f.lr, .weight_decay = f.weight_decay});
  if (f.optimizer == "rmsprop")
    return std::make_unique<RMSprop>(list,
                                     RMSpropOptions{.lr = f.lr, .weight_decay = f.weight_decay});
  return std::make_unique<Adam>(list, AdamOptions{.lr = f.lr, .weight_decay = f.weight_decay});
}

Schedule make_schedule(const Flags& f, std::int64_t steps_per_epoch, std::int64_t total) {
  Schedule rate = constant_rate(f.lr);
  if (f.schedule == "step") rate = step_decay(f.lr, std::max<std::int64_t>(total / 3, 1), f.decay);
  if (f.schedule == "exponential") rate = exponential_decay(f.lr, f.decay, steps_per_epoch);
  if (f.schedule == "cosine") rate = cosine_decay(f.lr, total);
  return f.warmup > 0 ? warm_up(f.warmup, rate) : rate;
}

/// A class is found among NaN scores, too: a run that diverged must not report an accuracy.
void require_finite_loss(double loss, const std::string& when) {
  if (!std::isfinite(loss))
    throw ValueError(
        fmt::format("{}: the loss is {}. Hint: a smaller --lr, or --clip 1", when, loss));
}

/// Mean loss and accuracy over a set, in evaluation mode. ValueError if the loss is not finite.
struct Score {
  double loss = 0, accuracy = 0;
};

Score evaluate(CapsNet& net,
               const ImageSet& set,
               const CapsNetLossOptions& loss,
               const std::string& label) {
  const NoGradGuard no_grad;
  net.eval();
  DataLoader loader(set, {.batch_size = 256});
  Progress bar(label, set.size(), "images");
  Score sum;
  std::int64_t done = 0;
  for (const Batch& b : loader) {
    if (interrupted()) break;
    const CapsNetOutput out = net(b.images);
    const auto n = static_cast<double>(b.size());
    sum.loss += n * capsnet_loss(out, b.images, one_hot(b.labels, set.classes()), loss).item();
    sum.accuracy += n * accuracy(out.lengths, b.labels);
    bar.update(done += b.size());
  }
  net.train();
  require_finite_loss(sum.loss, label);
  const auto n = static_cast<double>(std::max<std::int64_t>(done, 1));
  return {sum.loss / n, sum.accuracy / n};
}

/// Inputs above their reconstructions from the longest capsule.
void draw_reconstructions(CapsNet& net, const ImageSet& set, const std::filesystem::path& path) {
  const NoGradGuard no_grad;
  constexpr std::int64_t kColumns = 10;
  const std::int64_t rows = std::min<std::int64_t>(3, set.size() / kColumns);
  if (net.options().decoder == DecoderKind::none || rows == 0) return;
  net.eval();
  const Tensor x = set.images(0, rows * kColumns);
  const CapsNetOutput out = net(x);
  const auto predicted = argmax(out.lengths, 1).to_vector<std::int64_t>();
  TensorList lines;
  GridOptions grid{.columns = kColumns,
                   .scale = 3,
                   .title = "input above its reconstruction from the longest capsule",
                   .group = 2};
  for (std::int64_t r = 0; r < rows; ++r) {
    lines.push_back(narrow(x, 0, r * kColumns, kColumns));
    lines.push_back(narrow(out.reconstruction, 0, r * kColumns, kColumns));
    grid.rows.insert(grid.rows.end(), {"input", "capsule"});
    for (std::int64_t i = 0; i < kColumns; ++i)
      grid.captions.push_back(
          set.class_names()[static_cast<std::size_t>(set.label(r * kColumns + i))]);
    for (std::int64_t i = 0; i < kColumns; ++i)
      grid.captions.push_back(set.class_names()[static_cast<std::size_t>(
          predicted[static_cast<std::size_t>(r * kColumns + i)])]);
  }
  save_png(path, labelled_grid(cat(lines), grid));
}

/// The curves of a run.
struct History {
  std::vector<double> step, loss, accuracy;  // means between two points
  std::vector<double> epoch, val_loss, val_accuracy;

  void draw(const std::string& title, const std::filesystem::path& path) const {
    Chart chart(title);
    chart.panel("loss", {"epoch", "margin + reconstruction"})
        .line("training", step, loss)
        .line("validation", epoch, val_loss);
    chart.panel("accuracy", {"epoch", "%"})
        .line("training", step, accuracy)
        .line("validation", epoch, val_accuracy);
    chart.save(path.string());
  }
};

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

class Training {
 public:
  Training(const Flags& flags, const ImageSet& all)
      : flags_(flags),
        parts_(hold_out(all, flags.val)),
        loader_(parts_.train,
                {.batch_size = flags.batch,
                 .shuffle = true,
                 .max_shift = flags.shift,
                 .seed = flags.seed}),
        rng_(flags.seed),
        net_(flags.net.options(all.image_shape(), all.classes()), rng_),
        dir_(flags.out) {
    loss_.reconstruction = flags.reconstruction;
    if (!flags.load.empty()) net_.load_state_dict(load_weights(flags.load));
    total_ = flags.steps > 0 ? flags.steps : flags.epochs * loader_.size();
    optimizer_ = make_optimizer(flags, net_.named_parameters());
    rate_ = make_schedule(flags, loader_.size(), total_);
    // Last: whatever fails above leaves the log of an earlier run in this folder as it is.
    std::filesystem::create_directories(dir_);
    log_.emplace(dir_ / "metrics.jsonl", JsonLogOptions{.fresh = true});
  }

  int run() {
    fmt::print("{}\n{} training images, {} validation images, {} steps\n\n", net_.summary(),
               parts_.train.size(), parts_.validation.size(), total_);
    const int last = static_cast<int>((total_ + loader_.size() - 1) / loader_.size());
    for (int epoch = 1; epoch <= last && !stopped(); ++epoch) run_epoch(epoch, last);
    if (best_) net_.load_state_dict(*best_);
    save_net(dir_ / "model.safetensors", net_, parts_.train.class_names());
    if (!interrupted()) finish();
    if (!interrupted()) return 0;
    fmt::print("Interrupted: the weights so far are in {}\n",
               (dir_ / "model.safetensors").string());
    return kInterruptedExit;
  }

 private:
  bool stopped() const {
    return interrupted() || step_ >= total_ ||
           (flags_.minutes > 0 && seconds_since(start_) > 60 * flags_.minutes);
  }

  void run_epoch(int epoch, int last) {
    const auto begin = Clock::now();
    const std::string label = fmt::format("epoch {}/{}", epoch, last);
    Progress bar(label, std::min(loader_.images(), (total_ - step_) * flags_.batch), "images");
    double loss = 0, hits = 0;
    std::int64_t seen = 0;
    struct {
      double images = 0, loss = 0, hits = 0;
    } drawn;
    for (const Batch& batch : loader_) {
      apply(rate_, step_, *optimizer_);
      const CapsNetOutput out = net_(batch.images, batch.labels);
      const Tensor l =
          capsnet_loss(out, batch.images, one_hot(batch.labels, parts_.train.classes()), loss_);
      const double value = l.item();
      require_finite_loss(value, fmt::format("training, step {}", step_));
      optimizer_->zero_grad();
      backward(l);
      if (flags_.clip > 0) clip_grad_norm(net_.parameters(), flags_.clip);
      optimizer_->step();
      ++step_;
      const auto n = static_cast<double>(batch.size());
      loss += n * value;
      hits += n * accuracy(out.lengths, batch.labels);
      seen += batch.size();
      const auto count = static_cast<double>(seen);
      bar.update(seen, fmt::format("loss {:.4f}  acc {:.2f} %", loss / count, 100 * hits / count));
      if (step_ % std::max<std::int64_t>(loader_.size() / 10, 1) == 0) {
        log_->write({{"event", "train"},
                     {"step", step_},
                     {"epoch", epoch},
                     {"loss", loss / count},
                     {"accuracy", hits / count},
                     {"lr", optimizer_->lr()}});
        // The curve shows the mean since its last point; the bar and the log that of the epoch.
        const double since = count - drawn.images;
        history_.step.push_back(static_cast<double>(step_) / static_cast<double>(loader_.size()));
        history_.loss.push_back((loss - drawn.loss) / since);
        history_.accuracy.push_back(100 * (hits - drawn.hits) / since);
        drawn = {count, loss, hits};
      }
      if (stopped()) break;
    }
    const double seconds = seconds_since(begin), rate = static_cast<double>(seen) / seconds;
    bar.finish();
    if (interrupted()) return;
    const auto count = static_cast<double>(seen);
    Score val;
    if (parts_.validation.size() > 0) val = evaluate(net_, parts_.validation, loss_, "validation");
    if (interrupted()) return;
    fmt::print(
        "{:<12} loss {:.4f}  acc {:.2f} %   validation loss {:.4f}  acc {:.2f} %   {:.0f} images/s "
        " {:.0f} s  peak {:.0f} MB\n",
        label, loss / count, 100 * hits / count, val.loss, 100 * val.accuracy, rate, seconds,
        peak_memory_mb());
    log_->write({{"event", "epoch"},
                 {"epoch", epoch},
                 {"step", step_},
                 {"loss", loss / count},
                 {"accuracy", hits / count},
                 {"val_loss", val.loss},
                 {"val_accuracy", val.accuracy},
                 {"images_per_second", rate},
                 {"seconds", seconds},
                 {"peak_memory_mb", peak_memory_mb()}});
    history_.epoch.push_back(static_cast<double>(step_) / static_cast<double>(loader_.size()));
    history_.val_loss.push_back(val.loss);
    history_.val_accuracy.push_back(100 * val.accuracy);
    if (parts_.validation.size() > 0 && val.accuracy >= best_accuracy_) {
      best_accuracy_ = val.accuracy;
      best_epoch_ = epoch;
      best_.emplace();
      for (const auto& [name, t] : net_.state_dict()) best_->set(name, empty_like(t).copy_(t));
    }
  }

  void finish() {
    const double trained = seconds_since(start_);
    const ImageSet test = load_mnist_like(flags_.data, Split::test);
    const Score score = evaluate(net_, test, loss_, "test");
    const int iterations = net_.routing_iterations(), none = net_.uniform_iterations();
    std::optional<Score> uniform;
    if (none >= 0) {
      net_.set_routing_iterations(none);
      uniform = evaluate(net_, test, loss_, "test, uniform couplings");
      net_.set_routing_iterations(iterations);
    }
    if (interrupted()) return;
    draw_reconstructions(net_, test, dir_ / "reconstructions.png");
    history_.draw(fmt::format("{} capsule network on {}", flags_.net.arch,
                              flags_.data == "mnist" ? "MNIST" : "Fashion-MNIST"),
                  dir_ / "curves.png");
    log_->write({{"event", "test"},
                 {"step", step_},
                 {"best_epoch", best_epoch_},
                 {"val_accuracy", best_accuracy_},
                 {"routing_iterations", iterations},
                 {"test_loss", score.loss},
                 {"test_accuracy_uniform_couplings", uniform ? uniform->accuracy : NAN},
                 {"train_seconds", trained},
                 {"peak_memory_mb", peak_memory_mb()},
                 {"test_accuracy", score.accuracy}});
    fmt::print(
        "\ntest accuracy {:.2f} % with {} routing iterations{} (weights of epoch {}, {:.0f} s of "
        "training)\n",
        100 * score.accuracy, iterations,
        uniform ? fmt::format(", {:.2f} % with uniform couplings", 100 * uniform->accuracy) : "",
        best_epoch_, trained);
    fmt::print(
        "\nMade in {}:\n  metrics.jsonl        the run, a JSON object per line\n  "
        "model.safetensors    the weights; try: predict --model {} IMAGE.png\n"
        "  curves.png           loss and accuracy\n",
        dir_.string(), (dir_ / "model.safetensors").string());
    if (net_.options().decoder != DecoderKind::none)
      fmt::print("  reconstructions.png  test images beside what their capsule remembers\n");
  }

  const Flags& flags_;
  HeldOut parts_;
  DataLoader loader_;
  Rng rng_;
  CapsNet net_;
  std::filesystem::path dir_;
  std::optional<JsonLog> log_;
  CapsNetLossOptions loss_;
  std::unique_ptr<Optimizer> optimizer_;
  Schedule rate_;
  History history_;
  std::optional<StateDict> best_;
  double best_accuracy_ = 0;
  int best_epoch_ = 0;
  std::int64_t step_ = 0, total_ = 0;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  Args args("train_capsnet",
            "Trains a capsule network on MNIST or Fashion-MNIST and tests it once.");
  args.section("Data")
      .choice("--data", f.data, {"fashion-mnist", "mnist"}, "data set")
      .add("--val N", f.val, "training images held out to choose the epoch",
           {.min = 0, .max = 50000})
      .add("--shift N", f.shift, "random shifts of training images, in pixels",
           {.min = 0, .max = 8});
  f.net.add_to(args);
  args.section("Training")
      .add("--epochs N", f.epochs, "passes over the training images", {.min = 1})
      .add("--steps N", f.steps, "stop after N steps instead (0: by epochs)", {.min = 0})
      .add("--minutes X", f.minutes, "stop training after X minutes (0: no limit)", {.min = 0})
      .add("--batch N", f.batch, "images per step", {.min = 1, .max = 60000})
      .choice("--optimizer", f.optimizer, {"adam", "adamw", "sgd", "rmsprop"}, "update rule")
      .add("--lr X", f.lr, "learning rate", {.above = 0})
      .add("--momentum X", f.momentum, "of sgd", {.min = 0, .below = 1})
      .add("--weight-decay X", f.weight_decay, "weight decay", {.min = 0})
      .choice("--schedule", f.schedule, {"cosine", "exponential", "step", "constant"},
              "learning rate over time")
      .add("--decay X", f.decay, "factor per epoch (exponential) or per third of the run (step)",
           {.above = 0, .max = 1})
      .add("--warm-up N", f.warmup, "steps of linear warm-up", {.min = 0})
      .add("--clip X", f.clip, "largest norm of the gradient (0: off)", {.min = 0})
      .add("--reconstruction X", f.reconstruction,
           "weight of the sum of squared errors of an image (0.0005 is 0.392 of the mean at 784 "
           "pixels)",
           {.min = 0})
      .add("--seed N", f.seed, "of weights, order and shifts")
      .add("--load FILE", f.load, "start from these weights")
      .add("--out DIR", f.out, "folder for log, weights and pictures");
  args.example("train_capsnet --data mnist --arch paper --epochs 1")
      .example("train_capsnet --capsules 32x8,10x16 --votes shared");
  return run_main(args, argc, argv, [&] {
    catch_interrupts();
    const ImageSet all = load_mnist_like(f.data, Split::train);
    return Training(f, all).run();
  });
}
