// Self-attention routing: what its paper promises.

#include <array>
#include <cmath>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/self_attention_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "ops_support.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;

namespace {

/// The formula as printed, with the I x I table.
Tensor with_table(const Tensor& votes, const Tensor& prior) {
  const Tensor table = einsum("bijd,bkjd->bikj", votes, votes);
  const Tensor logits = sum(table, {2}) / std::sqrt(static_cast<double>(votes.size(3)));
  const Tensor s = einsum("bij,bijd->bjd", softmax(logits, -1) + prior, votes);
  const Tensor n = safe_norm(s, {-1}, true);
  return s / n * (1.0 - exp(-n));
}

}  // namespace

TEST_CASE("O1 self-attention: the sum over all children needs no table of pairs") {
  Rng rng(1);
  for (const auto& [b, i, j, d] : {std::array<std::int64_t, 4>{2, 7, 3, 5}, {1, 1, 1, 1}}) {
    const Tensor votes = rng.normal({b, i, j, d}, 0, 1, DType::f64),
                 prior = rng.normal({i, j}, 0, 1, DType::f64);
    CHECK(max_difference(self_attention_routing(votes, {}, prior).poses, with_table(votes, prior)) <
          1e-12);
  }
  // I x I numbers would be 67 MB, the votes are 131 kB.
  const Tensor many = randn({1, 4096, 2, 4}, rng);
  const std::size_t before = memory_stats().live;
  reset_peak_memory();
  self_attention_routing(many);
  CHECK(memory_stats().peak - before < 10 * 131072);
}

TEST_CASE("O1 self-attention: couplings of a child sum to 1 and the log priors, which are added") {
  Rng rng(2);
  const Tensor votes = rng.normal({2, 6, 3, 4}, 0, 1, DType::f64),
               prior = rng.normal({6, 3}, 0, 1, DType::f64);
  const Tensor plain = self_attention_routing(votes).couplings,
               with = self_attention_routing(votes, {}, prior).couplings;
  CHECK(max_difference(sum(plain, {-1}), ones({2, 6}, DType::f64)) < 1e-12);
  CHECK(max_difference(with - plain, broadcast_to(prior, with.shape())) < 1e-12);
  CHECK(min(plain).item() > 0);
}

TEST_CASE("self-attention: the standard squash on demand, lengths below 1 with both") {
  Rng rng(3);
  const Tensor votes = rng.normal({2, 20, 3, 4}, 0, 2, DType::f64);
  const Routed a = self_attention_routing(votes),
               b = self_attention_routing(votes, {.squash = PoseSquash::standard, .squash_c = 0.5});
  CHECK(max_difference(b.poses, squash(weighted_sum(a.couplings, votes), 0.5)) < 1e-12);
  CHECK(max(safe_norm(a.poses)).item() < 1);
  CHECK(max(safe_norm(b.poses)).item() < 1);
  CHECK(RoutingSpec("self-attention:squash=standard").get("squash_c") == "1");
}

TEST_CASE("self-attention: 16 children and 10 parents have 160 priors, and they learn") {
  Rng rng(4);
  DenseCapsules caps(16, 8, 10, 16, rng, {.routing = "self-attention"});
  CHECK(caps.routing().parameter_count() == 160);
  CHECK(caps.parameter_count() == 20480 + 160);
  backward(sum(square(caps.route(randn({2, 16, 8}, rng)).poses)));
  CHECK(max(abs(caps.routing().parameters()[0].grad())).item() > 0);
}

TEST_CASE("self-attention: zero votes give zero poses and finite gradients") {
  Tensor votes = zeros({1, 3, 2, 4}, DType::f64).requires_grad_();
  const Routed out = self_attention_routing(votes);
  CHECK(max(abs(out.poses)).item() == 0);
  CHECK(max_difference(out.couplings, full({1, 3, 2}, 0.5, DType::f64)) < 1e-15);
  CHECK(all(isfinite(grad(sum(out.poses), votes))));
}

TEST_CASE("self-attention: a prior gives nothing to parents that are not kept") {
  Rng rng(6);
  const Tensor votes = rng.normal({2, 3, 4, 5}, 0, 1, DType::f64),
               prior = rng.normal({3, 4}, 0, 1, DType::f64);
  const Tensor kept = gt(from_vector<double>({1, 0, 1, 1, 0, 1, 1, 0}, {2, 4}), 0.5);
  const Routed out = self_attention_routing(votes, {}, prior, kept);
  const Tensor expected =
      where(unsqueeze(kept, 1), self_attention_routing(votes, {}, {}, kept).couplings + prior, 0.0);
  CHECK(max_difference(out.couplings, expected) < 1e-15);
  CHECK(max_difference(where(unsqueeze(kept, -1), 0.0, out.poses), zeros({2, 4, 5}, DType::f64)) ==
        0);
}

TEST_CASE("self-attention: what is wrong is said") {
  Rng rng(5);
  CHECK(contains(message_of<ValueError>(
                     [&] { RoutingSpec("self-attention").make({.parents = 2, .dim = 3}, rng); }),
                 "Hint: prior=false"));
  RoutingSpec("self-attention:prior=false").make({.parents = 2, .dim = 3}, rng);
  CHECK(message_of<ShapeError>([] {
          self_attention_routing(zeros({1, 3, 2, 4}), {}, zeros({2, 2}));
        }) ==
        "self_attention_routing: the prior must be [3, 2] for votes [1, 3, 2, 4]; got [2, 2]");
  CHECK_THROWS_AS(self_attention_routing(zeros({1, 3, 2, 4}), {.squash_c = 0}), ValueError);
  const auto routing =
      RoutingSpec("self-attention").make({.children = 3, .parents = 2, .dim = 4}, rng);
  CHECK_THROWS_AS(routing->set_iterations(2), ValueError);
  routing->set_iterations(1);
}
