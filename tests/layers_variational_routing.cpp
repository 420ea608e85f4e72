// Variational Bayes routing: the bound, exact posteriors, and votes that break point estimates.

#include <cmath>
#include <numbers>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/gmm.hpp>
#include <capsfw/layers/variational_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "ops_support.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;

namespace {

Tensor draw(const Shape& shape, std::uint64_t seed, double std = 1) {
  return Rng(seed).normal(shape, 0, std, DType::f64);
}

struct Run {
  Routed routed;
  std::vector<RoutingStep> steps;
};

Run run(const Tensor& votes,
        const Tensor& a,
        const VariationalRoutingOptions& o,
        const Tensor& kept = {}) {
  Run out;
  const Tensor beta = zeros({votes.size(2)}, votes.dtype());
  out.routed = variational_routing(votes, a, beta, beta, o, kept,
                                   [&](const RoutingStep& s) { out.steps.push_back(s); });
  return out;
}

}  // namespace

TEST_CASE("variational Bayes: the evidence bound never falls") {
  const Tensor kept = from_vector(
      std::vector<bool>{true, false, true, true, true, true, false, true, true, true, true, true},
      {3, 4});
  for (std::uint64_t seed = 1; seed <= 6; ++seed)
    for (const Tensor& mask : {Tensor(), kept}) {
      const Tensor votes = draw({3, 9, 4, 3}, seed, seed % 2 == 0 ? 3 : 0.3),
                   a = Rng(seed).uniform({3, 9}, 0, 1, DType::f64);
      const Run r = run(votes, a, {.iterations = 12, .alpha0 = 0.7, .kappa0 = 0.3, .nu0 = 2}, mask);
      for (std::size_t t = 1; t < r.steps.size(); ++t)
        CHECK(max(r.steps[t].objective - r.steps[t - 1].objective).item() < 1e-10);
      CHECK(max(r.steps.back().objective - r.steps[0].objective).item() < -1e-3);
    }
}

TEST_CASE("variational Bayes: with one parent the bound is the evidence and the posterior exact") {
  const std::int64_t n = 7, d = 3;
  const VariationalRoutingOptions o{
      .iterations = 1, .alpha0 = 2, .kappa0 = 0.4, .psi0 = 1.7, .nu0 = 2.5};
  const Tensor votes = draw({1, n, 1, d}, 1);
  const Run r = run(votes, ones({1, n}, DType::f64), o);
  // Normal-Gamma, with a = ν/2 and b = 1/(2Ψ); the mean of the votes as in the textbook.
  double evidence = 0;
  const auto v = votes.to_vector<double>();
  for (std::int64_t k = 0; k < d; ++k) {
    double mean = 0, spread = 0;
    for (std::int64_t i = 0; i < n; ++i) mean += v[static_cast<std::size_t>(i * d + k)] / n;
    for (std::int64_t i = 0; i < n; ++i)
      spread += std::pow(v[static_cast<std::size_t>(i * d + k)] - mean, 2);
    const double kappa = o.kappa0 + n, a0 = o.nu0 / 2, a = a0 + n / 2.0, b0 = 0.5 / o.psi0,
                 b = b0 + 0.5 * (spread + o.kappa0 * n / kappa * mean * mean);
    evidence += std::lgamma(a) - std::lgamma(a0) + a0 * std::log(b0) - a * std::log(b) +
                0.5 * std::log(o.kappa0 / kappa) - n / 2.0 * std::log(2 * std::numbers::pi);
    CHECK(r.routed.poses.to_vector<double>()[static_cast<std::size_t>(k)] ==
          doctest::Approx(n * mean / kappa).epsilon(1e-12));
  }
  CHECK(-r.steps[0].objective.item() == doctest::Approx(evidence).epsilon(1e-12));
}

TEST_CASE("variational Bayes: a single far vote does not collapse a variance") {
  // One child: a point estimate has variance 0. Here the precision keeps its prior scale.
  const Tensor votes = full({1, 1, 2, 3}, 5, DType::f32);
  const Run r = run(votes, ones({1, 1}), {.iterations = 5});
  CHECK(all(isfinite(r.routed.poses)));
  CHECK(max_difference(r.routed.couplings, full({1, 1, 2}, 0.5)) <
        1e-6);  // nothing tells them apart
  CHECK(max_difference(r.routed.poses, full({1, 2, 3}, 5.0 / 3)) < 1e-5);  // ½ vote against κ0 = 1
}

TEST_CASE(
    "variational Bayes: children of activation 0 have no influence, half of them count half") {
  const Tensor votes = draw({2, 6, 3, 4}, 2), a = Rng(3).uniform({2, 6}, 0.1, 1, DType::f64);
  const Tensor none = broadcast_to(to(lt(arange(6), 4), DType::f64), {2, 6});
  const Run all_six = run(votes, a * none, {}),
            four = run(narrow(votes, 1, 0, 4), narrow(a, 1, 0, 4), {});
  CHECK(max_difference(all_six.routed.poses, four.routed.poses) < 1e-12);
  CHECK(max_difference(all_six.steps[2].objective, four.steps[2].objective) < 1e-10);
  // Each child twice with half of its activation is the child.
  const Run twice = run(cat({votes, votes}, 1), cat({a * 0.5, a * 0.5}, 1), {}),
            once = run(votes, a, {});
  CHECK(max_difference(twice.routed.poses, once.routed.poses) < 1e-12);
  CHECK(max_difference(twice.routed.activations, once.routed.activations) < 1e-12);
}

TEST_CASE("variational Bayes: activations grow with agreement") {
  const Tensor near = draw({1, 30, 1, 4}, 4, 0.05), far = draw({1, 30, 1, 4}, 5, 5);
  const auto routed = run(cat({near, far}, 2), ones({1, 30}, DType::f64), {}).routed;
  CHECK(select(routed.activations, 1, 0).item() > select(routed.activations, 1, 1).item() + 0.1);
}

TEST_CASE("variational Bayes: finite in float32, with gradients, for all kinds of votes") {
  Rng rng(6);
  const Tensor random = rng.normal({2, 8, 3, 4}, 0, 1);
  for (const Tensor& start : {random, random * 1e-20, random * 1e4, full({2, 8, 3, 4}, 0.7),
                              full({2, 8, 3, 4}, 1e4), zeros({2, 8, 3, 4})})
    for (const double activation : {1.0, 1e-30, 0.0})
      for (const int iterations : {1, 2, 3, 5}) {
        CAPTURE(start.to_vector<float>()[0]);
        CAPTURE(activation);
        Tensor votes = start.detach().requires_grad_();
        Tensor a = full({2, 8}, activation).requires_grad_();
        const Run r = run(votes, a, {.iterations = iterations});
        CHECK(all(isfinite(r.routed.poses)));
        CHECK(all(isfinite(r.routed.activations)));
        CHECK(all(isfinite(r.steps.back().objective)));
        for (const Tensor& g :
             grad(TensorList{sum(r.routed.poses) + sum(r.routed.activations)}, {votes, a}))
          CHECK(all(isfinite(g)));
      }
}

TEST_CASE("variational Bayes: priors are options, and what is wrong is said") {
  const RoutingSize size{.children = 3, .parents = 2, .dim = 4};
  Rng rng(7);
  CHECK(RoutingSpec("variational-bayes:kappa0=0.5").get("kappa0") == "0.5");
  CHECK(contains(
      message_of<ValueError>([&] { RoutingSpec("variational-bayes:psi0=0").make(size, rng); }),
      "alpha0, kappa0 and psi0 must be positive"));
  const auto routing = RoutingSpec("variational-bayes").make(size, rng);
  CHECK(routing->parameter_count() == 4);
  CHECK(message_of<ValueError>([&] { routing->set_iterations(0); }) ==
        "variational_routing: at least 1 iteration; got 0");
  CHECK_THROWS_AS(variational_routing(zeros({1, 3, 2, 4}), ones({1, 2}), zeros({2}), zeros({2})),
                  ShapeError);
  // The default ν0 is D + 1.
  const Tensor votes = draw({1, 5, 2, 4}, 8), a = ones({1, 5}, DType::f64);
  CHECK(max_difference(run(votes, a, {}).routed.activations,
                       run(votes, a, {.nu0 = 5}).routed.activations) == 0);
}
