// Lesson 3: training. The loops are yours; a Run adds the bar, the log, the best weights,
// checkpoints, and going on after Ctrl-C: start it, stop it, start it again.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

using namespace capsfw;

/// Squares in one of four corners of grey images.
ImageSet corners(std::int64_t n, Rng rng) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(n) * 256);
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < n; ++i) {
    labels.push_back(rng.below(4));
    const std::int64_t top = 8 * (labels.back() / 2), left = 8 * (labels.back() % 2);
    for (std::int64_t k = 0; k < 256; ++k) {
      const bool inside = k / 16 / 8 * 8 == top && k % 16 / 8 * 8 == left;
      pixels[static_cast<std::size_t>(256 * i + k)] =
          static_cast<std::uint8_t>(rng.below(inside ? 256 : 160));
    }
  }
  return ImageSet({1, 16, 16}, std::move(pixels), std::move(labels), {"nw", "ne", "sw", "se"});
}

// [program]
int main() try {
  catch_interrupts();
  const HeldOut parts = hold_out(corners(1200, Rng(7)), 200);
  Rng rng(1);
  MlpNet net({.image = {1, 16, 16}, .hidden = {32}, .classes = 4}, rng);
  Adam adam(net.named_parameters(), {.lr = 3e-3});
  DataLoader loader(parts.train, {.batch_size = 50, .shuffle = true, .max_shift = 1});
  const auto loss_of = [](const ClassifierOutput& out, const Batch& batch) {
    return cross_entropy(out.logits, batch.labels);
  };

  RunFolder folder("out/lesson_3", {.resume = true, .config = {{"lr", "3e-3"}}});
  Run run(net, adam, loader, folder, {.epochs = 4, .rate = cosine_decay(3e-3, 4 * loader.size())});
  while (run.next_epoch()) {
    for (const Batch& batch : run.batches(loader)) {
      const ClassifierOutput out = net(batch.images, batch.labels);
      run.step(loss_of(out, batch), batch.size(),
               {{"accuracy", accuracy(out.lengths, batch.labels)}});
    }
    const Score score = evaluate(net, parts.validation, loss_of, "validation");
    run.end_epoch({{"val_loss", score.loss}, {"val_accuracy", score.accuracy}}, score.accuracy);
  }
  run.finish();  // the network now has its best weights
  save_safetensors(folder.path() / "model.safetensors", net.state_dict());
  fmt::print("best: epoch {}, {:.1f} %\n", run.best_epoch(), 100 * run.best_score());
  return interrupted() ? kInterruptedExit : 0;
} catch (const std::exception& e) {
  fmt::print(stderr, "error: {}\n", e.what());
  return 1;
}
// [program]
