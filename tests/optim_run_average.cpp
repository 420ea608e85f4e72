// Runs with a running average of the weights: what it holds, when the network has it, that it is
// part of a checkpoint.

#include <algorithm>
#include <cmath>

#include "optim_run.hpp"

using namespace run_test;

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
    Tensor operator()(const Tensor& images) {
      return norm(linear(reshape(images, {images.size(0), 16})));
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
    Bench<Normed> b({.batch_size = 5}, 0.1, 2);
    const Normed& net = b.net;
    Run run(b.net, b.adam, b.loader, b.out, {.epochs = 2, .average = 0.7, .quiet = true});
    auto expected = values_of(net), first = expected;
    int t = 0;
    while (run.next_epoch()) {
      for (const Batch& batch : run.batches(b.loader)) {
        run.step(b.loss(batch), batch.size());
        const auto now = values_of(net);
        const float d = std::min(0.7F, (1.0F + t) / (10.0F + t));
        ++t;
        for (std::size_t i = 0; i < now.size(); ++i)
          for (std::size_t k = 0; k < now[i].size(); ++k)
            expected[i][k] += (1 - d) * (now[i][k] - expected[i][k]);
      }
      const auto close = [&](const std::vector<std::vector<float>>& got) {
        double worst = 0;
        for (const auto& tensor : got)
          for (const float v : tensor)
            if (std::isnan(v)) return false;
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
