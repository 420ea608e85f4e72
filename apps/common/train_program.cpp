#include "common/train_program.hpp"

#include <cmath>
#include <filesystem>
#include <optional>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/data/image.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/train/interrupt.hpp>
#include <capsfw/train/memory.hpp>

#include "common/classifier_io.hpp"
#include "common/grid.hpp"

namespace capsfw::apps {
namespace {

/// Inputs above their reconstructions from the longest capsule.
void draw_reconstructions(ImageClassifier& net,
                          const ImageSet& set,
                          const std::filesystem::path& path) {
  const NoGradGuard no_grad;
  constexpr std::int64_t kColumns = 10;
  const std::int64_t rows = std::min<std::int64_t>(3, set.size() / kColumns);
  if (!net.has_decoder() || rows == 0) return;
  net.eval();
  const Tensor x = set.images(0, rows * kColumns);
  const ClassifierOutput out = net(x);
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
  save_png(path, labelled_grid(drawable(cat(lines)), grid));
}

void test_once(ImageClassifier& net,
               const ImageSet& test,
               const TrainFlags& flags,
               const TrainTask& task,
               const TrainResult& result,
               const std::string& title,
               RunFolder& folder) {
  const std::filesystem::path dir = flags.out;
  const Score score = evaluate(net, test, task.loss, "test");
  const int iterations = net.routing_iterations(), none = net.uniform_iterations();
  std::optional<Score> uniform;
  if (none >= 0) {
    net.set_routing_iterations(none);
    uniform = evaluate(net, test, task.loss, "test, uniform couplings");
    net.set_routing_iterations(iterations);
  }
  if (interrupted()) return;
  draw_reconstructions(net, test, dir / "reconstructions.png");
  result.history.draw(title, dir / "curves.png");
  folder.write({{"event", "test"},
                {"step", result.steps},
                {"best_epoch", result.best_epoch},
                {"val_accuracy", result.val_accuracy},
                {"routing_iterations", iterations},
                {"test_loss", score.loss},
                {"test_accuracy_uniform_couplings", uniform ? uniform->accuracy : NAN},
                {"train_seconds", result.seconds},
                {"peak_memory_mb", peak_memory_mb()},
                {"test_accuracy", score.accuracy}});
  fmt::print(
      "\ntest accuracy {:.2f} %{}{} (weights of epoch {}, {:.0f} s of training)\n",
      100 * score.accuracy,
      iterations > 0 ? fmt::format(" with {} routing iterations", iterations) : "",
      uniform ? fmt::format(", {:.2f} % with uniform couplings", 100 * uniform->accuracy) : "",
      result.best_epoch, result.seconds);
  fmt::print(
      "\nMade in {}:\n  metrics.jsonl        the run, a JSON object per line\n  "
      "model.safetensors    the weights; try: predict --model {} IMAGE.png\n"
      "  curves.png           loss and accuracy\n",
      dir.string(), (dir / "model.safetensors").string());
  if (net.has_decoder())
    fmt::print("  reconstructions.png  test images beside what their capsule remembers\n");
}

}  // namespace

int train_program(ImageClassifier& net,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const TrainTask& task,
                  const Args& args,
                  const std::string& title) {
  const ImageSet test = load_images(flags, Split::test);  // now: what is bad must show at once
  if (test.image_shape() != parts.train.image_shape())
    throw UsageError(fmt::format("--size: test images are {}, training images {}; give a size",
                                 test.image_shape().str(), parts.train.image_shape().str()));
  if (!flags.load.empty()) net.load_state_dict(load_weights(flags.load));
  // Not before this: whatever fails above leaves the log of an earlier run in this folder as it is.
  std::vector<std::string> may_grow;
  if (!flags.rate_needs_length() && !task.before_step) may_grow = {"--epochs", "--steps"};
  const auto folder = flags.safety.open(flags.out, args, fingerprint(parts), may_grow);
  const std::filesystem::path& dir = folder->path();
  fmt::print("{}\n{} training images, {} validation images\n\n", net.summary(), parts.train.size(),
             parts.validation.size());
  const TrainResult result = train(net, parts, flags, task, *folder);
  save_classifier(dir / "model.safetensors", net, parts.train);
  if (!interrupted()) test_once(net, test, flags, task, result, title, *folder);
  if (!interrupted()) return 0;
  fmt::print("Interrupted: the weights so far are in {}; --resume goes on\n",
             (dir / "model.safetensors").string());
  return kInterruptedExit;
}

}  // namespace capsfw::apps
