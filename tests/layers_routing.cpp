// Dynamic routing: what every implementation must keep to (rows D1 to D13 are bugs seen in public
// capsule code), its invariants, and its errors.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/gradcheck.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;
using capsfw::testing::values;

namespace {

Tensor noise(const Shape& shape, std::uint64_t seed = 1, double scale = 1.0) {
  Rng rng(seed);
  return rng.normal(shape, 0, scale, DType::f64);
}

/// Couplings of iteration r, written down from the paper with plain loops for one sample: the
/// logits are added to (`replace`: overwritten, as some implementations do).
std::vector<double> couplings_by_hand(const Tensor& votes, int r, bool replace) {
  const auto I = static_cast<std::size_t>(votes.size(1)),
             J = static_cast<std::size_t>(votes.size(2)),
             D = static_cast<std::size_t>(votes.size(3));
  const auto u = values(votes);
  std::vector<double> b(I * J, 0.0), c(I * J);
  for (int t = 1;; ++t) {
    for (std::size_t i = 0; i < I; ++i) {
      double total = 0;
      for (std::size_t j = 0; j < J; ++j) total += std::exp(b[i * J + j]);
      for (std::size_t j = 0; j < J; ++j) c[i * J + j] = std::exp(b[i * J + j]) / total;
    }
    if (t == r) return c;
    for (std::size_t j = 0; j < J; ++j) {
      std::vector<double> s(D, 0.0);
      double n = 0;
      for (std::size_t i = 0; i < I; ++i)
        for (std::size_t d = 0; d < D; ++d) s[d] += c[i * J + j] * u[(i * J + j) * D + d];
      for (double x : s) n += x * x;
      for (std::size_t i = 0; i < I; ++i) {
        double a = 0;
        for (std::size_t d = 0; d < D; ++d)
          a += u[(i * J + j) * D + d] * s[d] * std::sqrt(n) / (1 + n);
        b[i * J + j] = (replace ? 0.0 : b[i * J + j]) + a;
      }
    }
  }
}

double difference(const std::vector<double>& a, const Tensor& b) {
  return max_difference(from_vector(a, b.shape()), b);
}

/// A random orthogonal matrix: two reflections.
Tensor rotation(std::int64_t d, std::uint64_t seed) {
  Tensor q = eye(d, DType::f64);
  for (int k = 0; k < 2; ++k) {
    const Tensor n = safe_normalize(noise({d}, seed + static_cast<std::uint64_t>(k)));
    q = matmul(q, eye(d, DType::f64) - 2.0 * unsqueeze(n, 1) * unsqueeze(n, 0));
  }
  return q;
}

}  // namespace

TEST_CASE("D1 softmax over parents: the couplings of every child sum to 1") {
  for (const int r : {1, 2, 4}) {
    const Tensor c = dynamic_routing(noise({3, 7, 4, 5}), {.iterations = r}).couplings;
    REQUIRE(c.shape() == Shape{3, 7, 4});
    CHECK(max_difference(sum(c, {2}), ones({3, 7}, DType::f64)) < 1e-14);
    if (r > 1) CHECK(max_difference(sum(c, {1}), full({3, 4}, 7.0 / 4, DType::f64)) > 0.01);
  }
}

TEST_CASE("D2 logits of 1e4 are finite and select, a NaN surfaces") {
  const Tensor c = couplings(from_vector<double>({1e4, -1e4, 0, 1e4, 1e4, -1e4}, {1, 2, 3}));
  CHECK(values(c) == std::vector<double>{1, 0, 0, 0.5, 0.5, 0});
  for (const DType dtype : {DType::f64, DType::f32}) {
    Tensor votes = cast_data(noise({9, 5, 3, 4}, 2, 3e3), dtype);
    votes.requires_grad_();
    const Routed out = dynamic_routing(votes);
    const Tensor g = grad(sum(square(out.poses)), votes);
    CHECK(testing::largest(lengths(out.poses)) <= 1 + 1e-6);
    for (const Tensor& x : {out.poses, out.couplings, g})
      for (double v : values(x)) REQUIRE(std::isfinite(v));
    // One NaN: its sample is lost, visibly, and no other.
    Tensor bad = empty_like(votes);
    bad.copy_(votes);
    visit_float(dtype, "test", [&]<class T>() { bad.mutable_data<T>()[4 * 60 + 7] = T(NAN); });
    const Routed lost = dynamic_routing(bad);
    for (std::int64_t b = 0; b < 9; ++b) {
      const bool any_nan = any(isnan(select(lost.poses, 0, b)));
      CHECK(any_nan == (b == 4));
      if (b != 4) CHECK(same_bits(select(lost.poses, 0, b), select(out.poses.detach(), 0, b)));
    }
  }
}

TEST_CASE("D3 a sample in a batch is routed as if it were alone") {
  const Tensor votes = noise({17, 50, 4, 8});
  const Routed batch = dynamic_routing(votes);
  for (const std::int64_t k : {0, 5, 16}) {
    const Routed alone = dynamic_routing(narrow(votes, 0, k, 1));
    CHECK(max_difference(narrow(batch.poses, 0, k, 1), alone.poses) < 1e-14);
    CHECK(max_difference(narrow(batch.couplings, 0, k, 1), alone.couplings) < 1e-14);
  }
}

TEST_CASE("D4 the logits start again in every forward pass") {
  const Tensor votes = noise({2, 9, 3, 4});
  const Routed first = dynamic_routing(votes);
  dynamic_routing(noise({2, 9, 3, 4}, 7));
  const Routed again = dynamic_routing(votes);
  CHECK(same_bits(first.poses, again.poses));
  CHECK(same_bits(first.couplings, again.couplings));
}

TEST_CASE("D5 one iteration is the squash of the uniform average over parents") {
  const Tensor votes = noise({2, 9, 3, 4});
  for (const bool leaky : {false, true}) {
    const Routed out = dynamic_routing(votes, {.iterations = 1, .leaky = leaky});
    const double share = 1.0 / (leaky ? 4 : 3);
    CHECK(max_difference(out.poses, squash(sum(votes, {1}) * share)) < 1e-14);
    CHECK(max_difference(out.couplings, full({2, 9, 3}, share, DType::f64)) < 1e-15);
  }
}

TEST_CASE("D6 the logits accumulate, and the last iteration does not change them") {
  const Tensor votes = noise({1, 8, 3, 4});
  for (const int r : {2, 3, 6}) {
    const Routed out = dynamic_routing(votes, {.iterations = r});
    const Tensor c = select(out.couplings, 0, 0);
    CHECK(difference(couplings_by_hand(votes, r, false), c) < 1e-13);
    // r updates instead of r − 1 would be visible, and so would replaced logits.
    CHECK(difference(couplings_by_hand(votes, r + 1, false), c) > 1e-3);
    if (r > 2) CHECK(difference(couplings_by_hand(votes, r, true), c) > 1e-3);
    CHECK(max_difference(out.poses, squash(weighted_sum(out.couplings, votes))) < 1e-14);
  }
}

TEST_CASE("D7 full and detached gradients: equal values, each right about what it differentiates") {
  const Tensor votes = noise({2, 6, 3, 4}), weights = noise({2, 3, 4}, 5);
  const auto gradient = [&](int r, bool detach) {
    Tensor x = votes.detach().requires_grad_();
    const Routed out = dynamic_routing(x, {.iterations = r, .detach = detach});
    CHECK(out.couplings.requires_grad() == (r > 1 && !detach));
    return std::pair{out, grad(sum(out.poses * weights), x)};
  };
  for (const int r : {1, 2, 3}) {
    const auto [full_out, full_grad] = gradient(r, false);
    const auto [cut_out, cut_grad] = gradient(r, true);
    CHECK(same_bits(full_out.poses.detach(), cut_out.poses.detach()));
    CHECK(same_bits(full_out.couplings.detach(), cut_out.couplings));
    CHECK((max_difference(full_grad, cut_grad) > 1e-3) == (r > 1));
    // Detached: the gradient with the couplings frozen, which agrees with its own differences.
    const Tensor c = cut_out.couplings;
    const Function frozen = [c](const TensorList& in) -> TensorList {
      return {squash(weighted_sum(c, in[0]))};
    };
    Tensor x = votes.detach().requires_grad_();
    CHECK(max_difference(cut_grad, grad(sum(frozen({x})[0] * weights), x)) < 1e-14);
    const GradcheckResult checked = gradcheck(frozen, {votes});
    CHECK_MESSAGE(checked.ok, checked.message);
    const auto routing = [r](const TensorList& in) -> TensorList {
      return {dynamic_routing(in[0], {.iterations = r}).poses};
    };
    const GradcheckResult whole = gradcheck(routing, {votes});
    CHECK_MESSAGE(whole.ok, whole.message);
  }
}

TEST_CASE("D8 leaky: couplings are exp / (Σ exp + 1), as with an extra parent without votes") {
  const Tensor votes = noise({2, 9, 3, 4});
  const Tensor b = noise({2, 9, 3}, 4), e = exp(b);
  CHECK(max_difference(couplings(b, {}, true), e / (sum(e, {2}, true) + 1.0)) < 1e-14);
  const Routed out = dynamic_routing(votes, {.leaky = true});
  CHECK(values(lt(sum(out.couplings, {2}), 1.0 - 1e-6)) == std::vector<double>(18, 1.0));
  const Routed more = dynamic_routing(cat({votes, zeros({2, 9, 1, 4}, DType::f64)}, 2));
  CHECK(max_difference(out.poses, narrow(more.poses, 1, 0, 3)) < 1e-14);
  CHECK(max_difference(out.couplings, narrow(more.couplings, 2, 0, 3)) < 1e-14);
}

TEST_CASE("D9 routing is odd in the votes, couplings do not see the sign") {
  const Tensor votes = noise({2, 9, 3, 4});
  const Routed plus = dynamic_routing(votes), minus = dynamic_routing(neg(votes));
  CHECK(max_difference(plus.poses, neg(minus.poses)) < 1e-15);
  CHECK(max_difference(plus.couplings, minus.couplings) < 1e-15);
}

TEST_CASE("D11 shared weights route like full weights with equal copies") {
  Rng rng(1);
  DenseCapsules shared(6, 4, 3, 5, rng, {.votes = VoteWeights::shared, .init_std = 1.0}),
      whole(6, 4, 3, 5, rng, {});
  for (std::int64_t i = 0; i < 6; ++i)
    select(whole.votes.weight.detach(), 0, i).copy_(shared.votes.weight);
  // Two orders of summation, and logits of 10: some roundings of float32 apart.
  const Tensor u = noise({2, 6, 4}, 3), single = cast_data(u, DType::f32);
  CHECK(max_difference(shared.route(single).poses, whole.route(single).poses) < 1e-5);
  shared.to(DType::f64);
  whole.to(DType::f64);
  CHECK(max_difference(shared.route(u).poses, whole.route(u).poses) < 1e-13);
}

TEST_CASE("D12 sizes of one keep their axes") {
  for (const Shape& shape :
       {Shape{1, 1, 1, 1}, Shape{1, 5, 1, 3}, Shape{1, 1, 4, 3}, Shape{2, 5, 3, 1}})
    for (const int r : {1, 3}) {
      const Routed out = dynamic_routing(noise(shape), {.iterations = r});
      CHECK(out.poses.shape() == Shape{shape[0], shape[2], shape[3]});
      CHECK(out.couplings.shape() == Shape{shape[0], shape[1], shape[2]});
      if (shape[2] == 1) CHECK(max_difference(out.couplings, ones_like(out.couplings)) == 0);
    }
  const Routed empty = dynamic_routing(zeros({0, 5, 3, 4}));
  CHECK(empty.poses.shape() == Shape{0, 3, 4});
}

TEST_CASE("D13 permuted children leave the parents, permuted parents permute them") {
  const Tensor votes = noise({2, 70, 4, 5});
  Rng rng(3);
  const Routed out = dynamic_routing(votes);
  const Tensor children = rng.permutation(70), parents = rng.permutation(4);
  const Routed a = dynamic_routing(index_select(votes, 1, children));
  CHECK(max_difference(a.poses, out.poses) < 1e-13);
  CHECK(max_difference(a.couplings, index_select(out.couplings, 1, children)) < 1e-13);
  const Routed b = dynamic_routing(index_select(votes, 2, parents));
  CHECK(max_difference(b.poses, index_select(out.poses, 1, parents)) < 1e-13);
  CHECK(max_difference(b.couplings, index_select(out.couplings, 2, parents)) < 1e-13);
}

TEST_CASE("a rotation of the votes, another one for each parent, rotates the poses") {
  const Tensor votes = noise({2, 9, 3, 5});
  TensorList turned, expected;
  const Routed out = dynamic_routing(votes, {.squash_c = 0.5});
  for (std::int64_t j = 0; j < 3; ++j) {
    const Tensor q = rotation(5, static_cast<std::uint64_t>(10 * j + 1));
    turned.push_back(matmul(select(votes, 2, j), q));
    expected.push_back(matmul(select(out.poses, 1, j), q));
  }
  const Routed rotated = dynamic_routing(stack(turned, 2), {.squash_c = 0.5});
  CHECK(max_difference(rotated.poses, stack(expected, 1)) < 1e-14);
  CHECK(max_difference(rotated.couplings, out.couplings) < 1e-14);
}

TEST_CASE("a mask routes among the kept parents alone, a dropped one has length 0") {
  const Tensor votes = noise({2, 9, 4, 5});
  const Tensor mask = from_vector<double>({1, 0, 1, 1, 0, 2, 0, 3}, {2, 4});
  const std::vector<std::vector<std::int64_t>> kept{{0, 2, 3}, {1, 3}};
  for (const bool leaky : {false, true}) {
    const Routed out = dynamic_routing(votes, {.leaky = leaky}, {.mask = mask});
    for (std::int64_t b = 0; b < 2; ++b) {
      const Tensor index = from_vector(kept[static_cast<std::size_t>(b)]);
      const Routed some =
          dynamic_routing(index_select(narrow(votes, 0, b, 1), 2, index), {.leaky = leaky});
      CHECK(max_difference(index_select(narrow(out.poses, 0, b, 1), 1, index), some.poses) < 1e-14);
      CHECK(max_difference(index_select(narrow(out.couplings, 0, b, 1), 2, index), some.couplings) <
            1e-14);
    }
    const Tensor dropped = eq(mask, 0.0);
    CHECK(testing::largest(where(dropped, lengths(out.poses), 0.0)) == 0);
    CHECK(testing::largest(where(unsqueeze(dropped, 1), out.couplings, 0.0)) == 0);
  }
}

TEST_CASE("dynamic routing says what is wrong") {
  const Tensor votes = zeros({2, 3, 4, 5});
  CHECK(message_of<ShapeError>([] {
          dynamic_routing(zeros({2, 3, 4}));
        }) == "dynamic_routing: votes must be [B, I, J, D]; got [2, 3, 4]");
  CHECK(message_of<ValueError>([&] { dynamic_routing(votes, {.iterations = 0}); }) ==
        "dynamic_routing: at least 1 iteration; got 0");
  CHECK(message_of<ValueError>([&] { dynamic_routing(votes, {.squash_c = 0}); }) ==
        "dynamic_routing: squash_c must be positive; got 0");
  CHECK(message_of<ShapeError>([&] {
          dynamic_routing(votes, {}, {.prior = zeros({4, 3})});
        }) == "dynamic_routing: the prior must be [3, 4] for votes [2, 3, 4, 5]; got [4, 3]");
  CHECK(message_of<ShapeError>([&] { dynamic_routing(votes, {}, {.mask = ones({4})}); }) ==
        "dynamic_routing: the mask must be [2, 4] for votes [2, 3, 4, 5]; got [4]");
  CHECK(contains(message_of<ShapeError>([&] {
                   dynamic_routing(votes, {}, {.activation = ones({2, 4})});
                 }),
                 "the activation must be [2, 3]"));
  CHECK(message_of<ValueError>([&] {
          dynamic_routing(votes, {}, {.mask = zeros({2, 4})});
        }) == "dynamic_routing: the mask keeps no upper capsule of some sample");
  CHECK(contains(message_of<DTypeError>([] {
                   dynamic_routing(zeros({2, 3, 4, 5}, DType::i64));
                 }),
                 "f32 or f64"));
  CHECK(contains(message_of<DTypeError>([&] {
                   dynamic_routing(votes, {}, {.prior = zeros({3, 4}, DType::f64)});
                 }),
                 "got a = f64 ["));
}
