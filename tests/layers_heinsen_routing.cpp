// Heinsen's routing: one iteration, sequences of different lengths, using and ignoring.

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/heinsen_routing.hpp>
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

}  // namespace

TEST_CASE("O3 Heinsen: one iteration is the weighted mean under uniform couplings") {
  const Tensor votes = draw({2, 6, 3, 4}, 1), a = Rng(2).uniform({2, 6}, 0, 1, DType::f64);
  const Tensor use = draw({3}, 3), ign = draw({3}, 4);
  const Routed out = heinsen_routing(votes, a, use, ign, {.iterations = 1});
  CHECK(max_difference(out.couplings, full({2, 6, 3}, 1.0 / 3, DType::f64)) < 1e-15);
  const Tensor share = reshape(a / sum(a, {1}, true), {2, 6, 1, 1});
  CHECK(max_difference(out.poses, sum(share * votes, {1})) < 1e-12);
  const Tensor total = sum(a, {1}, true);
  CHECK(max_difference(out.activations, sigmoid(use * total / 3.0 - ign * total * 2.0 / 3.0)) <
        1e-12);
}

TEST_CASE("O3 Heinsen: later iterations weigh densities by the activations of the parents") {
  const Tensor votes = draw({2, 6, 3, 4}, 1), a = Rng(2).uniform({2, 6}, 0, 1, DType::f64);
  const Tensor use = draw({3}, 3), ign = draw({3}, 4);
  std::vector<RoutingStep> steps;
  heinsen_routing(votes, a, use, ign, {.iterations = 3, .eps_var = 0.01}, {},
                  [&](const RoutingStep& s) { steps.push_back(s); });
  REQUIRE(steps.size() == 3);
  for (std::size_t t = 1; t < 3; ++t) {
    const Tensor used = steps[t - 1].couplings * unsqueeze(a, -1);
    const Tensor squares = square(votes - unsqueeze(steps[t - 1].poses, 1));
    const Tensor variance = weighted_sum(used, squares) / unsqueeze(sum(used, {1}), -1) + 0.01;
    const Tensor joint = vote_log_density(votes, steps[t - 1].poses, variance) +
                         unsqueeze(log(steps[t - 1].activations), 1);
    CHECK(max_difference(steps[t].couplings, softmax(joint, -1)) < 1e-12);
    const Tensor now = steps[t].couplings * unsqueeze(a, -1);
    CHECK(max_difference(steps[t].activations,
                         sigmoid(sum(now * use - (unsqueeze(a, -1) - now) * ign, {1}))) < 1e-12);
  }
}

TEST_CASE("O3 Heinsen: a mask equals dropping the masked inputs, whatever they hold") {
  for (const int iterations : {1, 2, 5}) {
    CAPTURE(iterations);
    Rng rng(5);
    DenseCapsules caps(
        8, 4, 3, 5, rng,
        {.routing = HeinsenRoutingOptions{.iterations = iterations}, .votes = VoteWeights::shared});
    caps.to(DType::f64);
    for (Tensor p : caps.routing().parameters()) p.copy_(draw(p.shape(), 6, 0.3));
    const Tensor u = draw({2, 8, 4}, 7);
    const Tensor lengths = from_vector(std::vector<double>{5, 3}, {2, 1});
    const Tensor exists = lt(broadcast_to(to(arange(8), DType::f64), {2, 8}), lengths);
    const Tensor padded = where(unsqueeze(exists, -1), u, 1e3);
    const Routed both = caps.route(padded, {}, exists);
    for (std::int64_t k = 0; k < 2; ++k) {
      const std::int64_t n = k == 0 ? 5 : 3;
      const Routed alone = caps.route(narrow(narrow(u, 0, k, 1), 1, 0, n));
      CHECK(max_difference(alone.poses, narrow(both.poses, 0, k, 1)) < 1e-12);
      CHECK(max_difference(alone.activations, narrow(both.activations, 0, k, 1)) < 1e-12);
    }
    // Any amount of padding.
    const Routed more = caps.route(cat({padded, full({2, 5, 4}, -7, DType::f64)}, 1), {},
                                   cat({exists, zeros({2, 5}, DType::b8)}, 1));
    CHECK(max_difference(more.poses, both.poses) < 1e-12);
    CHECK(max_difference(more.activations, both.activations) < 1e-12);
  }
}

TEST_CASE("Heinsen: betas of each child, and equal ones are shared ones") {
  const Tensor votes = draw({2, 6, 3, 4}, 1), a = Rng(2).uniform({2, 6}, 0, 1, DType::f64);
  const Tensor use = draw({3}, 3), ign = draw({3}, 4);
  const Routed shared = heinsen_routing(votes, a, use, ign),
               each =
                   heinsen_routing(votes, a, broadcast_to(use, {6, 3}), broadcast_to(ign, {6, 3}));
  CHECK(max_difference(shared.poses, each.poses) < 1e-12);
  CHECK(max_difference(shared.activations, each.activations) < 1e-12);
  Rng rng(8);
  const RoutingSize size{.children = 6, .parents = 3, .dim = 4};
  CHECK(RoutingSpec("heinsen").make(size, rng)->parameter_count() == 2 * 3);
  CHECK(RoutingSpec("heinsen:each").make(size, rng)->parameter_count() == 2 * 6 * 3);
}

TEST_CASE("Heinsen: finite in float32, with gradients, for all kinds of votes") {
  Rng rng(9);
  const Tensor random = rng.normal({2, 8, 3, 4}, 0, 1);
  for (const Tensor& start :
       {random, random * 1e-20, random * 1e4, full({2, 8, 3, 4}, 0.7), zeros({2, 8, 3, 4})})
    for (const double activation : {1.0, 0.0})
      for (const int iterations : {1, 2, 3, 5}) {
        Tensor votes = start.detach().requires_grad_();
        Tensor a = full({2, 8}, activation).requires_grad_(), beta = full({3}, 0.5);
        const Routed r = heinsen_routing(votes, a, beta, beta, {.iterations = iterations});
        CHECK(all(isfinite(r.poses)));
        for (const Tensor& g : grad(TensorList{sum(r.poses) + sum(r.activations)}, {votes, a}))
          CHECK(all(isfinite(g)));
      }
}

TEST_CASE("Heinsen: what is wrong is said") {
  Rng rng(10);
  CHECK(contains(message_of<ValueError>(
                     [&] { RoutingSpec("heinsen:each").make({.parents = 2, .dim = 3}, rng); }),
                 "betas of each child need a fixed number of children"));
  RoutingSpec("heinsen").make({.parents = 2, .dim = 3}, rng);
  CHECK_THROWS_AS(RoutingSpec("heinsen:iterations=0").make({.parents = 2, .dim = 3}, rng),
                  ValueError);
  CHECK_THROWS_AS(heinsen_routing(zeros({1, 3, 2, 4}), ones({1, 3}), zeros({2}), zeros({3, 2})),
                  ShapeError);
  CHECK_THROWS_AS(
      heinsen_routing(zeros({1, 3, 2, 4}), ones({1, 3}), zeros({2}), zeros({2}), {.eps_var = -1}),
      ValueError);
}
