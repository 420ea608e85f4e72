// What holds for EM routing whatever the votes, and what does not.

#include <doctest/doctest.h>

#include <algorithm>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

constexpr double kTolerance = 1e-9;

void check_same(const EmRouted& a, const EmRouted& b) {
  CHECK(max_difference(a.poses, b.poses) < kTolerance);
  CHECK(max_difference(a.activations, b.activations) < kTolerance);
  CHECK(max_difference(a.assignments, b.assignments) < kTolerance);
  CHECK(max_difference(a.variance, b.variance) < kTolerance);
}

/// Random problems with enough children for variances that need no floor.
std::vector<EmProblem> without_floor() {
  std::vector<EmProblem> out;
  for (const EmVariant v : kVariants)
    for (std::uint64_t k = 0; k < 3; ++k) {
      Rng rng(500 + k);
      EmProblem p(600 + k,
                  {1 + rng.below(2), 12 + rng.below(8), 2 + rng.below(2), 2 + rng.below(3)}, v, 2);
      p.options.eps_var = 0;
      out.push_back(p);
    }
  return out;
}

std::vector<std::int64_t> reversed(std::int64_t n) {
  std::vector<std::int64_t> out;
  for (std::int64_t k = n - 1; k >= 0; --k) out.push_back(k);
  return out;
}

}  // namespace

TEST_CASE("the shares of a child add up to 1") {
  for (const EmProblem& p : em_problems(4)) {
    CAPTURE(p.name());
    const Tensor total = sum(p.route().assignments, {2});
    CHECK(max_difference(total, ones_like(total)) < 1e-12);
  }
}

TEST_CASE("moving all votes of a parent moves its pose and nothing else") {
  for (const EmProblem& p : without_floor()) {
    CAPTURE(p.name());
    const Tensor t = normal({p.votes.size(2), p.votes.size(3)}, 3);
    EmProblem q = p;
    q.votes = p.votes + t;
    EmRouted a = p.route();
    a.poses = a.poses + t;
    check_same(a, q.route());
  }
}

TEST_CASE("the order of children, parents and coordinates does not matter, nor does their sign") {
  for (const EmProblem& p : without_floor()) {
    CAPTURE(p.name());
    const std::int64_t i = p.votes.size(1), j = p.votes.size(2), d = p.votes.size(3);
    const Tensor back = from_vector(reversed(j)), turned = from_vector(reversed(d));
    const EmRouted a = p.route(), b = p.children(reversed(i)).route(),
                   c = p.parents(reversed(j)).route();
    CHECK(max_difference(a.poses, b.poses) < kTolerance);
    CHECK(max_difference(a.activations, b.activations) < kTolerance);
    CHECK(max_difference(index_select(a.poses, 1, back), c.poses) < kTolerance);
    CHECK(max_difference(index_select(a.activations, 1, back), c.activations) < kTolerance);
    EmProblem q = p;
    q.votes = -index_select(p.votes, 3, turned);
    const EmRouted e = q.route();
    CHECK(max_difference(-index_select(a.poses, 2, turned), e.poses) < kTolerance);
    CHECK(max_difference(a.activations, e.activations) < kTolerance);
    CHECK(max_difference(a.assignments, e.assignments) < kTolerance);
  }
}

TEST_CASE("one iteration gives the weighted mean of the votes") {
  for (EmProblem p : em_problems(2)) {
    CAPTURE(p.name());
    p.lambdas = {0.5};
    const Tensor w =
        p.uses_activation() ? p.a_in : ones({p.votes.size(0), p.votes.size(1)}, DType::f64);
    const Tensor column = unsqueeze(unsqueeze(w, -1), -1);
    CHECK(max_difference(p.route().poses, sum(p.votes * column, {1}) / sum(column, {1})) < 1e-12);
  }
}

TEST_CASE("a child of activation 0 has no influence, if all are 0 the pose is 0") {
  for (EmProblem p : em_problems(2)) {
    if (!p.uses_activation()) continue;
    CAPTURE(p.name());
    const std::int64_t i = p.votes.size(1);
    std::vector<double> factor(static_cast<std::size_t>(i), 1);
    factor[0] = 0;
    p.a_in = p.a_in * from_vector(factor);
    std::vector<std::int64_t> rest = reversed(i);
    rest.pop_back();
    const EmRouted a = p.route(), b = p.children(rest).route();
    CHECK(max_difference(a.poses, b.poses) < kTolerance);
    CHECK(max_difference(a.activations, b.activations) < kTolerance);
    p.a_in = zeros_like(p.a_in);
    const EmRouted none = p.route();
    CHECK(largest(none.poses) == 0);
    CHECK(max_difference(none.variance, full_like(none.variance, p.options.eps_var)) == 0);
    if (p.options.variant == EmVariant::hinton)
      CHECK(max_difference(none.activations,
                           contiguous(broadcast_to(sigmoid(p.beta_a * p.lambdas.back()),
                                                   none.activations.shape()))) < 1e-14);
    for (const Tensor& g : p.gradients()) CHECK(all(isfinite(g)));
  }
}

TEST_CASE("v3 with equal activations is v2") {
  for (EmProblem p : em_problems(3, EmVariant::v3)) {
    p.a_in = full_like(p.a_in, 0.3);
    EmProblem q = p;
    q.options.variant = EmVariant::v2;
    check_same(p.route(), q.route());
  }
}

TEST_CASE("beta_u of the paper counts once per dimension: hinton is v4 with D beta_u") {
  for (const EmProblem& p : em_problems(3, EmVariant::hinton)) {
    EmProblem q = p;
    q.options.variant = EmVariant::v4;
    q.beta_u = p.beta_u * static_cast<double>(p.votes.size(3));
    check_same(p.route(), q.route());
  }
}

TEST_CASE("scaling the votes scales the poses once beta_u makes up for ln s") {
  constexpr double s = 3;
  for (const EmProblem& p : without_floor()) {
    if (p.options.variant == EmVariant::eq12) continue;
    CAPTURE(p.name());
    EmProblem q = p;
    q.votes = p.votes * s;
    const bool v1 = p.options.variant == EmVariant::v1;
    const EmRouted before = p.route();
    if (!v1) {
      CHECK(max_difference(before.activations, q.route().activations) > 1e-4);  // not by itself
      const bool once = p.options.variant != EmVariant::hinton;
      q.beta_u = p.beta_u - std::log(s) * (once ? static_cast<double>(p.votes.size(3)) : 1.0);
    }
    const EmRouted after = q.route();
    CHECK(max_difference(before.poses * s, after.poses) < kTolerance);
    CHECK(max_difference(before.activations, after.activations) < kTolerance);
    CHECK(max_difference(before.assignments, after.assignments) < kTolerance);
  }
}

TEST_CASE("v1 never lowers the likelihood of its mixture") {
  for (EmProblem p : without_floor()) {
    if (p.options.variant != EmVariant::v1) continue;
    p.lambdas.assign(8, 0);
    std::vector<double> likelihood;
    p.options.observe = [&](const EmRouted& r) {
      const Tensor density = vote_log_density(p.votes, r.poses, r.variance);
      likelihood.push_back(sum(logsumexp(density + unsqueeze(log(r.activations), 1), {2})).item());
    };
    p.route();
    REQUIRE(likelihood.size() == 8);
    CHECK(likelihood.back() > likelihood.front());
    for (std::size_t t = 1; t < likelihood.size(); ++t)
      CHECK(likelihood[t] >= likelihood[t - 1] - 1e-9);
  }
}

TEST_CASE("the entropy of a cluster in closed form") {
  const Tensor votes = normal({2, 6, 3, 4}, 20), logits = normal({2, 6, 3}, 21);
  const Tensor r = exp(logits) / sum(exp(logits), {1}, true);
  const Tensor column = unsqueeze(r, -1), mean = sum(column * votes, {1});
  const Tensor variance = sum(column * square(votes - unsqueeze(mean, 1)), {1});
  const Tensor open = cluster_entropy(r, vote_log_density(votes, mean, variance));
  CHECK(max_difference(open, cluster_entropy_closed(r, variance)) < 1e-12);
}
