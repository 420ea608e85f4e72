// Runs: stopped anywhere and resumed they end with the same bits; bad numbers; best weights.

#include <capsfw/core/error.hpp>

#include "optim_run.hpp"

using namespace run_test;

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
  Bench<Net> b;
  Run run(b.net, b.adam, b.loader, b.out, {.epochs = 3});
  while (run.next_epoch()) {
    b.epoch(run);
    run.end_epoch({}, run.epoch() == 2 ? 0.5 : std::numeric_limits<double>::quiet_NaN());
  }
  run.finish();
  CHECK(run.best_epoch() == 2);
  CHECK(run.best_score() == 0.5);
}

TEST_CASE("run: a run that goes back needs checkpoints to go back to") {
  const Folder folder;
  CHECK(error_of({.out = folder.path, .options = {.on_nan = OnNan::rollback}, .keep = 0}) ==
        "Run: OnNan::rollback goes back to a checkpoint, and the folder keeps none (keep = 0)");
}

TEST_CASE(
    "run: a run that cannot be saved by rollbacks stops after five, jumps count if asked for") {
  {
    Bench<LinearNet> b;
    Run run(b.net, b.adam, b.loader, b.out, {.on_nan = OnNan::rollback});
    int calls = 0;
    const auto go = [&] {
      while (run.next_epoch())
        for (const Batch& batch : run.batches(b.loader)) {
          ++calls;
          // A finite loss whose gradient is not.
          run.step(sum(sqrt(b.net(batch.images) * 0.0)), batch.size());
        }
    };
    CHECK_THROWS_AS(go(), ValueError);
    CHECK(calls == 6);
  }
  Bench<LinearNet> b;
  Run run(b.net, b.adam, b.loader, b.out, {.epochs = 10, .on_nan = OnNan::skip_step, .spike = 3});
  int refused = 0;
  while (run.next_epoch())
    for (const Batch& batch : run.batches(b.loader)) {
      const Tensor loss = b.loss(batch);
      refused += !run.step(run.steps() == 30 ? loss * 100.0 : loss, batch.size());
    }
  CHECK(refused == 1);
  CHECK(contains(b.log(), "\"event\":\"skip\",\"step\":30"));
}

TEST_CASE("run: the time of an epoch is that of the images it draws, a left-out batch aside") {
  for (const bool drop_last : {true, false}) {
    Bench<Net> b({.batch_size = 10, .drop_last = drop_last});  // 20 of 24
    Run run(b.net, b.adam, b.loader, b.out);
    REQUIRE(run.next_epoch());
    b.epoch(run);
    run.end_epoch();
    const std::string log = b.log(), name = "\"seconds\":";
    const double seconds = std::stod(log.substr(log.rfind(name) + name.size()));
    CHECK(run.seconds_per_epoch() / seconds == doctest::Approx(1).epsilon(1e-3));
  }
}

TEST_CASE("run: of epochs with the same score the later or the earlier one is the best") {
  for (const bool later : {false, true}) {
    Bench<LinearNet> b({.batch_size = 12});
    Run run(b.net, b.adam, b.loader, b.out, {.epochs = 3, .later_wins = later, .quiet = true});
    std::vector<std::vector<float>> weights;
    while (run.next_epoch()) {
      b.epoch(run);
      weights.push_back(b.net.weight.to_vector<float>());
      run.end_epoch({}, run.epoch() < 3 ? 1.0 : 0.5);
    }
    run.finish();
    CHECK(run.best_epoch() == (later ? 2 : 1));
    CHECK(b.net.weight.to_vector<float>() == weights[later ? 1 : 0]);
  }
}

TEST_CASE("run: after its minutes it ends by itself, behind a last checkpoint") {
  Bench<LinearNet> b({.batch_size = 12});
  Run run(b.net, b.adam, b.loader, b.out, {.epochs = 100'000'000, .minutes = 1e-3, .quiet = true});
  while (run.next_epoch()) {
    for (const Batch& batch : run.batches(b.loader)) {
      run.update(1.0, batch.size());
    }
    run.end_epoch();
  }
  run.finish();
  CHECK(run.steps() >= 1);
  CHECK(run.seconds() >= 0.06);
  CHECK(CheckpointFolder(b.folder.path / "checkpoints").files().size() == 1);
}

TEST_CASE("run: check_numbers names the op of the first number that is none") {
  Bench<LinearNet> b;
  const Tensor zero = zeros({2}).requires_grad_();
  {
    Run run(b.net, b.adam, b.loader, b.out, {.check_numbers = true});
    CHECK(capsfw::testing::contains(
        capsfw::testing::message_of<GradError>([&] { backward(sum(sqrt(zero))); }), "sqrt"));
  }
  backward(sum(sqrt(zero)));  // for as long as the Run lives
}

TEST_CASE("run: options out of range, and a loader in the middle of an epoch, are errors") {
  Bench<LinearNet> b;
  for (const RunOptions& bad :
       {RunOptions{.epochs = 0}, RunOptions{.steps = -1}, RunOptions{.minutes = -1},
        RunOptions{.clip = -1}, RunOptions{.average = -0.1}, RunOptions{.average = 1},
        RunOptions{.average = std::nan("")}, RunOptions{.spike = 0.5}})
    CHECK_THROWS_AS(Run(b.net, b.adam, b.loader, b.out, bad), ValueError);
  Batch first;
  b.loader.next(first);
  Run run(b.net, b.adam, b.loader, b.out, {.epochs = 1});
  run.next_epoch();
  const auto read = [&] {
    for (const Batch& batch : run.batches(b.loader)) run.update(1.0, batch.size());
  };
  CHECK_THROWS_AS(read(), ValueError);
}
