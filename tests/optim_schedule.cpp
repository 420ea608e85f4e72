// Learning rates against the formulas of schedule.hpp.

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

#include <capsfw/optim/schedule.hpp>
#include <capsfw/optim/sgd.hpp>

using namespace capsfw;

namespace {
doctest::Approx near(double x) { return doctest::Approx(x).epsilon(1e-14); }
}  // namespace

TEST_CASE("a constant rate is constant") {
  const Schedule rate = constant_rate(0.3);
  CHECK(rate(0) == 0.3);
  CHECK(rate(1'000'000'000'000) == 0.3);
}

TEST_CASE("step_decay falls at every multiple of its period") {
  const Schedule rate = step_decay(0.8, 10, 0.5);
  CHECK(rate(0) == near(0.8));
  CHECK(rate(9) == near(0.8));
  CHECK(rate(10) == near(0.4));
  CHECK(rate(29) == near(0.2));
  CHECK(rate(30) == near(0.1));
  CHECK(step_decay(1, 3)(3) == near(0.1));
}

TEST_CASE("exponential_decay reaches gamma after one period, without stairs") {
  const Schedule each = exponential_decay(0.5, 0.9);
  CHECK(each(0) == near(0.5));
  CHECK(each(1) == near(0.45));
  CHECK(each(7) == near(0.5 * std::pow(0.9, 7)));
  const Schedule slow = exponential_decay(1e-3, 0.96, 2000);
  CHECK(slow(2000) == near(0.96e-3));
  CHECK(slow(1000) == near(1e-3 * std::sqrt(0.96)));
}

TEST_CASE("cosine_decay goes from lr over the middle to lr_min and stays there") {
  const Schedule rate = cosine_decay(1.0, 100, 0.2);
  CHECK(rate(0) == near(1.0));
  CHECK(rate(50) == near(0.6));
  CHECK(rate(25) == near(0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2));
  CHECK(rate(100) == near(0.2));
  CHECK(rate(250) == near(0.2));
  CHECK(cosine_decay(1.0, 100)(100) == doctest::Approx(0));
}

TEST_CASE("warm_up rises in equal parts to the schedule it wraps") {
  const Schedule flat = warm_up(4, constant_rate(2));
  CHECK(flat(0) == near(0.5));
  CHECK(flat(1) == near(1.0));
  CHECK(flat(2) == near(1.5));
  CHECK(flat(3) == near(2.0));
  CHECK(flat(4) == near(2.0));
  const Schedule inner = cosine_decay(1, 20), outer = warm_up(5, inner);
  CHECK(outer(2) == near(inner(2) * 3 / 5));
  for (std::int64_t t = 4; t < 30; ++t) CHECK(outer(t) == inner(t));
  CHECK(warm_up(0, inner)(0) == inner(0));
}

TEST_CASE("a schedule sets the rate of an optimizer, and any callable is one") {
  Tensor p = ones({1}, DType::f64);
  SGD optimizer({p}, {.lr = 1});
  p.set_grad(ones({1}, DType::f64));
  for (std::int64_t step = 0; step < 3; ++step) {
    apply(step_decay(0.1, 1, 0.1), step, optimizer);
    optimizer.step();
  }
  CHECK(p.item() == near(1 - 0.111));
  CHECK(optimizer.lr() == near(0.001));
  apply([](std::int64_t t) { return 1.0 / static_cast<double>(t); }, 4, optimizer);
  CHECK(optimizer.lr() == 0.25);
}

TEST_CASE("schedules refuse settings out of range") {
  const double nan = std::nan("");
  CHECK_THROWS_WITH_AS(constant_rate(-1), "constant_rate: lr must be finite and >= 0; got -1",
                       ValueError);
  CHECK_THROWS_AS(constant_rate(std::numeric_limits<double>::infinity()), ValueError);
  CHECK_THROWS_AS(step_decay(nan, 1), ValueError);
  CHECK_THROWS_WITH_AS(step_decay(1, 0), "step_decay: every must be at least 1; got 0", ValueError);
  CHECK_THROWS_WITH_AS(exponential_decay(1, 0),
                       "exponential_decay: gamma must lie in (0, 1]; got 0", ValueError);
  CHECK_THROWS_AS(exponential_decay(1, 1.5), ValueError);
  CHECK_THROWS_AS(exponential_decay(1, nan), ValueError);
  CHECK_THROWS_AS(exponential_decay(1, 0.5, 0), ValueError);
  CHECK_THROWS_WITH_AS(cosine_decay(1, 0), "cosine_decay: steps must be at least 1; got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(cosine_decay(1, 10, 2), "cosine_decay: lr_min must lie in [0, lr]; got 2",
                       ValueError);
  CHECK_THROWS_AS(cosine_decay(1, 10, nan), ValueError);
  CHECK_THROWS_WITH_AS(warm_up(-1, constant_rate(1)), "warm_up: steps must be at least 0; got -1",
                       ValueError);
  CHECK_THROWS_WITH_AS(warm_up(1, {}), "warm_up: needs a schedule to warm up to; got an empty one",
                       ValueError);
  for (const Schedule& rate : {constant_rate(1), step_decay(1, 2), exponential_decay(1, 0.5),
                               cosine_decay(1, 2), warm_up(2, constant_rate(1))})
    CHECK_THROWS_WITH_AS(rate(-1), "schedule: the step must be at least 0; got -1", ValueError);
}
