#pragma once
// A small run that can be stopped anywhere, for the tests of Run.

#include <cmath>
#include <limits>
#include <regex>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/run.hpp>

#include "apps_support.hpp"
#include "support.hpp"

namespace run_test {

using namespace capsfw;
using namespace apps_test;

/// With dropout: a network that draws random numbers as it learns.
class Net : public Module {
 public:
  explicit Net(Rng& rng) : first_(16, 8, rng), drop_(0.3, rng), last_(8, 3, rng) {
    child("first", first_);
    child("drop", drop_);
    child("last", last_);
  }
  Tensor operator()(const Tensor& images) {
    return last_(drop_(first_(reshape(images, {images.size(0), 16}))));
  }
  NamedTensors head() const { return last_.named_parameters(); }

 private:
  Linear first_;
  Dropout drop_;
  Linear last_;
};

inline ImageSet images() {
  Rng rng(3);
  std::vector<std::uint8_t> pixels(std::size_t{24} * 16);
  for (auto& p : pixels) p = static_cast<std::uint8_t>(rng.below(256));
  std::vector<std::int64_t> labels(24);
  for (auto& l : labels) l = rng.below(3);
  return ImageSet({1, 4, 4}, pixels, labels, {"a", "b", "c"});
}

/// Without anything random.
class LinearNet : public Linear {
 public:
  explicit LinearNet(Rng& rng) : Linear(16, 3, rng) {}

 protected:
  Tensor forward(const Tensor& images) override {
    return Linear::forward(reshape(images, {images.size(0), 16}));
  }
};

/// All that a Run takes, in a folder of its own.
template <class N>
struct Bench {
  Folder folder;
  Rng rng;
  N net;
  Adam adam;
  DataLoader loader;
  RunFolder out;

  explicit Bench(const LoaderOptions& batches = {.batch_size = 5},
                 double lr = 0.01,
                 std::uint64_t seed = 1)
      : rng(seed),
        net(rng),
        adam(net.named_parameters(), {.lr = lr}),
        loader(images(), batches),
        out(folder.path) {}

  Tensor loss(const Batch& batch) { return cross_entropy(net(batch.images), batch.labels); }
  /// Takes a step for every batch of an epoch.
  void epoch(Run& run) {
    for (const Batch& batch : run.batches(loader)) run.step(loss(batch), batch.size());
  }
  std::string log() const { return content(folder.path / "metrics.jsonl"); }
};

/// The log without what differs from run to run.
inline std::string log_of(const fs::path& out) {
  static const std::regex times(R"re("(images_per_second|seconds|peak_memory_mb)":[^,}]*)re");
  return std::regex_replace(content(out / "metrics.jsonl"), times, "");
}

struct Ended {
  std::vector<float> weights;
  std::string log;
  std::vector<double> curve;
  int best_epoch = 0;
  std::int64_t steps = 0;
};

struct Stop {};  // thrown where a process would be killed

struct Job {
  fs::path out;
  RunOptions options = {.epochs = 3, .clip = 1, .checkpoint_minutes = 0, .checkpoint_steps = 1};
  Metadata config = {{"lr", "0.01"}};
  int stop_at = -1;           // step in which it stops, before the update
  int bad_at = -1;            // step whose loss is NaN
  bool bad_gradient = false;  // its gradient instead
  bool resume = false;
  int keep = 2;
  double jump = 1;  // of the loss at bad_at, where that is not 1

  Ended run() const {
    Rng rng(1);
    Net net(rng);
    Adam adam(net.named_parameters(), {.lr = 0.01});
    DataLoader loader(images(), {.batch_size = 5, .shuffle = true, .max_shift = 1, .seed = 4});
    RunFolder folder(out, {.resume = resume, .config = config, .keep = keep});
    Rng noise(9);
    int bad_left = 1;
    RunOptions o = options;
    o.rate = cosine_decay(0.01, 15);
    Run run(net, adam, loader, folder, o);
    run.keep("noise", noise);
    while (run.next_epoch()) {
      for (const Batch& batch : run.batches(loader)) {
        if (run.steps() == stop_at) throw Stop();
        Tensor loss = cross_entropy(net(batch.images), batch.labels) + 0.01 * noise.normal();
        if (run.steps() == bad_at && (bad_left-- > 0 || o.on_nan == OnNan::skip_step))
          loss = bad_gradient
                     ? loss + sum(sqrt(0.0 * net.parameters()[0]))
                     : loss * (jump != 1 ? jump : std::numeric_limits<double>::quiet_NaN());
        run.step(loss, batch.size(), {{"one", 1.0}});
        if (run.steps() % 4 == 0) run.write("note", {{"at", run.steps()}});
      }
      const double score = static_cast<double>(run.epoch() == 2);
      run.averaged([&] { run.end_epoch({{"score", score}}, score); });
    }
    run.finish();
    Ended e{.weights = {},
            .log = log_of(out),
            .curve = run.curve("loss").value,
            .best_epoch = run.best_epoch(),
            .steps = run.steps()};
    for (const auto& [name, t] : net.state_dict())
      for (const float v : t.to_vector<float>()) e.weights.push_back(v);
    return e;
  }
};

inline bool same(const Ended& a, const Ended& b) {
  CHECK(a.log == b.log);
  CHECK(a.curve == b.curve);
  return a.weights == b.weights && a.best_epoch == b.best_epoch && a.steps == b.steps;
}

inline std::string error_of(const Job& job) {
  return capsfw::testing::message_of<Error>([&] { job.run(); });
}

}  // namespace run_test
