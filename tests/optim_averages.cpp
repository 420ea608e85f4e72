// Averages of weights, and when to stop.

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/optim/early_stopping.hpp>
#include <capsfw/optim/ema.hpp>
#include <capsfw/optim/sgd.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

Tensor leaf(const std::vector<double>& v) { return from_vector(v).requires_grad_(); }

/// Moves `p` as a training would, at step t.
void move(Tensor p, int t) {
  Rng rng(100, static_cast<std::uint64_t>(t));
  p.copy_(rng.normal(p.shape(), 0, 1, p.dtype()));
}

}  // namespace

TEST_CASE("EMA: the average of the formula, started at the first values") {
  Tensor w = leaf({1, -2});
  EMA average({w}, {.decay = 0.75});
  w.copy_(from_vector<double>({2, 0}));
  average.update();
  w.copy_(from_vector<double>({-1, 4}));
  average.update();
  CHECK(average.updates() == 2);
  average.apply();
  // 0.75 (0.75 · 1 + 0.25 · 2) − 0.25, and 0.75 (0.75 · −2) + 0.25 · 4.
  CHECK(values(w)[0] == doctest::Approx(0.6875));
  CHECK(values(w)[1] == doctest::Approx(-0.125));
  average.restore();
  CHECK(values(w) == std::vector<double>{-1, 4});
  // Without memory it is the last value.
  EMA last({w}, {.decay = 0});
  move(w, 1);
  last.update();
  CHECK(max_difference(last.state_dict().at("averages.0"), w) < 1e-15);
}

TEST_CASE("EMA: warm-up forgets the start sooner") {
  Tensor w = leaf({1});
  EMA average({{"w", w}}, {.decay = 0.15, .warm_up = true});
  w.fill_(0);
  average.update();  // d = 1 / 10
  CHECK(values(average.state_dict().at("averages.w"))[0] == doctest::Approx(0.1));
  average.update();  // d = 0.15 < 2 / 11
  CHECK(values(average.state_dict().at("averages.w"))[0] == doctest::Approx(0.015));
}

TEST_CASE("EMA: apply and restore keep every bit, and the parameters stay trainable leaves") {
  Rng rng(3);
  Tensor w = rng.normal({1000}, 0, 1).requires_grad_();
  EMA average({w}, {.decay = 0.9});
  move(w, 1);
  average.update();
  const std::string before = bytes_of(w);
  const auto version = w.version();
  average.apply();
  CHECK(average.applied());
  CHECK(bytes_of(w) != before);
  CHECK(bytes_of(w) == bytes_of(average.state_dict().at("averages.0")));
  CHECK(w.version() > version);
  CHECK(w.requires_grad());
  CHECK(w.is_leaf());
  CHECK(message_of<ValueError>([&] { average.update(); }) ==
        "EMA::update: the parameters hold the averages. Hint: restore() first");
  CHECK_THROWS_AS(average.apply(), ValueError);
  CHECK_THROWS_AS(average.load_state_dict(average.state_dict()), ValueError);
  average.restore();
  CHECK(bytes_of(w) == before);
  CHECK_THROWS_AS(average.restore(), ValueError);
}

TEST_CASE("EMA continues from its state bit for bit, with any number of threads") {
  const auto run = [](int threads, bool interrupted) {
    const Threads guard(threads);
    Tensor w = zeros({3, 20000}).requires_grad_(), v = zeros({5}, DType::f64);
    auto average = std::make_unique<EMA>(ParamList{{"w", w}, {"v", v}},
                                         EMAOptions{.decay = 0.95, .warm_up = true});
    for (int t = 0; t < 6; ++t) {
      if (interrupted && t == 3) {
        const StateDict state = average->state_dict();
        average = std::make_unique<EMA>(ParamList{{"w", w}, {"v", v}},
                                        EMAOptions{.decay = 0.95, .warm_up = true});
        average->load_state_dict(state);
      }
      move(w, t);
      move(v, t + 50);
      average->update();
    }
    const StateDict end = average->state_dict();
    return bytes_of(end.at("averages.w")) + bytes_of(end.at("averages.v")) +
           bytes_of(end.at("updates"));
  };
  const std::string once = run(1, false);
  CHECK(run(3, false) == once);
  CHECK(run(2, true) == once);
}

TEST_CASE("EMA: a state is a copy, and one that does not fit changes nothing") {
  Tensor w = leaf({1, 2});
  EMA average({{"w", w}}, {.decay = 0.5});
  const StateDict state = average.state_dict();
  w.fill_(9);
  average.update();
  CHECK(values(state.at("averages.w")) == std::vector<double>{1, 2});
  const std::string now = bytes_of(average.state_dict().at("averages.w"));
  const auto with = [&](const std::string& name, const Tensor& value) {
    StateDict s = state;
    s.set(name, value);
    return s;
  };
  CHECK(message_of<ValueError>([&] { average.load_state_dict({}); }) ==
        "EMA::load_state_dict: needs an entry 'updates'; got 0 entries without it. Hint: the "
        "parameters and options must be those that were saved");
  CHECK_THROWS_AS(average.load_state_dict(with("averages.w", ones({3}, DType::f64))), ShapeError);
  CHECK_THROWS_AS(average.load_state_dict(with("averages.w", ones({2}))), DTypeError);
  CHECK_THROWS_AS(average.load_state_dict(with("averages.w", {})), ShapeError);
  CHECK_THROWS_AS(average.load_state_dict(with("averages.v", ones({2}))), ValueError);
  CHECK_THROWS_AS(average.load_state_dict(with("updates", full({}, -1, DType::i64))), ValueError);
  CHECK_THROWS_AS(average.load_state_dict(with("updates", scalar(1))), DTypeError);
  CHECK(bytes_of(average.state_dict().at("averages.w")) == now);
  average.load_state_dict(state);
  CHECK(values(average.state_dict().at("averages.w")) == std::vector<double>{1, 2});
}

TEST_CASE("EMA refuses what it cannot average") {
  Tensor w = leaf({1});
  CHECK(message_of<ValueError>([&] { EMA({w}, {.decay = 1}); }) ==
        "EMA: decay must lie in [0, 1); got 1");
  CHECK_THROWS_AS(EMA({w}, {.decay = -0.1}), ValueError);
  CHECK_THROWS_AS(EMA({w}, {.decay = std::nan("")}), ValueError);
  CHECK_THROWS_AS(EMA(TensorList{}), ValueError);
  CHECK_THROWS_AS(EMA({w, w}), ValueError);
  CHECK_THROWS_AS(EMA(ParamList{{"a", w}, {"a", leaf({2})}}), ValueError);
  CHECK_THROWS_AS(EMA({Tensor()}), ValueError);
  CHECK_THROWS_AS(EMA({ones({2}, DType::i64)}), ValueError);
  EMA average({w});
  w.set_data(ones({2}, DType::f64));
  CHECK_THROWS_AS(average.update(), ValueError);
  CHECK_THROWS_AS(average.apply(), ValueError);
}

TEST_CASE("EMA of a noisy descent ends nearer to the minimum than the last weights") {
  Tensor w = leaf({3, -1});
  SGD optimizer({w}, {.lr = 0.3});
  EMA average({w}, {.decay = 0.98, .warm_up = true});
  Rng rng(8);
  double last = 0;
  for (int t = 0; t < 600; ++t) {
    const auto p = values(w), noise = values(rng.normal({2}, 0, 1, DType::f64));
    w.set_grad(from_vector<double>({p[0] + noise[0], p[1] + noise[1]}));
    optimizer.step();
    average.update();
    if (t >= 300) last += largest(w) / 300;
  }
  average.apply();
  CHECK(largest(w) < last / 2);
}

TEST_CASE("EarlyStopping: patience counts values in a row without an improvement") {
  EarlyStopping stopping({.patience = 2});
  CHECK(std::isnan(stopping.best()));
  CHECK(stopping.best_at() == -1);
  CHECK(stopping.update(5));
  CHECK_FALSE(stopping.update(5));  // equal is no improvement
  CHECK_FALSE(stopping.stop());
  CHECK(stopping.update(4));
  CHECK_FALSE(stopping.update(4.5));
  CHECK_FALSE(stopping.stop());
  CHECK_FALSE(stopping.update(6));
  CHECK(stopping.stop());
  CHECK(stopping.best() == 4);
  CHECK(stopping.best_at() == 2);
  CHECK(stopping.count() == 5);
  // Going on is possible.
  CHECK(stopping.update(-INFINITY));
  CHECK_FALSE(stopping.stop());
}

TEST_CASE("EarlyStopping: larger is better, and only by more than min_delta") {
  EarlyStopping stopping({.patience = 3, .min_delta = 0.1, .better = Better::larger});
  CHECK(stopping.update(0.5));
  CHECK_FALSE(stopping.update(0.6));  // 0.6 - 0.5 is just below 0.1
  CHECK_FALSE(stopping.update(0.55));
  CHECK(stopping.update(0.75));
  CHECK_FALSE(stopping.update(0));
  CHECK(stopping.best() == 0.75);
  CHECK(stopping.best_at() == 3);
}

TEST_CASE("EarlyStopping: a NaN is no improvement, not even as the first value") {
  EarlyStopping stopping({.patience = 3});
  CHECK_FALSE(stopping.update(std::nan("")));
  CHECK(stopping.update(INFINITY));
  CHECK(stopping.update(7));
  CHECK_FALSE(stopping.update(std::nan("")));
  CHECK(stopping.best() == 7);
  EarlyStopping hopeless({.patience = 2});
  hopeless.update(std::nan(""));
  hopeless.update(std::nan(""));
  CHECK(hopeless.stop());
  CHECK(hopeless.best_at() == -1);
}

TEST_CASE("EarlyStopping continues from its state, and refuses another one") {
  const EarlyStoppingOptions options = {.patience = 3};
  const std::vector<double> losses = {3, 2, 2.5, 1, 4, 1.5, 1.2};
  for (std::size_t cut = 0; cut <= losses.size(); ++cut) {
    EarlyStopping whole(options), first(options), second(options);
    for (const double l : losses) whole.update(l);
    for (std::size_t i = 0; i < cut; ++i) first.update(losses[i]);
    second.load_state_dict(first.state_dict());
    for (std::size_t i = cut; i < losses.size(); ++i) second.update(losses[i]);
    CHECK(second.stop() == whole.stop());
    CHECK(second.stop());
    CHECK(second.best() == whole.best());
    CHECK(second.best_at() == whole.best_at());
    CHECK(second.count() == whole.count());
  }
  EarlyStopping stopping(options);
  stopping.update(1);
  const StateDict state = stopping.state_dict();
  const auto with = [&](const std::string& name, const Tensor& value) {
    StateDict s = state;
    s.set(name, value);
    return s;
  };
  const auto number = [](double n) { return full({}, n, DType::i64); };
  CHECK_THROWS_AS(stopping.load_state_dict({}), ValueError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("more", number(1))), ValueError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("best", scalar(1))), DTypeError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("count", ones({1}, DType::i64))), ShapeError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("waited", number(-1))), ValueError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("waited", number(2))), ValueError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("best_at", number(1))), ValueError);
  CHECK_THROWS_AS(stopping.load_state_dict(with("best", scalar(NAN, DType::f64))), ValueError);
  CHECK(stopping.best() == 1);
  CHECK_THROWS_AS(EarlyStopping({.patience = 0}), ValueError);
  CHECK_THROWS_AS(EarlyStopping({.min_delta = -1}), ValueError);
  CHECK_THROWS_AS(EarlyStopping({.min_delta = INFINITY}), ValueError);
}
