// Fuzzy clustering: what the KL and the entropy descents descend on, and what dynamic routing
// climbs.

#include <capsfw/layers/fuzzy.hpp>

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_cluster.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

Tensor random_votes(Rng& rng) {
  const Shape shape{1 + rng.below(3), 4 + rng.below(8), 2 + rng.below(4), 2 + rng.below(4)};
  return randn(shape, rng, DType::f64) * (0.3 + 3 * rng.uniform());
}

/// Data as votes that are the same for each of k clusters.
Tensor as_votes(const Tensor& u, std::int64_t k) {
  return contiguous(broadcast_to(unsqueeze(u, 2), {u.size(0), u.size(1), k, u.size(2)}));
}

/// The objectives [B, iterations, 3] in the order of the descent [B, 3 iterations].
Tensor in_order(const Tensor& objectives) { return flatten(objectives, 1); }

}  // namespace

TEST_CASE("no half step of the KL descent raises its objective") {
  Rng rng(1);
  for (int trial = 0; trial < 25; ++trial) {
    const Tensor votes = random_votes(rng);
    const FuzzyClustering r = kl_trace(votes, 6);
    CHECK(r.objectives.shape() == Shape{votes.size(0), 6, 3});
    CHECK(largest_rise(r.objectives) <= 1e-12);
    CHECK(largest(select(select(r.objectives, 1, 0), 1, 0)) == 0);  // F(uniform, s = 0)
    CHECK(max(select(r.objectives, 2, 2) - select(r.objectives, 2, 1)).item() < 0);
  }
}

TEST_CASE("the KL descent is dynamic routing") {
  Rng rng(2);
  for (int t = 1; t <= 4; ++t) {
    const Tensor votes = random_votes(rng);
    const FuzzyClustering r = kl_trace(votes, t);
    CHECK(max_difference(r.centres, dynamic_routing(votes, {.iterations = t}).poses) < 1e-12);
    CHECK(max_difference(r.couplings, dynamic_routing(votes, {.iterations = t + 1}).couplings) <
          1e-12);
  }
}

TEST_CASE("the entropy descent falls for constant alpha, and within an iteration for any") {
  Rng rng(3);
  for (int trial = 0; trial < 25; ++trial) {
    const Tensor votes = random_votes(rng);
    const double alpha = 0.2 + rng.uniform();
    const FuzzyClustering constant = entropy_trace(votes, std::vector<double>(5, alpha));
    CHECK(largest_rise(in_order(constant.objectives)) <= 1e-12);
    const FuzzyClustering annealed = entropy_trace(votes, alpha_schedule(4, 1.5, 0.5));
    CHECK(largest_rise(annealed.objectives) <= 1e-12);
    // Between iterations it rises by (α_t − α_{t+1}) times the entropy of the couplings.
    const FuzzyClustering two = entropy_trace(votes, {1.5, 0.75}),
                          one = entropy_trace(votes, {1.5});
    const Tensor c = one.couplings, entropy = neg(sum(c * log(c), {-2, -1}));
    const Tensor rise =
        select(select(two.objectives, 1, 1), 1, 0) - select(select(two.objectives, 1, 0), 1, 2);
    CHECK(max_difference(rise, 0.75 * entropy) < 1e-9);
    CHECK(max_difference(safe_norm(annealed.centres),
                         ones({votes.size(0), votes.size(2)}, DType::f64)) < 1e-12);
    CHECK(max_difference(sum(annealed.couplings, {-1}),
                         ones({votes.size(0), votes.size(1)}, DType::f64)) < 1e-12);
  }
}

TEST_CASE("the traces are made of the objectives") {
  Rng rng(4);
  const Tensor votes = random_votes(rng);
  const Tensor c = full({votes.size(0), votes.size(1), votes.size(2)},
                        1 / static_cast<double>(votes.size(2)), DType::f64);
  const Tensor sums = weighted_sum(c, votes), s = safe_normalize(sums);
  const Tensor n2 = sum(square(sums), {-1}), w = n2 / (n2 + 1.0);
  const FuzzyClustering kl = kl_trace(votes, 1), entropy = entropy_trace(votes, {0.6});
  CHECK(max_difference(select(kl.objectives, 1, 0),
                       stack({zeros({votes.size(0)}, DType::f64), kl_objective(votes, c, s, w, c),
                              kl_objective(votes, kl.couplings, s, w, c)},
                             -1)) < 1e-12);
  CHECK(max_difference(select(entropy.objectives, 1, 0),
                       stack({entropy_objective(votes, c, zeros_like(s), 0.6),
                              entropy_objective(votes, c, s, 0.6),
                              entropy_objective(votes, entropy.couplings, s, 0.6)},
                             -1)) < 1e-12);
}

TEST_CASE("0 ln 0 = 0, and KL to a coupling that cannot be is infinite") {
  const Tensor votes = zeros({1, 1, 2, 1}, DType::f64), s = zeros({1, 2, 1}, DType::f64);
  const Tensor w = zeros({1, 2}, DType::f64);
  const Tensor one = from_vector<double>({1, 0}, {1, 1, 2});
  const Tensor half = full({1, 1, 2}, 0.5, DType::f64);
  CHECK(entropy_objective(votes, one, s, 2).item() == 0);
  CHECK(kl_objective(votes, one, s, w, one).item() == 0);
  CHECK(kl_objective(votes, one, s, w, half).item() == doctest::Approx(std::log(2.0)));
  CHECK(kl_objective(votes, half, s, w, one).item() == INFINITY);
}

TEST_CASE("descents on data equal those on votes, and need their centres") {
  Rng rng(5);
  for (int trial = 0; trial < 10; ++trial) {
    const Problem p(rng);
    const FuzzyClustering kl = kl_clustering(p.u, p.v, 4);
    CHECK(kl.objectives.shape() == Shape{p.batch, 4, 3});
    CHECK(largest_rise(kl.objectives) <= 1e-12);
    const Tensor votes = as_votes(p.u, p.clusters);
    // The prior of dynamic routing takes the first couplings, one sample at a time.
    for (std::int64_t b = 0; b < p.batch; ++b) {
      const Tensor sample = narrow(votes, 0, b, 1);
      const Tensor prior = select(agreement(sample, squash(narrow(p.v, 0, b, 1))), 0, 0);
      CHECK(max_difference(narrow(kl.centres, 0, b, 1),
                           dynamic_routing_reference(sample, {.iterations = 4},
                                                     {.prior = prior, .mask = {}, .activation = {}})
                               .poses) < 1e-12);
      const FuzzyClustering flat = kl_clustering(select(p.u, 0, b), select(p.v, 0, b), 4);
      CHECK(max_difference(flat.centres, select(kl.centres, 0, b)) < 1e-12);
      CHECK(max_difference(flat.objectives, select(kl.objectives, 0, b)) < 1e-12);
    }
    const FuzzyClustering entropy = entropy_clustering(p.u, p.v, std::vector<double>(5, 0.5));
    CHECK(largest_rise(in_order(entropy.objectives)) <= 1e-12);
    const Tensor order = rng.permutation(p.clusters);
    const FuzzyClustering turned =
        entropy_clustering(p.u, index_select(p.v, 1, order), std::vector<double>(5, 0.5));
    CHECK(max_difference(turned.centres, index_select(entropy.centres, 1, order)) < 1e-10);
  }
  const Problem p(rng);
  const Tensor stuck = kl_trace(as_votes(p.u, p.clusters), 5).couplings;
  CHECK(max(stuck).item() - min(stuck).item() < 1e-12);
}

TEST_CASE("two groups of directions are found") {
  Rng rng(6);
  const Tensor groups = from_vector<double>({1, 0, 0, 1}, {2, 1, 2});
  const Tensor u = reshape(groups + rng.normal({2, 10, 2}, 0, 0.1, DType::f64), {20, 2});
  const Tensor start = from_vector<double>({0.8, 0.6, 0.6, 0.8}, {2, 2});
  for (const FuzzyClustering& r :
       {kl_clustering(u, start, 10), entropy_clustering(u, start, alpha_schedule(6))}) {
    const auto label = values(argmax(r.couplings, -1));
    for (std::size_t i = 0; i < label.size(); ++i) CHECK(label[i] == (i < 10 ? 0 : 1));
  }
}

TEST_CASE("the potential of dynamic routing never falls") {
  Rng rng(7);
  for (int trial = 0; trial < 15; ++trial)
    for (const double c : {1.0, 0.5}) {
      const Tensor votes = random_votes(rng);
      const Tensor psi = dynamic_routing_potential(votes, 6, c);
      CHECK(psi.shape() == Shape{votes.size(0), 6});
      CHECK(largest_rise(neg(psi)) <= 1e-12);
      const Tensor n = safe_norm(
          weighted_sum(dynamic_routing(votes, {.iterations = 6, .squash_c = c}).couplings, votes));
      CHECK(max_difference(select(psi, 1, 5), sum(n - atan(n / std::sqrt(c)) * std::sqrt(c), {1})) <
            1e-12);
    }
}

TEST_CASE("gradients of the objectives and descents to second order") {
  const Tensor votes = test::random({1, 4, 2, 3}), s = test::random({1, 2, 3}, 2);
  const Tensor c = softmax(test::random({1, 4, 2}, 3)), old = softmax(test::random({1, 4, 2}, 4));
  test::check_gradients(
      [](const TensorList& in) {
        return TensorList{kl_objective(in[0], in[1], in[2], in[3], in[4])};
      },
      {votes, c, s, test::random({1, 2}, 5), old});
  test::check_gradients(
      [](const TensorList& in) { return TensorList{entropy_objective(in[0], in[1], in[2], 0.7)}; },
      {votes, c, s});
  const auto all_of = [](const FuzzyClustering& r) {
    return TensorList{r.centres, r.couplings, r.objectives};
  };
  test::check_gradients([&](const TensorList& in) { return all_of(kl_trace(in[0], 3)); }, {votes});
  test::check_gradients(
      [&](const TensorList& in) {
        return all_of(entropy_trace(in[0], {0.9, 0.4}));
      },
      {votes});
  test::check_gradients(
      [](const TensorList& in) { return TensorList{dynamic_routing_potential(in[0], 3, 0.5)}; },
      {votes});
  const Tensor u = test::random({1, 5, 2}), v = test::random({1, 2, 2}, 6);
  test::check_gradients(
      [&](const TensorList& in) { return all_of(kl_clustering(in[0], in[1], 2)); }, {u, v});
  test::check_gradients(
      [&](const TensorList& in) {
        return all_of(entropy_clustering(in[0], in[1], {0.9, 0.4}));
      },
      {u, v});
}

TEST_CASE("zero and huge votes stay finite, with finite gradients") {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const double scale : {0.0, 1e3}) {
      Rng rng(8);
      const Tensor votes = (randn({2, 6, 3, 4}, rng, dtype) * scale).requires_grad_();
      for (const FuzzyClustering& r : {kl_trace(votes, 3), entropy_trace(votes, {1.0, 0.5})}) {
        CHECK(all(isfinite(r.objectives)));
        CHECK(all(isfinite(grad(sum(r.centres), votes))));
      }
      const Tensor psi = dynamic_routing_potential(votes, 3);
      CHECK(all(isfinite(psi)));
      CHECK(all(isfinite(grad(sum(psi), votes))));
    }
}

TEST_CASE("errors of fuzzy clustering say what was expected and what was given") {
  const Tensor votes = ones({2, 4, 3, 5}), u = ones({2, 4, 3});
  CHECK(message_of<ShapeError>([&] { kl_trace(u, 3); }) ==
        "kl_trace: votes must be [B, I, J, D] with I and J at least 1; got [2, 4, 3]");
  CHECK(message_of<ValueError>([&] { kl_trace(votes, 0); }) ==
        "kl_trace: at least 1 iteration; got 0");
  CHECK(contains(message_of<ValueError>([&] { entropy_trace(votes, {}); }),
                 "entropy_trace: at least one alpha"));
  CHECK(message_of<ValueError>([&] {
          entropy_trace(votes, {1.0, 0.0});
        }) == "entropy_trace: every alpha must be positive and finite; got 0");
  CHECK(contains(message_of<ShapeError>([&] {
                   kl_clustering(u, ones({2, 2, 4}), 3);
                 }),
                 "kl_clustering: data must be [B, N, D]"));
  CHECK(contains(message_of<ValueError>([&] {
                   entropy_clustering(u, ones({2, 0, 3}), {1.0});
                 }),
                 "at least one point and one centre"));
  CHECK(contains(message_of<ValueError>([&] { dynamic_routing_potential(votes, 3, 0); }),
                 "squash_c must be positive"));
  CHECK(contains(message_of<ShapeError>([&] {
                   entropy_objective(votes, ones({2, 4, 2}), ones({2, 3, 5}), 1);
                 }),
                 "entropy_objective: votes [B, I, J, D], c [B, I, J], s [B, J, D]; got"));
  CHECK(
      contains(message_of<ShapeError>([&] {
                 kl_objective(votes, ones({2, 4, 3}), ones({2, 3, 5}), ones({3}), ones({2, 4, 3}));
               }),
               "kl_objective: c_old must be [2, 4, 3] as c, and w [2, 3]"));
}
