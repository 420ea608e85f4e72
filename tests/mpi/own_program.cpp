// A program of one's own on several processes, quoted by docs/distributed.md.
//   own_program FOLDER [BAD_RANK]     BAD_RANK: its loss becomes NaN in step 5

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

using namespace capsfw;

namespace {

/// Two classes of noise, one of them brighter.
ImageSet images() {
  Rng rng(7);
  std::vector<std::uint8_t> pixels;
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 100; ++i) {
    labels.push_back(i % 2);
    for (int k = 0; k < 64; ++k)
      pixels.push_back(static_cast<std::uint8_t>(rng.below(128) + 64 * (i % 2)));
  }
  return ImageSet({1, 8, 8}, pixels, labels, {"dark", "bright"});
}

// [train]
void train(Ranks& ranks, const std::string& out, int bad_rank) {
  Rng rng(1);
  MlpNet net({.image = {1, 8, 8}, .hidden = {16}, .classes = 2}, rng);
  Adam adam(net.named_parameters(), {.lr = 3e-3});
  DataLoader loader(images(), {.batch_size = 20, .shuffle = true});
  RunFolder folder(out, {.resume = true, .config = {{"lr", "3e-3"}}, .ranks = &ranks});
  Run run(net, adam, loader, folder, {.epochs = 3, .shards = 4});
  while (run.next_epoch()) {
    for (const Batch& shard : run.batches(loader)) {
      Tensor loss = cross_entropy(net(shard.images).logits, shard.labels);
      if (ranks.rank() == bad_rank && run.steps() == 5)
        loss = loss * std::numeric_limits<double>::quiet_NaN();
      run.step(loss, shard.size());
    }
    run.end_epoch();
  }
  run.finish();
  if (ranks.rank() == 0) save_safetensors(folder.path() / "model.safetensors", net.state_dict());
}

}  // namespace

int main(int argc, char** argv) {
  const auto ranks = mpi_ranks({.timeout = 20});
  try {
    train(*ranks, argc > 1 ? argv[1] : "out/own_program", argc > 2 ? std::atoi(argv[2]) : -1);
    ranks->finish();
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: rank {}: {}\n", ranks->rank(), e.what());
    ranks->abort(1);
  }
  return 0;
}
// [train]
