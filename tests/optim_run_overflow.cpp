// Runs in which a routing overflows, in its forward or in its backward pass.

#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/run.hpp>

#include "apps_support.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace apps_test;

namespace {

constexpr std::int64_t kI = 6, kJ = 3, kD = 4;

/// Votes grow so much in one step: squares of the first overflow, squares of squares of the second.
constexpr double kForward = 1e25, kBackward = 1e15;

ImageSet images() {
  Rng rng(3);
  std::vector<std::uint8_t> pixels(std::size_t{24} * 16);
  for (auto& p : pixels) p = static_cast<std::uint8_t>(rng.below(256));
  std::vector<std::int64_t> labels(24);
  for (auto& l : labels) l = rng.below(kJ);
  return ImageSet({1, 4, 4}, pixels, labels, {"a", "b", "c"});
}

struct Job {
  fs::path out;
  OnNan on_nan = OnNan::stop;
  double growth = 1;
  int stop_at = -1;
  bool resume = false;
  std::int64_t checkpoint_steps = 1;
  int shards = 0;

  struct Stop {};
  struct Ended {
    std::vector<float> weights;
    std::string log;
    std::int64_t steps = 0;
  };

  Ended run() const {
    Rng rng(1);
    Linear net(16, kI * kJ * kD, rng);
    Adam adam(net.named_parameters(), {.lr = 0.01});
    DataLoader loader(images(), {.batch_size = 6, .shuffle = true, .seed = 4});
    RunFolder folder(out, {.resume = resume});
    Run run(net, adam, loader, folder,
            {.epochs = 3,
             .quiet = true,
             .checkpoint_minutes = 0,
             .checkpoint_steps = checkpoint_steps,
             .on_nan = on_nan,
             .shards = shards});
    bool grown = false;
    while (run.next_epoch()) {
      for (const Batch& batch : run.batches(loader)) {
        if (run.steps() == stop_at) throw Stop();
        const bool bad = run.steps() == 7 && (!grown || on_nan == OnNan::skip_step);
        grown = grown || bad;
        run.attempt([&] {
          const Tensor flat = net(reshape(batch.images, {batch.size(), 16}));
          const Tensor votes = reshape(flat, {batch.size(), kI, kJ, kD}) * (bad ? growth : 1.0);
          const EmRouted routed = em_routing(votes, full({batch.size(), kI}, 0.5), zeros({kJ}),
                                             zeros({kJ}), lambda_schedule(3));
          run.step(cross_entropy(sum(routed.poses, {-1}), batch.labels), batch.size());
        });
      }
      run.end_epoch();
    }
    run.finish();
    Ended e{.weights = {}, .log = content(out / "metrics.jsonl"), .steps = run.steps()};
    for (const auto& [name, t] : net.state_dict())
      for (const float v : t.to_vector<float>()) e.weights.push_back(v);
    return e;
  }
};

std::string error_of(const Job& job) {
  return capsfw::testing::message_of<Error>([&] { job.run(); });
}

}  // namespace

TEST_CASE("run: an overflow in a routing stops, is left out, or sends the run back") {
  for (const double growth : {kForward, kBackward}) {
    CAPTURE(growth);
    const Folder folder;
    Job job{.out = folder.path / "a", .growth = growth};
    const std::string error = error_of(job);
    CHECK(contains(error, "training, step 7: em_routing: a "));
    CHECK(contains(error, growth == kForward ? "a result is not finite" : "a gradient is not fin"));
    CHECK(contains(error, "squares of f32 overflow above"));

    job.on_nan = OnNan::skip_step;
    const Job::Ended skipped = job.run();
    CHECK(skipped.steps == 12);
    CHECK(contains(skipped.log, "{\"event\":\"skip\",\"step\":7,\"loss\":"));
    // Resumed in front of the step that is left out, and behind it.
    for (const int at : {7, 9}) {
      Job again = job;
      again.out = folder.path / std::to_string(at);
      again.stop_at = at;
      CHECK_THROWS_AS(again.run(), Job::Stop);
      again.stop_at = -1;
      again.resume = true;
      const Job::Ended resumed = again.run();
      CHECK(resumed.weights == skipped.weights);
      CHECK(resumed.log == skipped.log);
    }

    job.on_nan = OnNan::rollback;
    job.checkpoint_steps = 4;
    const Job::Ended back = job.run();
    CHECK(back.steps == 12);
    CHECK(contains(back.log, "{\"event\":\"rollback\",\"step\":7,\"loss\":"));
    CHECK(contains(back.log, "\"back_to\":4,\"rate_factor\":0.5"));
    CHECK(back.weights != skipped.weights);
  }
}

TEST_CASE("run: an overflow in one shard of a batch is one of the step") {
  for (const double growth : {kForward, kBackward}) {
    CAPTURE(growth);
    const Folder folder;
    Job job{.out = folder.path / "a", .growth = growth, .shards = 2};
    const std::string error = error_of(job);
    CHECK(contains(error, "training, step 7: the loss of shard 0 is nan: em_routing: a "));
    CHECK(error.find("Hint: ") == error.rfind("Hint: "));

    job.on_nan = OnNan::skip_step;
    const Job::Ended skipped = job.run();
    CHECK(skipped.steps == 12);
    CHECK(contains(skipped.log, "{\"event\":\"skip\",\"step\":7,\"loss\":"));
    job.on_nan = OnNan::rollback;
    CHECK(contains(job.run().log, "\"back_to\":7,\"rate_factor\":0.5"));
  }
}
