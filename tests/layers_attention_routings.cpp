// Inverted attention and self-routing: what their papers promise.

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/inverted_attention_routing.hpp>
#include <capsfw/layers/self_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/normalize.hpp>
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
using capsfw::testing::same_bits;

namespace {

Tensor draw(const Shape& shape, std::uint64_t seed, double std = 1) {
  return Rng(seed).normal(shape, 0, std, DType::f64);
}

std::unique_ptr<Routing> make(const std::string& spec, const RoutingSize& size) {
  Rng rng(7);
  auto routing = RoutingSpec(spec).make(size, rng);
  routing->to(DType::f64);
  return routing;
}

}  // namespace

TEST_CASE("O2 inverted attention: uniform first, then softmax over the parents") {
  const Tensor votes = draw({2, 6, 3, 4}, 1);
  std::vector<RoutingStep> steps;
  const Routed out = inverted_attention_routing(votes, {.iterations = 3}, {}, {}, {},
                                                [&](const RoutingStep& s) { steps.push_back(s); });
  REQUIRE(steps.size() == 3);
  CHECK(max_difference(steps[0].couplings, full({2, 6, 3}, 1.0 / 3, DType::f64)) < 1e-15);
  for (int t = 1; t < 3; ++t) {
    const RoutingStep &before = steps[static_cast<std::size_t>(t - 1)],
                      &step = steps[static_cast<std::size_t>(t)];
    CHECK(max_difference(step.couplings, softmax(agreement(votes, before.poses), -1)) < 1e-14);
    CHECK(max_difference(sum(step.couplings, {2}), ones({2, 6}, DType::f64)) < 1e-12);
    CHECK(max_difference(step.poses, layer_norm(weighted_sum(step.couplings, votes))) < 1e-12);
  }
  CHECK(max_difference(steps[1].couplings, steps[0].couplings) > 0.01);
  CHECK(same_bits(out.poses, steps[2].poses));
}

TEST_CASE("O2 inverted attention: poses are normalised, with one gamma and beta for all parents") {
  const Tensor votes = draw({2, 9, 3, 8}, 2), gamma = draw({8}, 3), beta = draw({8}, 4);
  const Tensor plain = inverted_attention_routing(votes, {.iterations = 1, .eps = 0}).poses;
  CHECK(largest(mean(plain, {-1})) < 1e-12);
  CHECK(max_difference(var(plain, {-1}, 0), ones({2, 3}, DType::f64)) < 1e-12);
  CHECK(max_difference(
            inverted_attention_routing(votes, {.iterations = 1, .eps = 0}, gamma, beta).poses,
            plain * gamma + beta) < 1e-12);
}

TEST_CASE("O2 inverted attention: nothing that is saved changes, a graph runs backward twice") {
  Tensor votes = draw({2, 6, 3, 4}, 5);
  const Tensor copy = empty_like(votes).copy_(votes);
  votes.requires_grad_();
  const Tensor loss =
      sum(square(inverted_attention_routing(votes, {.iterations = 3}).poses) * draw({2, 3, 4}, 6));
  const Tensor once = grad(loss, votes, {}, {.retain_graph = true}), again = grad(loss, votes);
  CHECK(same_bits(once, again));
  CHECK(same_bits(votes.detach(), copy));
}

TEST_CASE("inverted attention: activations lie in (0, 1) and tell parents of one length apart") {
  const auto routing = make("inverted-attention", {.children = 6, .parents = 3, .dim = 8});
  CHECK(routing->parameter_count() == 3 * 8 + 1);
  const Routed out = (*routing)({.votes = draw({4, 6, 3, 8}, 8)});
  CHECK(max_difference(safe_norm(out.poses), full({4, 3}, std::sqrt(8), DType::f64)) < 1e-2);
  CHECK(min(out.activations).item() > 0);
  CHECK(max(out.activations).item() < 1);
  CHECK(var(out.activations).item() > 1e-3);
  routing->set_iterations(1);
  CHECK(routing->iterations() == 1);
  CHECK(max_difference((*routing)({.votes = draw({4, 6, 3, 8}, 8)}).couplings,
                       full({4, 6, 3}, 1.0 / 3, DType::f64)) < 1e-15);
  CHECK(message_of<ValueError>([&] { routing->set_iterations(0); }) ==
        "inverted_attention_routing: at least 1 iteration; got 0");
  CHECK_THROWS_AS(make("inverted-attention:iterations=0", {.parents = 1, .dim = 1}), ValueError);
}

TEST_CASE("self-routing: couplings depend on the own pose alone, not on any vote") {
  const RoutingSize size{.children = 5, .parents = 3, .dim = 4, .child_dim = 6};
  const auto routing = make("self-routing", size);
  const Tensor u = draw({2, 5, 6}, 1), votes = draw({2, 5, 3, 4}, 2);
  const Routed a = (*routing)({.votes = votes, .poses = u}),
               b = (*routing)({.votes = draw({2, 5, 3, 4}, 3), .poses = u});
  CHECK(same_bits(a.couplings, b.couplings));
  // Child 2 changes: only its couplings do.
  const Tensor third = broadcast_to(unsqueeze(unsqueeze(eq(arange(5), 2), 0), -1), {2, 5, 6});
  const Routed c = (*routing)({.votes = votes, .poses = where(third, -u, u)});
  const Tensor change = sum(abs(c.couplings - a.couplings), {0, 2});
  for (std::int64_t i = 0; i < 5; ++i) CHECK((select(change, 0, i).item() > 1e-3) == (i == 2));
}

TEST_CASE("self-routing: activations are shares of those below, poses are means of votes") {
  const RoutingSize size{.children = 5, .parents = 3, .dim = 4, .child_dim = 6};
  const auto routing = make("self-routing", size);
  const Tensor a = Rng(4).uniform({2, 5}, 0, 1, DType::f64);
  const Tensor one = draw({1, 1, 1, 4}, 5);
  const Routed out = (*routing)(
      {.votes = broadcast_to(one, {2, 5, 3, 4}), .poses = draw({2, 5, 6}, 1), .activations = a});
  CHECK(max_difference(sum(out.activations, {1}), ones({2}, DType::f64)) < 1e-12);
  CHECK(max_difference(out.activations,
                       sum(out.couplings * unsqueeze(a, -1), {1}) / sum(a, {1}, true)) < 1e-12);
  CHECK(max_difference(out.poses, broadcast_to(reshape(one, {1, 1, 4}), {2, 3, 4})) < 1e-12);
}

TEST_CASE(
    "self-routing: the lengths of the poses stand in for activations, and all zero stays finite") {
  const RoutingSize size{.children = 5, .parents = 3, .dim = 4, .child_dim = 6};
  const auto routing = make("self-routing", size);
  const Tensor u = draw({2, 5, 6}, 1), votes = draw({2, 5, 3, 4}, 2);
  CHECK(same_bits((*routing)({.votes = votes, .poses = u}).poses,
                  (*routing)({.votes = votes, .poses = u, .activations = safe_norm(u)}).poses));
  Tensor none = zeros({2, 5, 6}, DType::f64).requires_grad_();
  const Routed out = (*routing)({.votes = votes, .poses = none});
  CHECK(largest(out.poses) == 0);
  CHECK(largest(out.activations) == 0);
  CHECK(all(isfinite(grad(sum(out.poses) + sum(out.activations), none))));
}

TEST_CASE("self-routing: children that do not exist are left out of all sums") {
  const RoutingSize size{.children = 5, .parents = 3, .dim = 4, .child_dim = 6};
  const auto routing = make("self-routing", size);
  const Tensor u = draw({2, 5, 6}, 1), votes = draw({2, 5, 3, 4}, 2);
  const Tensor there = broadcast_to(lt(arange(5), 3), {2, 5});
  const Tensor nan = where(unsqueeze(there, -1), u, NAN);
  const Routed out = (*routing)({.votes = votes, .poses = nan, .exists = there});
  const auto first = [](const Tensor& t, int axis) { return narrow(t, axis, 0, 3); };
  const Tensor w = routing->parameters()[0], b = routing->parameters()[1];
  const Routed few =
      self_routing(first(votes, 1), first(u, 1), safe_norm(first(u, 1)), first(w, 0), first(b, 0));
  CHECK(max_difference(out.poses, few.poses) < 1e-12);
  CHECK(max_difference(out.activations, few.activations) < 1e-12);
  CHECK(largest(narrow(out.couplings, 1, 3, 2)) == 0);
}

TEST_CASE("self-routing: what is wrong is said") {
  CHECK(contains(message_of<ValueError>([] { make("self-routing", {.parents = 2, .dim = 3}); }),
                 "needs a fixed number of children of a known size; got 0 of 0"));
  const auto routing =
      make("self-routing", {.children = 3, .parents = 2, .dim = 4, .child_dim = 5});
  CHECK(message_of<ValueError>([&] {
          (*routing)({.votes = draw({1, 3, 2, 4}, 1)});
        }) == "self_routing: routes by the poses of the children; got none");
  CHECK_THROWS_AS((*routing)({.votes = draw({1, 3, 2, 4}, 1), .poses = draw({1, 3, 4}, 1)}),
                  ShapeError);
  CHECK_THROWS_AS(routing->set_iterations(2), ValueError);
}
