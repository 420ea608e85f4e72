// Runs: stopped anywhere and resumed they end with the same bits; bad numbers; best weights.

#include <cmath>
#include <limits>
#include <regex>

#include <doctest/doctest.h>

#include <capsfw/core/error.hpp>
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

using namespace capsfw;
using namespace apps_test;

namespace {

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

ImageSet images() {
  Rng rng(3);
  std::vector<std::uint8_t> pixels(std::size_t{24} * 16);
  for (auto& p : pixels) p = static_cast<std::uint8_t>(rng.below(256));
  std::vector<std::int64_t> labels(24);
  for (auto& l : labels) l = rng.below(3);
  return ImageSet({1, 4, 4}, pixels, labels, {"a", "b", "c"});
}

/// The log without what differs from run to run.
std::string log_of(const fs::path& out) {
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

bool same(const Ended& a, const Ended& b) {
  CHECK(a.log == b.log);
  CHECK(a.curve == b.curve);
  return a.weights == b.weights && a.best_epoch == b.best_epoch && a.steps == b.steps;
}

std::string error_of(const Job& job) {
  return capsfw::testing::message_of<Error>([&] { job.run(); });
}

}  // namespace

TEST_CASE("run: stopped in any step and resumed, it ends with the same bits and the same log") {
  const Folder folder;
  const Ended whole = Job{.out = folder.path / "whole"}.run();
  CHECK(whole.steps == 15);
  CHECK(whole.best_epoch == 2);
  CHECK(lines(whole.log).size() == 15 + 3 + 3);
  CHECK(contains(whole.log, "\"grad_norm\":"));
  for (const std::int64_t every : {1, 4})
    for (const int at : {0, 1, 4, 5, 6, 10, 14}) {
      Job job{.out = folder.path / "stopped"};
      job.options.checkpoint_steps = every;
      fs::remove_all(job.out);
      job.stop_at = at;
      CHECK_THROWS_AS(job.run(), Stop);
      job.resume = true;
      CHECK_THROWS_AS(job.run(), Stop);  // twice in the same step
      job.stop_at = -1;
      CHECK(same(whole, job.run()));
      CHECK(same(whole, job.run()));  // what is finished stays as it is
    }
}

TEST_CASE("run: with averages, too, a run that was stopped ends with the same bits") {
  const Folder folder;
  const RunOptions options{
      .epochs = 3, .clip = 1, .average = 0.8, .checkpoint_minutes = 0, .checkpoint_steps = 4};
  const Ended whole = Job{.out = folder.path / "whole", .options = options}.run();
  CHECK(whole.weights != Job{.out = folder.path / "plain"}.run().weights);
  for (const int at : {1, 4, 6, 14}) {
    Job job{.out = folder.path / "stopped", .options = options};
    fs::remove_all(job.out);
    job.stop_at = at;
    CHECK_THROWS_AS(job.run(), Stop);
    job.stop_at = -1;
    job.resume = true;
    CHECK(same(whole, job.run()));
  }
  // A run goes back to the averages of its checkpoint, too: it ends as one from there on.
  Job bad{.out = folder.path / "bad", .options = options, .bad_at = 6};
  bad.options.on_nan = OnNan::rollback;
  const auto once = bad.run().weights;
  CHECK(once != whole.weights);  // half the rate
  bad.out = folder.path / "again";
  CHECK(once == bad.run().weights);
}

TEST_CASE("run: averages of weights and running statistics are evaluated and kept") {
  class Normed : public Module {
   public:
    explicit Normed(Rng& rng) : linear(16, 3, rng), norm(3) {
      child("linear", linear);
      child("norm", norm);
    }
    Linear linear;
    BatchNorm2d norm;
  };
  const auto values_of = [](const Normed& net) {
    std::vector<std::vector<float>> all;
    for (const auto& [name, t] : net.state_dict()) all.push_back(t.to_vector<float>());
    return all;
  };
  for (const bool scored : {false, true}) {
    CAPTURE(scored);
    const Folder folder;
    Rng rng(2);
    Normed net(rng);
    Adam adam(net.named_parameters(), {.lr = 0.1});
    DataLoader loader(images(), {.batch_size = 5});
    RunFolder out(folder.path);
    Run run(net, adam, loader, out, {.epochs = 2, .average = 0.7, .quiet = true});
    auto expected = values_of(net), first = expected;
    int t = 0;
    while (run.next_epoch()) {
      for (const Batch& batch : run.batches(loader)) {
        run.step(cross_entropy(net.norm(net.linear(reshape(batch.images, {batch.size(), 16}))),
                               batch.labels),
                 batch.size());
        const auto now = values_of(net);
        const float d = std::min(0.7F, (1.0F + t) / (10.0F + t));
        ++t;
        for (std::size_t i = 0; i < now.size(); ++i)
          for (std::size_t k = 0; k < now[i].size(); ++k)
            expected[i][k] += (1 - d) * (now[i][k] - expected[i][k]);
      }
      const auto close = [&](const std::vector<std::vector<float>>& got) {
        double worst = 0;
        for (std::size_t i = 0; i < got.size(); ++i)
          for (std::size_t k = 0; k < got[i].size(); ++k)
            worst = std::max(worst, std::abs(double{got[i][k]} - double{expected[i][k]}));
        return worst < 1e-5;
      };
      const auto last = values_of(net);
      CHECK(!close(last));
      run.averaged([&] {
        CHECK(close(values_of(net)));
        run.averaged([&] { CHECK(close(values_of(net))); });
        if (scored) run.end_epoch({}, run.epoch() == 1 ? 1.0 : 0.0);
        if (scored && run.epoch() == 1) first = values_of(net);
      });
      CHECK(values_of(net) == last);
      CHECK_THROWS_AS(run.averaged([] { throw Stop(); }), Stop);
      CHECK(values_of(net) == last);
      if (!scored) run.end_epoch();
      if (run.epoch() == 2) {
        run.finish();
        CHECK((scored ? values_of(net) == first : close(values_of(net))));
        const auto end = values_of(net);
        run.finish();
        CHECK(values_of(net) == end);
      }
    }
  }
}

TEST_CASE("run: checkpoints hold no more than the last ones, none if so wished") {
  const Folder folder;
  Job job{.out = folder.path / "a"};
  job.run();
  CHECK(CheckpointFolder(job.out / "checkpoints").files().size() == 2);
  job.out = folder.path / "b";
  job.keep = 0;
  job.run();
  CHECK_FALSE(fs::exists(job.out / "checkpoints"));
}

TEST_CASE("run: what it began with must be what it goes on with, another run keeps out") {
  const Folder folder;
  Job job{.out = folder.path};
  const Ended whole = job.run();
  job.resume = true;
  job.config["lr"] = "0.02";
  CHECK(contains(error_of(job), "resume: lr is '0.02' now and was '0.01'"));
  job.config = {{"lr", "0.01"}, {"new", "1"}};
  CHECK(contains(error_of(job), "resume: new is '1' now and was ''"));
  job.config = {};
  CHECK(contains(error_of(job), "resume: lr is '' now and was '0.01'"));
  CHECK(log_of(job.out) == whole.log);

  const Metadata config{{"epochs", "3"}, {"name", "x"}};
  const fs::path out = folder.path / "grow";
  { RunFolder(out, {.config = config}).save(1, {}); }
  const auto open = [&](const std::string& epochs, const std::string& name) {
    RunFolder(out, {.resume = true,
                    .config = {{"epochs", epochs}, {"name", name}},
                    .may_change = {"name"},
                    .may_grow = {"epochs"}});
  };
  open("3", "y");
  open("4", "x");
  CHECK_THROWS_AS(open("2", "x"), ValueError);

  const auto leave = [&] {
    std::ofstream(folder.path / "one" / ".capsfw-1-0.tmp") << "half a page";
  };
  fs::create_directory(folder.path / "one");
  leave();
  RunFolder first(folder.path / "one");
  CHECK_FALSE(fs::exists(folder.path / "one" / ".capsfw-1-0.tmp"));
  leave();
  CHECK_THROWS_AS(RunFolder(folder.path / "one"), IoError);
  CHECK(fs::exists(folder.path / "one" / ".capsfw-1-0.tmp"));  // it may be of the one that runs
}

TEST_CASE("run: a finished part gives its results and its lines") {
  const Folder folder;
  StateDict results;
  results.set("x", from_vector<double>({0.1, 0.2}));
  {
    RunFolder f(folder.path);
    CHECK_FALSE(f.begin("a").has_value());
    f.write({{"n", 1}});
    f.save(5, results);
    f.write({{"n", 2}});
    f.finish("a", results);
    f.begin("b");
    f.write({{"n", 3}});
  }
  RunFolder f(folder.path, {.resume = true});
  CHECK(f.resumed());
  const auto known = f.results("a");
  REQUIRE(known.has_value());
  CHECK(known->at("x").to_vector<double>() == std::vector<double>{0.1, 0.2});
  CHECK_FALSE(f.results("b").has_value());
  CHECK_FALSE(f.begin("b").has_value());
  CHECK(content(folder.path / "metrics.jsonl") == "{\"n\":1}\n{\"n\":2}\n");
}

TEST_CASE("run: NaN stops, is left out, or sends the run back with half the rate") {
  const Folder folder;
  Job job{.out = folder.path};
  job.bad_at = 7;
  CHECK(contains(error_of(job), "training, step 7: the loss is nan"));

  job.bad_gradient = true;
  CHECK(contains(error_of(job), "training, step 7: the norm of the gradient is nan"));
  job.bad_gradient = false;

  job.options.on_nan = OnNan::skip_step;
  const Ended skipped = job.run();
  CHECK(skipped.steps == 15);
  CHECK(contains(skipped.log, "{\"event\":\"skip\",\"step\":7,\"loss\":null"));
  for (const float w : skipped.weights) CHECK(std::isfinite(w));
  // Resumed behind the step that was left out.
  Job again = job;
  again.out = folder.path / "again";
  again.stop_at = 9;
  CHECK_THROWS_AS(again.run(), Stop);
  again.stop_at = -1;
  again.resume = true;
  CHECK(same(skipped, again.run()));

  job.options.on_nan = OnNan::rollback;
  job.options.checkpoint_steps = 4;
  const Ended back = job.run();
  CHECK(back.steps == 15);
  CHECK(contains(back.log,
                 "\"event\":\"rollback\",\"step\":7,\"loss\":null,\"grad_norm\":null,"
                 "\"back_to\":4,\"rate_factor\":0.5"));
  const Ended whole = Job{.out = folder.path / "whole"}.run();
  CHECK(back.weights != whole.weights);
  for (const float w : back.weights) CHECK(std::isfinite(w));
}

TEST_CASE(
    "run: gradients of parameters that the optimizer has not are forgotten, and not clipped") {
  const auto trained = [](bool frozen) {
    const Folder folder;
    Rng rng(1);
    Net net(rng);
    if (frozen) net.requires_grad_(false);
    for (auto& [name, p] : net.head()) p.requires_grad_();
    Adam adam(net.head(), {.lr = 0.01});
    DataLoader loader(images(), {.batch_size = 5});
    RunFolder out(folder.path);
    Run run(net, adam, loader, out, {.epochs = 2, .clip = 0.1});
    while (run.next_epoch()) {
      for (const Batch& batch : run.batches(loader))
        run.step(cross_entropy(net(batch.images), batch.labels), batch.size());
      run.end_epoch();
    }
    std::vector<float> weights;
    for (const Tensor& p : net.parameters())
      for (const float v : p.to_vector<float>()) weights.push_back(v);
    return weights;
  };
  CHECK(trained(false) == trained(true));
}

TEST_CASE("run: a score that is NaN is never the best one") {
  const Folder folder;
  Rng rng(1);
  Net net(rng);
  Adam adam(net.named_parameters(), {.lr = 0.01});
  DataLoader loader(images(), {.batch_size = 5});
  RunFolder out(folder.path);
  Run run(net, adam, loader, out, {.epochs = 3});
  while (run.next_epoch()) {
    for (const Batch& batch : run.batches(loader))
      run.step(cross_entropy(net(batch.images), batch.labels), batch.size());
    run.end_epoch({}, run.epoch() == 2 ? 0.5 : std::numeric_limits<double>::quiet_NaN());
  }
  run.finish();
  CHECK(run.best_epoch() == 2);
  CHECK(run.best_score() == 0.5);
}

TEST_CASE(
    "run: a run that cannot be saved by rollbacks stops after five, jumps count if asked for") {
  const Folder folder;
  Rng rng(1);
  Linear net(16, 3, rng);
  Adam adam(net.named_parameters(), {.lr = 0.01});
  DataLoader loader(images(), {.batch_size = 5});
  {
    RunFolder out(folder.path);
    Run run(net, adam, loader, out, {.on_nan = OnNan::rollback});
    int calls = 0;
    const auto go = [&] {
      while (run.next_epoch())
        for (const Batch& batch : run.batches(loader)) {
          ++calls;
          const Tensor x = reshape(batch.images, {batch.size(), 16});
          // A finite loss whose gradient is not.
          const Tensor loss = sum(sqrt(net(x) * 0.0));
          run.step(loss, batch.size());
        }
    };
    CHECK_THROWS_AS(go(), ValueError);
    CHECK(calls == 6);
  }
  RunFolder out(folder.path / "spike");
  loader.start_epoch(0);
  Run run(net, adam, loader, out, {.epochs = 10, .on_nan = OnNan::skip_step, .spike = 3});
  int refused = 0;
  while (run.next_epoch())
    for (const Batch& batch : run.batches(loader)) {
      const Tensor x = reshape(batch.images, {batch.size(), 16});
      const Tensor loss = cross_entropy(net(x), batch.labels);
      refused += !run.step(run.steps() == 30 ? loss * 100.0 : loss, batch.size());
    }
  CHECK(refused == 1);
  CHECK(
      contains(content(folder.path / "spike" / "metrics.jsonl"), "\"event\":\"skip\",\"step\":30"));
}

TEST_CASE("run: the time of an epoch is that of the images it draws, a left-out batch aside") {
  for (const bool drop_last : {true, false}) {
    const Folder folder;
    Rng rng(1);
    Net net(rng);
    Adam adam(net.named_parameters());
    DataLoader loader(images(), {.batch_size = 10, .drop_last = drop_last});  // 20 of 24
    RunFolder out(folder.path);
    Run run(net, adam, loader, out);
    REQUIRE(run.next_epoch());
    for (const Batch& batch : run.batches(loader))
      run.step(cross_entropy(net(batch.images), batch.labels), batch.size());
    run.end_epoch();
    const std::string log = content(folder.path / "metrics.jsonl"), name = "\"seconds\":";
    const double seconds = std::stod(log.substr(log.rfind(name) + name.size()));
    CHECK(run.seconds_per_epoch() / seconds == doctest::Approx(1).epsilon(1e-3));
  }
}

TEST_CASE("run: check_numbers names the op of the first number that is none") {
  const Folder folder;
  Rng rng(1);
  Linear net(16, 3, rng);
  Adam adam(net.named_parameters(), {.lr = 0.01});
  DataLoader loader(images(), {.batch_size = 5});
  RunFolder out(folder.path);
  Run run(net, adam, loader, out, {.check_numbers = true});
  const Tensor zero = zeros({2}).requires_grad_();
  CHECK_THROWS_AS(backward(sum(sqrt(zero))), GradError);
}

TEST_CASE("run: options out of range, and a loader in the middle of an epoch, are errors") {
  const Folder folder;
  Rng rng(1);
  Linear net(16, 3, rng);
  Adam adam(net.named_parameters(), {.lr = 0.01});
  DataLoader loader(images(), {.batch_size = 5});
  RunFolder out(folder.path);
  for (const RunOptions& bad :
       {RunOptions{.epochs = 0}, RunOptions{.steps = -1}, RunOptions{.minutes = -1},
        RunOptions{.clip = -1}, RunOptions{.average = -0.1}, RunOptions{.average = 1},
        RunOptions{.average = std::nan("")}, RunOptions{.spike = 0.5}})
    CHECK_THROWS_AS(Run(net, adam, loader, out, bad), ValueError);
  Batch first;
  loader.next(first);
  Run run(net, adam, loader, out, {.epochs = 1});
  run.next_epoch();
  const auto read = [&] {
    for (const Batch& batch : run.batches(loader)) run.update(1.0, batch.size());
  };
  CHECK_THROWS_AS(read(), ValueError);
}
