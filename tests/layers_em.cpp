// EM routing: the rows E of the list of known mistakes, and the invariants of the method.

#include <doctest/doctest.h>

#include <numbers>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("E1 lambda schedule") {
  const std::vector<double> three = lambda_schedule(3);
  REQUIRE(three.size() == 3);
  CHECK(three[0] == doctest::Approx(0.01 * 0.05));
  CHECK(three[1] == doctest::Approx(0.01 * (1 - 0.9025)));
  CHECK(three[2] == doctest::Approx(0.01 * (1 - 0.857375)));
  CHECK(lambda_schedule(2, 2.0, 0.0) == std::vector<double>{2, 2});
  CHECK(lambda_growth(0, 100) == doctest::Approx(0.1));
  CHECK(lambda_growth(50, 100, 0.2, 1.0) == doctest::Approx(0.6));
  CHECK(lambda_growth(1e6, 100) == doctest::Approx(1.0));
  CHECK_THROWS_AS(lambda_growth(1, 0), ValueError);
}

TEST_CASE("E2 R starts uniform and no E step follows the last M step") {
  for (const EmProblem& p : em_problems(4)) {
    CAPTURE(p.name());
    std::vector<EmRouted> seen;
    EmOptions o = p.options;
    o.observe = [&](const EmRouted& r) { seen.push_back(r); };
    const EmRouted out = p.route(o);
    REQUIRE(seen.size() == p.lambdas.size());
    const double parents = static_cast<double>(p.votes.size(2));
    CHECK(max_difference(seen[0].assignments, full_like(seen[0].assignments, 1 / parents)) < 1e-14);
    CHECK(same_bits(out.assignments, seen.back().assignments));
    // R of the last M step belongs to the Gaussians of the step before.
    const EmRouted& before = seen[seen.size() - 2];
    const Tensor density = vote_log_density(p.votes, before.poses, before.variance);
    const Tensor expected = softmax(density + unsqueeze(log(before.activations), 1), -1);
    CHECK(max_difference(out.assignments, expected) < 1e-9);
  }
}

TEST_CASE("E3 input activations matter") {
  EmProblem p = em_problems(1, EmVariant::hinton)[0];
  const EmRouted before = p.route();
  for (const double factor : {0.5, 0.0}) {
    EmProblem q = p;
    q.a_in = p.a_in * from_vector([&] {
               std::vector<double> f(static_cast<std::size_t>(p.votes.size(1)), 1);
               f[0] = factor;
               return f;
             }());
    const EmRouted after = q.route();
    CHECK(max_difference(before.poses, after.poses) > 1e-3);
    CHECK(max_difference(before.activations, after.activations) > 1e-4);
  }
  p.a_in = p.a_in * 0.5;  // all of them: no pose of the first M step moves, but there is less data
  CHECK(max_difference(before.activations, p.route().activations) > 1e-4);
}

TEST_CASE("E4 the log density is that of a normal distribution") {
  const Tensor votes = normal({2, 5, 3, 4}, 1), mean = normal({2, 3, 4}, 2);
  const Tensor variance = exp(normal({2, 3, 4}, 3));
  const auto v = values(votes), m = values(mean), s = values(variance),
             y = values(vote_log_density(votes, mean, variance));
  std::size_t at = 0;
  for (std::size_t b = 0; b < 2; ++b)
    for (std::size_t i = 0; i < 5; ++i)
      for (std::size_t j = 0; j < 3; ++j) {
        double density = 1;
        for (std::size_t d = 0; d < 4; ++d) {
          const std::size_t g = (b * 3 + j) * 4 + d;
          const double x = v[((b * 5 + i) * 3 + j) * 4 + d] - m[g];
          density *= std::exp(-x * x / (2 * s[g])) / std::sqrt(2 * std::numbers::pi * s[g]);
        }
        CHECK(std::exp(y[at++]) == doctest::Approx(density).epsilon(1e-10));
      }
}

TEST_CASE("E6 a parent with a single child has the variance of the floor") {
  for (const EmVariant v : kVariants) {
    CAPTURE(static_cast<int>(v));
    EmProblem p(5, {2, 1, 3, 4}, v, 3);
    p.options.eps_var = 1e-4;
    const EmRouted r = p.route();
    CHECK(max_difference(r.variance, full_like(r.variance, 1e-4)) < 1e-18);
    CHECK(max_difference(r.poses, select(p.votes, 1, 0)) < 1e-15);
    for (const Tensor& g : p.gradients()) CHECK(all(isfinite(g)));
  }
}

TEST_CASE("E8 weights of 0 and far votes stay finite in float32, with their gradients") {
  for (const EmVariant v : kVariants)
    for (const double scale : {1e-3, 1.0, 1e3}) {
      CAPTURE(static_cast<int>(v));
      CAPTURE(scale);
      EmProblem p(6, {2, 7, 3, 4}, v, 3);
      p.votes = p.votes * scale;
      if (p.beta_a.defined()) p.beta_a = from_vector(std::vector<double>{-1e4, 0, 1e4});
      p.lambdas = {1, 1, 1};
      const EmProblem q = p.in(DType::f32);
      const EmRouted r = q.route();
      for (const Tensor& t : {r.poses, r.activations, r.assignments, r.variance})
        CHECK(all(isfinite(t)));
      for (const Tensor& g : q.gradients()) CHECK(all(isfinite(g)));
    }
}

TEST_CASE("E8 a starved parent keeps the exact mean of its votes") {
  EmProblem p(7, {1, 4, 2, 2}, EmVariant::v4, 1);
  p.options.init = {full({1, 2, 2}, 0, DType::f64), ones({1, 2, 2}, DType::f64),
                    full({1, 2}, 0.5, DType::f64)};
  Tensor mean = p.options.init.mean;
  mean.copy_(from_vector(std::vector<double>{100, 100, 0, 0}, {1, 2, 2}));
  std::vector<double> equal(4 * 2 * 2);  // votes at the same distance from the far mean
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 2; ++j) {
      equal[(i * 2 + j) * 2] = i % 2 == 0 ? 1 : -1;
      equal[(i * 2 + j) * 2 + 1] = i % 2 == 0 ? -1 : 1;
    }
  p.votes = from_vector(equal, {1, 4, 2, 2});
  p.a_in = ones({1, 4}, DType::f64);
  const EmRouted r = p.route();
  CHECK(largest(select(r.assignments, 2, 0)) == 0);  // every R underflows
  CHECK(max_difference(r.poses, zeros({1, 2, 2}, DType::f64)) < 1e-12);
}

TEST_CASE("E10 parents with equal votes and uniform R stay equal, an init tells them apart") {
  for (const EmVariant v : kVariants) {
    CAPTURE(static_cast<int>(v));
    EmProblem p(8, {2, 6, 3, 4}, v, 4);
    p.votes = contiguous(broadcast_to(narrow(p.votes, 2, 0, 1), p.votes.shape()));
    if (p.beta_a.defined()) p.beta_a = p.beta_u = full({3}, 0.2, DType::f64);
    p.options.eps_var = 1e-3;
    const EmRouted r = p.route();
    CHECK(max_difference(r.assignments, full_like(r.assignments, 1.0 / 3)) < 1e-12);
    CHECK(max_difference(select(r.poses, 1, 0), select(r.poses, 1, 2)) < 1e-12);
    p.options.init = {normal({2, 3, 4}, 9), ones({2, 3, 4}, DType::f64),
                      full({2, 3}, 0.5, DType::f64)};
    const Tensor apart = p.route().poses;
    CHECK(max_difference(select(apart, 1, 0), select(apart, 1, 2)) > 1e-2);
  }
}

TEST_CASE("E12 gradients flow through 1, 2 and 3 iterations of every variant") {
  for (const EmVariant v : kVariants)
    for (const int iterations : {1, 2, 3}) {
      if (testing::kSanitized && iterations == 3) continue;  // slow there
      CAPTURE(static_cast<int>(v));
      CAPTURE(iterations);
      EmProblem p(10, {2, 4, 3, 2}, v, iterations);
      p.options.eps_var = 1e-2;
      check_gradients(p.function(), p.inputs());
    }
}

TEST_CASE("E12 gradients of the initial Gaussians and with a mask") {
  for (const EmVariant v : {EmVariant::v1, EmVariant::hinton}) {
    EmProblem p(11, {2, 4, 3, 2}, v, 2);
    p.options.eps_var = 1e-2;
    p.options.mask = p.some_children();
    check_gradients(p.function(), p.inputs());
    const TensorList given{p.votes, normal({2, 3, 2}, 12), exp(normal({2, 3, 2}, 13)),
                           exp(normal({2, 3}, 14))};
    check_gradients(
        [p](const TensorList& in) -> TensorList {
          EmProblem q = p;
          q.votes = in[0];
          q.options.init = {in[1], in[2], in[3]};
          const EmRouted r = q.route();
          return {r.poses, r.activations};
        },
        given);
  }
}

TEST_CASE("detached: the same values, and the gradient of a weighted mean with constant weights") {
  for (const EmProblem& p : em_problems(2)) {
    CAPTURE(p.name());
    EmProblem q = p;
    q.options.detach = true;
    Tensor votes = p.votes.detach().requires_grad_();
    q.votes = votes;
    const EmRouted a = p.route(), b = q.route();
    CHECK(same_bits(a.poses, b.poses));
    CHECK(same_bits(a.activations, b.activations));
    CHECK(!b.assignments.requires_grad());
    const Tensor g = grad(sum(b.poses), votes);
    const Tensor w = p.uses_activation() ? a.assignments * unsqueeze(p.a_in, -1) : a.assignments;
    const Tensor r = w / sum(w, {1}, true);
    CHECK(max_difference(g, contiguous(broadcast_to(unsqueeze(r, -1), g.shape()))) < 1e-12);
  }
}

TEST_CASE("a sample routes the same alone and in a batch, and twice alike, with any threads") {
  for (const EmProblem& p : em_problems(2)) {
    CAPTURE(p.name());
    const EmRouted all = p.route();
    CHECK(same_bits(all.poses, p.route().poses));
    {
      const Threads one(1);
      CHECK(same_bits(all.activations, p.route().activations));
    }
    for (std::int64_t b = 0; b < p.votes.size(0); ++b) {
      const EmRouted alone = p.sample(b).route();
      CHECK(max_difference(alone.poses, narrow(all.poses, 0, b, 1)) < 1e-12);
      CHECK(max_difference(alone.activations, narrow(all.activations, 0, b, 1)) < 1e-12);
      CHECK(max_difference(alone.assignments, narrow(all.assignments, 0, b, 1)) < 1e-12);
    }
  }
}

TEST_CASE("a masked child takes no part, as if it were not there") {
  for (const EmVariant v : kVariants) {
    CAPTURE(static_cast<int>(v));
    EmProblem p(15, {2, 6, 3, 4}, v, 3);
    const EmProblem without = p.children({0, 2, 3, 5});
    p.options.mask = p.some_children();
    const EmRouted a = p.route(), b = without.route();
    CHECK(max_difference(a.poses, b.poses) < 1e-11);
    CHECK(max_difference(a.activations, b.activations) < 1e-11);
    CHECK(max_difference(a.variance, b.variance) < 1e-11);
    CHECK(largest(select(a.assignments, 1, 1)) == 0);
    CHECK(largest(select(a.assignments, 1, 4)) == 0);
    const TensorList g = p.gradients();
    CHECK(largest(select(g[0], 1, 4)) == 0);
    for (const Tensor& t : g) CHECK(all(isfinite(t)));
  }
}

TEST_CASE("parents that are not kept get no child, the others route as if alone") {
  for (const EmVariant v : kVariants)
    for (const int iterations : {1, 3}) {
      CAPTURE(static_cast<int>(v));
      EmProblem p(21, {2, 6, 4, 3}, v, iterations);
      const EmProblem without = p.parents({0, 2, 3});
      p.options.kept = broadcast_to(ne(arange(4), 1), {2, 4});
      const EmRouted a = p.route(), b = without.route();
      const Tensor kept = from_vector(std::vector<std::int64_t>{0, 2, 3});
      CHECK(largest(select(a.assignments, 2, 1)) == 0);
      CHECK(largest(select(a.poses, 1, 1)) == 0);
      CHECK(max_difference(index_select(a.assignments, 2, kept), b.assignments) < 1e-11);
      CHECK(max_difference(index_select(a.poses, 1, kept), b.poses) < 1e-11);
      CHECK(max_difference(index_select(a.activations, 1, kept), b.activations) < 1e-11);
      for (const Tensor& t : p.gradients()) CHECK(all(isfinite(t)));
    }
}

TEST_CASE("em_routing says what is wrong") {
  const EmProblem p(16, {2, 5, 3, 4}, EmVariant::hinton, 2);
  const auto text = [&](const auto& change) {
    EmProblem q = p;
    change(q);
    return message_of<Error>([&] { q.route(); });
  };
  CHECK(text([](EmProblem& q) { q.lambdas = {}; }) ==
        "em_routing: at least one lambda, one for each iteration. Hint: lambda_schedule(3)");
  CHECK(text([](EmProblem& q) { q.options.eps_var = -1; }) ==
        "em_routing: eps_var must be at least 0 and finite; got -1");
  CHECK(text([](EmProblem& q) {
          q.votes = zeros({2, 5, 3});
        }) == "em_routing: votes must be [B, I, J, D] with I, J, D at least 1; got [2, 5, 3]");
  CHECK(text([](EmProblem& q) { q.a_in = {}; }) ==
        "em_routing: this variant needs a_in [2, 5]; got none");
  CHECK(text([](EmProblem& q) { q.beta_u = zeros({4}, DType::f64); }) ==
        "em_routing: beta_u must be [3] for votes [2, 5, 3, 4]; got [4]");
  CHECK(text([](EmProblem& q) {
          q.options.init.mean = zeros({2, 3, 4}, DType::f64);
        }) == "em_routing: this variant needs the initial variance [2, 3, 4]; got none");
  CHECK(text([](EmProblem& q) {
          q.options.mask = zeros({2, 5}, DType::b8);
        }) == "em_routing: the mask keeps no child of some sample");
  CHECK(text([](EmProblem& q) {
          q.options.mask = zeros({2, 5}, DType::f64);
        }) == "em_routing: the mask and 'kept' must be b8; got f64");
  CHECK(text([](EmProblem& q) {
          q.options.kept = ones({2, 3}, DType::f64);
        }) == "em_routing: the mask and 'kept' must be b8; got f64");
  CHECK(contains(text([](EmProblem& q) {
                   q.options.kept = zeros({2, 3}, DType::b8);
                 }),
                 "keeps no upper capsule of some sample"));
  CHECK(message_of<ValueError>([] { em_variant("em"); }) ==
        "em_variant: one of v1, v2, v3, v4, hinton, eq12; got 'em'");
  CHECK(em_variant("eq12") == EmVariant::eq12);
  CHECK(contains(message_of<ShapeError>([] { cluster_entropy(zeros({2}), zeros({2})); }),
                 "cluster_entropy: r and log_density [B, I, J]"));
}
