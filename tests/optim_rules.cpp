// Every update rule against its formula in plain doubles, and against sequences that have a closed
// form.

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/random.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/rmsprop.hpp>
#include <capsfw/optim/sgd.hpp>

using namespace capsfw;

namespace {

using Vec = std::vector<double>;

constexpr int kSteps = 7;

/// f(p) = pᵀ A p / 2 - bᵀ p with a positive definite A. The size leaves a tail to vector loops.
struct Quadratic {
  static constexpr std::size_t kSize = 37;
  Vec a, b, start;

  Quadratic() {
    Rng rng(11);
    Vec root(kSize * kSize);
    for (double& x : root) x = rng.normal() / 6;
    a.assign(kSize * kSize, 0.0);
    for (std::size_t i = 0; i < kSize; ++i)
      for (std::size_t j = 0; j < kSize; ++j) {
        for (std::size_t k = 0; k < kSize; ++k)
          a[i * kSize + j] += root[i * kSize + k] * root[j * kSize + k];
        if (i == j) a[i * kSize + j] += 1;
      }
    for (std::size_t i = 0; i < kSize; ++i) {
      b.push_back(rng.normal());
      start.push_back(rng.normal());
    }
  }
  Vec gradient(const Vec& p) const {
    Vec g(kSize);
    for (std::size_t i = 0; i < kSize; ++i) {
      g[i] = -b[i];
      for (std::size_t j = 0; j < kSize; ++j) g[i] += a[i * kSize + j] * p[j];
    }
    return g;
  }
};

/// One step of a rule for one element; `t` counts from 1, `s` holds the element's state.
using Rule = std::function<double(double p, double g, int t, double* s)>;

std::vector<Vec> expected_path(const Quadratic& f, const Rule& rule) {
  Vec p = f.start;
  std::vector<std::array<double, 3>> state(Quadratic::kSize, {0.0, 0.0, 0.0});
  std::vector<Vec> path;
  for (int t = 1; t <= kSteps; ++t) {
    const Vec g = f.gradient(p);
    for (std::size_t i = 0; i < p.size(); ++i) p[i] = rule(p[i], g[i], t, state[i].data());
    path.push_back(p);
  }
  return path;
}

template <class Optim, class Options>
void check_rule(const Options& options, const Rule& rule) {
  const Quadratic f;
  const std::vector<Vec> expected = expected_path(f, rule);
  for (const DType dtype : {DType::f64, DType::f32}) {
    Tensor p = cast_data(from_vector(f.start), dtype);
    p.requires_grad_();
    Optim optimizer({p}, options);
    double worst = 0;
    for (const Vec& want : expected) {
      p.set_grad(cast_data(from_vector(f.gradient(p.to_vector<double>())), dtype));
      optimizer.step();
      const Vec got = p.to_vector<double>();
      for (std::size_t i = 0; i < got.size(); ++i) {
        REQUIRE(std::isfinite(got[i]));
        worst = std::max(worst, std::abs(got[i] - want[i]));
      }
    }
    CAPTURE(name_of(dtype));
    CHECK(worst < (dtype == DType::f64 ? 1e-13 : 3e-6));
    double moved = 0;
    for (std::size_t i = 0; i < f.start.size(); ++i)
      moved = std::max(moved, std::abs(expected.back()[i] - f.start[i]));
    CHECK(moved > 0.05);
  }
}

Rule sgd_rule(const SGDOptions& o) {
  return [o](double p, double g, int t, double* s) {
    g += o.weight_decay * p;
    double d = g;
    if (o.momentum > 0) {
      s[0] = t == 1 ? g : o.momentum * s[0] + (1 - o.dampening) * g;
      d = o.nesterov ? g + o.momentum * s[0] : s[0];
    }
    return p - o.lr * d;
  };
}

Rule adam_rule(const AdamOptions& o, bool decoupled) {
  return [o, decoupled](double p, double g, int t, double* s) {
    if (decoupled)
      p -= o.lr * o.weight_decay * p;
    else
      g += o.weight_decay * p;
    s[0] = o.beta1 * s[0] + (1 - o.beta1) * g;
    s[1] = o.beta2 * s[1] + (1 - o.beta2) * g * g;
    s[2] = std::max(s[2], s[1]);
    const double m = s[0] / (1 - std::pow(o.beta1, t));
    const double v = (o.amsgrad ? s[2] : s[1]) / (1 - std::pow(o.beta2, t));
    return p - o.lr * m / (std::sqrt(v) + o.eps);
  };
}

Rule rmsprop_rule(const RMSpropOptions& o) {
  return [o](double p, double g, int, double* s) {
    g += o.weight_decay * p;
    s[0] = o.alpha * s[0] + (1 - o.alpha) * g * g;
    s[1] = o.alpha * s[1] + (1 - o.alpha) * g;
    const double variance = o.centered ? s[0] - s[1] * s[1] : s[0];
    s[2] = o.momentum * s[2] + g / (std::sqrt(variance) + o.eps);
    return p - o.lr * s[2];
  };
}

/// The parameter after `steps` steps with the constant gradient `g`.
template <class Optim, class Options>
double constant_gradient(double start, double g, int steps, const Options& options) {
  Tensor p = scalar(start, DType::f64);
  Optim optimizer({p}, options);
  p.set_grad(scalar(g, DType::f64));
  for (int t = 0; t < steps; ++t) optimizer.step();
  return p.item();
}

doctest::Approx near(double x) { return doctest::Approx(x).epsilon(1e-12); }

}  // namespace

TEST_CASE("SGD follows its formula") {
  for (const SGDOptions& o :
       {SGDOptions{.lr = 0.1}, SGDOptions{.lr = 0.1, .weight_decay = 0.2},
        SGDOptions{.lr = 0.05, .momentum = 0.9},
        SGDOptions{.lr = 0.05, .momentum = 0.9, .nesterov = true},
        SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true},
        SGDOptions{.lr = 0.05, .momentum = 0.8, .dampening = 0.3, .weight_decay = 0.1}})
    check_rule<SGD>(o, sgd_rule(o));
}

TEST_CASE("Adam and AdamW follow their formulas") {
  for (const AdamOptions& o :
       {AdamOptions{.lr = 0.1}, AdamOptions{.lr = 0.1, .beta1 = 0, .beta2 = 0.5, .eps = 0.1},
        AdamOptions{.lr = 0.1, .beta1 = 0.8, .beta2 = 0.99, .weight_decay = 0.05},
        AdamOptions{.lr = 0.2, .beta2 = 0.7, .amsgrad = true},
        AdamOptions{.lr = 0.2, .beta2 = 0.7, .weight_decay = 0.3, .amsgrad = true}}) {
    check_rule<Adam>(o, adam_rule(o, false));
    check_rule<AdamW>(AdamWOptions{o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.amsgrad},
                      adam_rule(o, true));
  }
}

TEST_CASE("RMSprop follows its formula") {
  for (const RMSpropOptions& o :
       {RMSpropOptions{.lr = 0.05}, RMSpropOptions{.lr = 0.03, .alpha = 0.9, .weight_decay = 0.1},
        RMSpropOptions{.lr = 0.03, .alpha = 0.9, .momentum = 0.5},
        RMSpropOptions{.lr = 0.03, .alpha = 0.9, .eps = 0.01, .centered = true},
        RMSpropOptions{
            .lr = 0.03, .alpha = 0.9, .weight_decay = 0.02, .momentum = 0.5, .centered = true}})
    check_rule<RMSprop>(o, rmsprop_rule(o));
}

TEST_CASE("the options that are not given have the documented values") {
  check_rule<Adam>(AdamOptions{.lr = 0.05}, adam_rule({0.05, 0.9, 0.999, 1e-8, 0, false}, false));
  check_rule<AdamW>(AdamWOptions{.lr = 0.05},
                    adam_rule({0.05, 0.9, 0.999, 1e-8, 0.01, false}, true));
  check_rule<RMSprop>(RMSpropOptions{}, rmsprop_rule({0.01, 0.99, 1e-8, 0, 0, false}));
  CHECK(Adam({scalar(1)}).lr() == 1e-3);
  CHECK(AdamW({scalar(1)}).lr() == 1e-3);
  CHECK(SGD({scalar(1)}).lr() == 1e-3);
  CHECK(RMSprop({scalar(1)}).lr() == 1e-2);
}

TEST_CASE("SGD under a constant gradient has closed forms") {
  CHECK(constant_gradient<SGD>(1, 3, 10, SGDOptions{.lr = 0.1}) == near(1 - 10 * 0.1 * 3));
  // b_t = g (1 - μᵗ) / (1 - μ); its sum over t = 1..n is g (n - μ (1 - μⁿ) / (1 - μ)) / (1 - μ).
  const double mu = 0.8, decayed = std::pow(mu, 10);
  CHECK(constant_gradient<SGD>(1, 3, 10, SGDOptions{.lr = 0.1, .momentum = mu}) ==
        near(1 - 0.1 * 3 * (10 - mu * (1 - decayed) / (1 - mu)) / (1 - mu)));
  // Full dampening: the first gradient, fading.
  CHECK(constant_gradient<SGD>(1, 3, 10, SGDOptions{.lr = 0.1, .momentum = mu, .dampening = 1}) ==
        near(1 - 0.1 * 3 * (1 - decayed) / (1 - mu)));
}

TEST_CASE("Adam moves by the learning rate under a constant gradient, whatever its size") {
  for (const double g : {1e-4, -7.0, 1e6}) {
    const double d = g / (std::abs(g) + 1e-8);
    CHECK(constant_gradient<Adam>(1, g, 5, AdamOptions{.lr = 0.1}) == near(1 - 5 * 0.1 * d));
    CHECK(constant_gradient<Adam>(1, g, 5, AdamOptions{.lr = 0.1, .amsgrad = true}) ==
          near(1 - 5 * 0.1 * d));
  }
}

TEST_CASE("AdamW shrinks weights without a gradient, Adam moves them by the learning rate") {
  CHECK(constant_gradient<AdamW>(2, 0, 9, AdamWOptions{.lr = 0.1, .weight_decay = 0.5}) ==
        near(2 * std::pow(1 - 0.1 * 0.5, 9)));
  CHECK(constant_gradient<Adam>(2, 0, 1, AdamOptions{.lr = 0.1, .weight_decay = 0.5}) ==
        near(2 - 0.1 * 1 / (1 + 1e-8)));
}

TEST_CASE("RMSprop under a constant gradient divides by the root of 1 - αᵗ") {
  double p = 1;
  for (int t = 1; t <= 6; ++t) p -= 0.1 * 3 / (3 * std::sqrt(1 - std::pow(0.9, t)) + 1e-8);
  CHECK(constant_gradient<RMSprop>(1, 3, 6, RMSpropOptions{.lr = 0.1, .alpha = 0.9}) == near(p));
}

TEST_CASE("centered RMSprop stays finite where rounding makes the variance negative") {
  Tensor p = full({64}, 1.0);
  RMSprop optimizer({p}, {.lr = 1e-9, .alpha = 0.5, .centered = true});
  Rng rng(3);
  p.set_grad(rng.uniform({64}, 0.5, 1.5));
  for (int t = 0; t < 200; ++t) optimizer.step();
  for (double x : p.to_vector<double>()) CHECK(std::isfinite(x));
}

TEST_CASE("a gradient that is not a number reaches the weights") {
  Tensor p = ones({3});
  p.set_grad(from_vector<float>({1.0f, NAN, 1.0f}));
  const auto spoiled = [&](Optimizer&& optimizer) {
    p.fill_(1);
    optimizer.step();
    const auto x = p.to_vector<double>();
    CHECK(x[0] < 1);
    CHECK(std::isnan(x[1]));
    CHECK(x[2] < 1);
  };
  spoiled(SGD({p}, {.momentum = 0.5}));
  spoiled(Adam({p}));
  spoiled(Adam({p}, {.amsgrad = true}));
  spoiled(RMSprop({p}));
  spoiled(RMSprop({p}, {.momentum = 0.5, .centered = true}));
}
