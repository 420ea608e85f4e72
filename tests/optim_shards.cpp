// Training on shards: the same bits for every number of ranks, resumed or not, with batch norm,
// dropout, shifts and batches that do not fit.

#include <cmath>
#include <limits>
#include <regex>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/run.hpp>

#include "apps_support.hpp"
#include "optim_thread_ranks.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace apps_test;
using namespace optim_test;

namespace {

class Net : public Module {
 public:
  // No bias before the norm: its gradient is rounding noise, which Adam would make steps of.
  explicit Net(Rng& rng)
      : conv_(1, 2, 3, rng, {.bias = false}), norm_(2), drop_(0.3, rng), last_(8, 3, rng) {
    child("conv", conv_);
    child("norm", norm_);
    child("drop", drop_);
    child("last", last_);
  }
  Tensor operator()(const Tensor& x) {
    return last_(drop_(reshape(tanh(norm_(conv_(x))), {x.size(0), 8})));
  }

 private:
  Conv2d conv_;
  BatchNorm2d norm_;
  Dropout drop_;
  Linear last_;
};

ImageSet images(std::int64_t n) {
  Rng rng(3);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(n) * 16);
  for (auto& p : pixels) p = static_cast<std::uint8_t>(rng.below(256));
  std::vector<std::int64_t> labels(static_cast<std::size_t>(n));
  for (auto& l : labels) l = rng.below(3);
  return ImageSet({1, 4, 4}, pixels, labels, {"a", "b", "c"});
}

struct Stop {};

struct Job {
  std::int64_t shards = 4;
  int ranks = 1;
  int stop_at = -1, bad_at = -1, bad_rank = 0, drift_at = -1, batch_size = 5;
  bool bad_gradient = false;  // of a finite loss
  bool resume = false, penalty = false, by_hand = false;
  OnNan on_nan = OnNan::stop;
  double average = 0;

  struct Ended {
    std::vector<std::vector<double>> weights;  // by rank
    std::string log;
    std::vector<std::string> errors;
    std::vector<std::int64_t> steps;
  };

  void run_one(Ranks* world, const fs::path& out, Ended& ended) const {
    const int rank = world != nullptr ? world->rank() : 0;
    Rng rng(1 + static_cast<std::uint64_t>(rank));  // rank 0's weights count
    Net net(rng);
    Adam adam(net.named_parameters(), {.lr = 0.01});
    // 22 images: 4 batches of 5 and one of 2, which leaves shards empty.
    DataLoader loader(images(22), {.batch_size = batch_size,
                                   .shuffle = true,
                                   .max_shift = 1,
                                   .seed = 4,
                                   .prefetch = rank,
                                   .transform = [](Batch& b, Rng& r) {
                                     b.images = b.images + 0.01 * r.normal();
                                   }});
    RunFolder folder(out, {.resume = resume, .config = {{"lr", "0.01"}}, .ranks = world});
    Run run(net, adam, loader, folder,
            {.epochs = 3,
             .clip = 1,
             .average = average,
             .checkpoint_minutes = 0,
             .checkpoint_steps = 1,
             .on_nan = on_nan,
             .shards = shards});
    Rng noise(9);
    run.keep("noise", noise);
    while (run.next_epoch()) {
      for (const Batch& batch : run.batches(loader)) {
        if (run.steps() == stop_at) throw Stop();
        const Tensor x = batch.images.detach().requires_grad_();
        Tensor loss = cross_entropy(net(x), batch.labels) * (1 + 0.1 * noise.uniform());
        if (penalty) loss = loss + 0.1 * mean(square(grad(loss, x, {}, {.create_graph = true})));
        if (run.steps() == bad_at && rank == bad_rank)
          loss = bad_gradient ? loss + sum(sqrt(0.0 * net.parameters()[0]))
                              : loss * std::numeric_limits<double>::quiet_NaN();
        if (by_hand) {
          net.zero_grad();
          backward(loss);
          run.update(loss.item(), batch.size(), {{"one", 1.0}});
        } else {
          run.step(loss, batch.size(), {{"one", 1.0}});
        }
      }
      if (rank > 0 && drift_at == run.steps()) net.parameters()[0].fill_(0.5);
      const double score = static_cast<double>(run.epoch() == 2);
      run.averaged([&] { run.end_epoch({{"score", score}}, score); });
    }
    run.finish();
    ended.steps[static_cast<std::size_t>(rank)] = run.steps();
    for (const auto& [name, t] : net.state_dict())
      for (const double v : t.to_vector<double>())
        ended.weights[static_cast<std::size_t>(rank)].push_back(v);
  }

  Ended run(const fs::path& out) const {
    Ended e;
    e.weights.resize(static_cast<std::size_t>(ranks));
    e.steps.resize(static_cast<std::size_t>(ranks));
    if (ranks == 1) {
      e.errors.emplace_back();
      try {
        run_one(nullptr, out, e);
      } catch (const Stop&) {
      } catch (const std::exception& error) {
        e.errors[0] = error.what();
      }
    } else {
      e.errors = on_ranks(ranks, [&](ThreadRanks& r) {
        try {
          run_one(&r, out, e);
        } catch (const Stop&) {
        }
      });
    }
    static const std::regex times(R"re("(images_per_second|seconds|peak_memory_mb)":[^,}]*)re");
    e.log = std::regex_replace(content(out / "metrics.jsonl"), times, "");
    return e;
  }
};

void check_same(const Job::Ended& a, const Job::Ended& b) {
  CHECK(a.log == b.log);
  for (const auto& w : b.weights) CHECK(w == a.weights[0]);
  for (const std::string& e : b.errors) CHECK(e == "");
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double d = 0, n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    d += (a[i] - b[i]) * (a[i] - b[i]);
    n += a[i] * a[i];
  }
  return std::sqrt(d / n);
}

}  // namespace

TEST_CASE("shards: the same bits on 1, 2 and 4 ranks, losses and gradients by hand included") {
  for (const bool penalty : {false, true})
    for (const bool by_hand : {false, true}) {
      const Folder a, b, c;
      const Job job{.penalty = penalty, .by_hand = by_hand, .average = by_hand ? 0.9 : 0};
      Job two = job, four = job;
      two.ranks = 2;
      four.ranks = 4;
      const auto alone = job.run(a.path);
      CHECK(alone.errors[0] == "");
      CHECK(alone.steps[0] == 15);
      CHECK(!alone.weights[0].empty());
      check_same(alone, two.run(b.path));
      check_same(alone, four.run(c.path));
    }
}

TEST_CASE("shards: a run goes on with another number of ranks, bit for bit") {
  const Folder whole;
  const auto want = Job{.average = 0.9}.run(whole.path);
  for (const int first : {1, 2, 4})
    for (const int second : {1, 2, 4}) {
      if (testing::kSanitized && second != (first == 4 ? 1 : 2 * first)) continue;  // slow there
      const Folder f;
      Job{.ranks = first, .stop_at = 4 + first, .average = 0.9}.run(f.path);
      check_same(want, Job{.ranks = second, .resume = true, .average = 0.9}.run(f.path));
    }
}

TEST_CASE("shards: the fast mode differs in the order of sums alone") {
  const Folder a, b, c, d;
  // With two ranks there is only one order.
  check_same(Job{.shards = 2}.run(a.path), Job{.shards = 0, .ranks = 2}.run(b.path));
  const auto exact = Job{.shards = 4}.run(c.path), fast = Job{.shards = 0, .ranks = 4}.run(d.path);
  for (const auto& w : fast.weights) CHECK(w == fast.weights[0]);
  CHECK(distance(exact.weights[0], fast.weights[0]) < 1e-4);
  const Folder e;
  const auto three = Job{.shards = 0, .ranks = 3}.run(e.path);
  for (const std::string& error : three.errors) CHECK(error == "");
  for (const auto& w : three.weights) CHECK(w == three.weights[0]);
}

TEST_CASE("shards: in the fast mode ranks may have no samples in the first step, or a bad one") {
  const Folder a, b;
  const auto exact = Job{.shards = 4, .batch_size = 2}.run(a.path),
             fast = Job{.shards = 0, .ranks = 4, .batch_size = 2}.run(b.path);
  for (const std::string& error : fast.errors) CHECK(error == "");
  for (const auto& w : fast.weights) CHECK(w == fast.weights[0]);
  CHECK(distance(exact.weights[0], fast.weights[0]) < 1e-4);
  for (const int step : {0, 6})
    for (const bool gradient : {false, true}) {
      Job job{.shards = 0, .ranks = 4, .bad_at = step, .bad_rank = 1, .bad_gradient = gradient};
      const Folder c, d;
      const std::string want = "step " + std::to_string(step) +
                               (gradient ? ": the gradient of shard 1 is not finite, on rank 1"
                                         : ": the loss of shard 1 is nan, on rank 1");
      for (const std::string& error : job.run(c.path).errors)
        CHECK(error.find(want) != std::string::npos);
      job.on_nan = OnNan::skip_step;
      const auto skipped = job.run(d.path);
      for (const std::string& error : skipped.errors) CHECK(error == "");
      for (const auto& w : skipped.weights) CHECK(w == skipped.weights[0]);
    }
}

TEST_CASE("shards: a gradient that is not finite is refused, and says whose it is") {
  const Folder a, b;
  Job job{.ranks = 2, .bad_at = 6, .bad_rank = 1, .bad_gradient = true};
  for (const std::string& error : job.run(a.path).errors)
    CHECK(error.find("step 6: the gradient of shard 2 is not finite, on rank 1") !=
          std::string::npos);
  job.on_nan = OnNan::skip_step;
  const auto skipped = job.run(b.path);
  for (const std::string& error : skipped.errors) CHECK(error == "");
  CHECK(skipped.weights[0] == skipped.weights[1]);
  REQUIRE(!skipped.weights[0].empty());
  CHECK(skipped.log.find("\"event\":\"skip\",\"step\":6") != std::string::npos);
  for (const double w : skipped.weights[0]) CHECK(std::isfinite(w));
}

TEST_CASE("shards: a buffer that some of them leave alone counts as it was in these") {
  Rng rng(5);
  BatchNorm2d norm(1);
  Linear last(16, 3, rng);
  class Both : public Module {
   public:
    Both(BatchNorm2d& a, Linear& b) {
      child("a", a);
      child("b", b);
    }
  } net(norm, last);
  Adam adam(net.named_parameters());
  DataLoader loader(images(8), {.batch_size = 8});
  const Folder out;
  RunFolder folder(out.path);
  Run run(net, adam, loader, folder, {.epochs = 1, .quiet = true, .shards = 2});
  REQUIRE(run.next_epoch());
  int shard = 0;
  Tensor alone = norm.named_buffers()[1].second;  // running variance: 1 at first
  REQUIRE(alone.to_vector<double>()[0] == 1);
  double seen = 0;
  for (const Batch& batch : run.batches(loader)) {
    const Tensor x = shard++ == 0 ? norm(batch.images) : batch.images;
    if (shard == 1) seen = alone.to_vector<double>()[0];
    run.step(cross_entropy(last(reshape(x, {batch.size(), 16})), batch.labels), batch.size());
  }
  CHECK(seen < 1);
  CHECK(alone.to_vector<double>()[0] == doctest::Approx((seen + 1) / 2).epsilon(1e-6));
}

TEST_CASE("shards: a loss that is not finite names the rank, or is skipped by all") {
  const Folder a, b, c;
  for (const std::string& error : Job{.ranks = 2, .bad_at = 6, .bad_rank = 1}.run(a.path).errors) {
    CHECK(error.find("training, step 6: the loss of shard 2 is") != std::string::npos);
    CHECK(error.find("on rank 1") != std::string::npos);
  }
  Job skip{.ranks = 2, .bad_at = 6, .bad_rank = 1, .on_nan = OnNan::skip_step};
  const auto skipped = skip.run(b.path);
  for (const std::string& error : skipped.errors) CHECK(error == "");
  CHECK(skipped.weights[0] == skipped.weights[1]);
  CHECK(skipped.log.find("\"event\":\"skip\",\"step\":6") != std::string::npos);
}

TEST_CASE("shards: copies that drift apart are noticed at the end of the epoch") {
  const Folder a;
  for (const double average : {0.0, 0.9}) {
    for (const std::string& error :
         Job{.ranks = 2, .drift_at = 10, .average = average}.run(a.path).errors) {
      CHECK(error.find("ranks differ: the sum over all weights behind step 10 is") !=
            std::string::npos);
      CHECK(error.find("on rank 1") != std::string::npos);
    }
  }
}

TEST_CASE("shards: numbers that do not fit are refused") {
  const Folder a, b, c;
  CHECK(Job{.shards = 3}.run(a.path).errors[0] ==
        "Run: shards must be a power of two, or 0; got 3");
  for (const std::string& error : Job{.shards = 4, .ranks = 3}.run(b.path).errors)
    CHECK(error.find("must divide shards; got 4 shards and 3 ranks") != std::string::npos);
}

TEST_CASE("shards: a rank that stops is named by the others") {
  const Folder a;
  // Its thread ends without a word; the others wait for it in vain.
  const auto errors = on_ranks(2, [&](ThreadRanks& ranks) {
    if (ranks.rank() == 1) return;
    float x = 0;
    tree_sum(ranks, &x, 1);
  });
  CHECK(errors[0] == "rank 1 does not answer");
}

TEST_CASE("shards: the loaders give every sample once, and the share of a rank only") {
  const ImageSet set = images(22);
  std::vector<int> seen(22);
  DataLoader whole(set, {.batch_size = 5, .shuffle = true, .max_shift = 1, .seed = 4});
  std::vector<DataLoader> parts;
  for (std::int64_t r = 0; r < 2; ++r) {
    parts.emplace_back(set,
                       LoaderOptions{.batch_size = 5, .shuffle = true, .max_shift = 1, .seed = 4});
    parts.back().shard({.count = 4, .begin = 2 * r, .end = 2 * r + 2});
  }
  Batch batch;
  while (whole.next(batch)) {
    std::vector<float> joined;
    for (DataLoader& part : parts) {
      std::vector<Batch> shards;
      CHECK(part.next(shards));
      CHECK(part.drawn() == batch.size());
      for (const Batch& s : shards) {
        CHECK(s.size() > 0);
        const auto v = s.images.to_vector<float>();
        joined.insert(joined.end(), v.begin(), v.end());
      }
    }
    CHECK(joined == batch.images.to_vector<float>());
  }
  std::vector<Batch> none;
  CHECK_FALSE(parts[0].next(none));
  CHECK_THROWS_WITH(parts[0].next(batch),
                    "DataLoader::next: its batches are cut into shards. Hint: "
                    "next(std::vector<Batch>&)");

  EncodedText text;
  for (std::int64_t i = 0; i < 11; ++i) {
    text.ids.emplace_back(static_cast<std::size_t>(1 + i % 4), i);
    text.labels.push_back(i);
  }
  std::vector<int> times(11);
  for (std::int64_t r = 0; r < 4; ++r) {
    TextLoader loader(text, {.batch_size = 4, .shuffle = true});
    loader.shard({.count = 4, .begin = r, .end = r + 1});
    std::vector<TextBatch> shards;
    while (loader.next(shards))
      for (const TextBatch& s : shards)
        for (const auto label : s.labels.to_vector<std::int64_t>())
          ++times[static_cast<std::size_t>(label)];
  }
  CHECK(times == std::vector<int>(11, 1));
}
