// PrimaryCapsules, DenseCapsules with every option, lengths and masks.

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
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

Tensor noise(const Shape& shape, std::uint64_t seed = 1) {
  Rng rng(seed);
  return randn(shape, rng);
}

double mean_length(const Tensor& poses) { return mean(lengths(poses)).item(); }

/// The learned prior of a layer with dynamic routing.
Tensor& prior_of(DenseCapsules& caps) {
  return dynamic_cast<DynamicRouting&>(caps.routing()).prior;
}

/// Lengths that capsules of length near ½ become in layers of the paper's sizes.
std::vector<double> chain(double init_std, int layers) {
  Rng rng(2);
  Tensor u = squash(rng.normal({2, 96, 8}, 0, 0.4));
  std::vector<double> out;
  for (int i = 0; i < layers; ++i) {
    DenseCapsules caps(u.size(1), 8, 24, 8, rng, {.init_std = init_std});
    u = caps(u).detach();
    out.push_back(mean_length(u));
  }
  return out;
}

}  // namespace

TEST_CASE("P1 primary capsules take consecutive channels at one position") {
  Rng rng(1);
  PrimaryCapsules caps(3, 4, 8, 3, rng, {.stride = 2});
  const Tensor x = noise({2, 3, 9, 11});
  const Tensor z = caps.conv(x), v = caps(x);
  REQUIRE(z.shape() == Shape{2, 32, 4, 5});
  REQUIRE(v.shape() == Shape{2, 4 * 4 * 5, 8});
  // Before the squash: caps[0][0][0:8] == conv[0][0:8][0][0].
  const Tensor corner = narrow(select(select(select(z, 0, 0), 1, 0), 1, 0), 0, 0, 8);
  const auto whole = test::values(z), got = test::values(v), start = test::values(squash(corner));
  for (std::size_t d = 0; d < 8; ++d) CHECK(got[d] == doctest::Approx(start[d]).epsilon(1e-6));
  // Component d of capsule (c·H + y)·W + x is channel c·8 + d at (y, x), up to the length.
  for (std::size_t c = 0; c < 4; ++c)
    for (std::size_t y = 0; y < 4; ++y)
      for (std::size_t w = 0; w < 5; ++w) {
        double s[8], n = 0;
        for (std::size_t d = 0; d < 8; ++d) {
          s[d] = whole[((32 + c * 8 + d) * 4 + y) * 5 + w];
          n += s[d] * s[d];
        }
        for (std::size_t d = 0; d < 8; ++d)
          REQUIRE(got[(80 + (c * 4 + y) * 5 + w) * 8 + d] ==
                  doctest::Approx(std::sqrt(n) / (1 + n) * s[d]).epsilon(1e-5));
      }
}

TEST_CASE("P3 primary capsules are squashed convolutions: no factor 1/32, no bias of 0.1") {
  Rng rng(1);
  PrimaryCapsules caps(1, 32, 8, 3, rng, {.stride = 1, .squash_c = 0.5});
  caps.conv.weight.fill_(0);
  caps.conv.bias.fill_(0.5);  // ‖s‖² = 2, so ‖v‖ = 2 / 2.5
  const Tensor v = caps(noise({1, 1, 3, 3}));
  CHECK(v.shape() == Shape{1, 32, 8});
  CHECK(largest(lengths(v) - 0.8) < 1e-6);
}

TEST_CASE("D12 capsule layers keep their axes for sizes of one and images that are not square") {
  Rng rng(1);
  PrimaryCapsules primary(1, 1, 2, 3, rng, {.stride = 1});
  CHECK(primary(noise({1, 1, 3, 7})).shape() == Shape{1, 5, 2});
  CHECK(primary(noise({3, 1, 6, 3})).shape() == Shape{3, 4, 2});
  for (const char* kind : {"full", "shared", "factorised"}) {
    CAPTURE(kind);
    DenseCapsules one(1, 1, 1, 1, rng,
                      {.routing = "dynamic:iterations=1,prior", .votes = vote_weights(kind)});
    const Routed out = one.route(noise({1, 1, 1}));
    CHECK(out.poses.shape() == Shape{1, 1, 1});
    CHECK(out.couplings.shape() == Shape{1, 1, 1});
    CHECK(out.couplings.item() == 1);
    CHECK(lengths(out.poses).shape() == Shape{1, 1});
    CHECK(mask_poses(out.poses, zeros({1}, DType::i64)).shape() == Shape{1, 1});
  }
}

TEST_CASE("dense capsules: shapes and parameters of every vote form and option") {
  Rng rng(1);
  const Tensor u = noise({2, 6, 4});
  struct Case {
    DenseCapsulesOptions options;
    Shape weight, lower;
    std::int64_t parameters;
  };
  const Case cases[] = {
      {{}, {6, 3, 5, 4}, {}, 360},
      {{.votes = VoteWeights::shared}, {3, 5, 4}, {}, 60},
      {{.votes = VoteWeights::factorised}, {3, 5, 4}, {6, 4, 4}, 156},
      {{.votes = VoteWeights::factorised, .inner_dim = 2}, {3, 5, 2}, {6, 2, 4}, 78},
      {{.routing = "dynamic:prior", .vote_bias = true}, {6, 3, 5, 4}, {}, 360 + 15 + 18},
      {{.routing = "dynamic:prior", .vote_bias = true, .noise_class = true},
       {6, 4, 5, 4},
       {},
       480 + 20 + 24},
  };
  for (const Case& c : cases) {
    DenseCapsules caps(6, 4, 3, 5, rng, c.options);
    CAPTURE(c.parameters);
    CHECK(caps.votes.weight.shape() == c.weight);
    if (c.lower.rank() > 0) CHECK(caps.votes.lower_weight.shape() == c.lower);
    CHECK(caps.parameter_count() == c.parameters);
    const std::int64_t j = c.options.noise_class ? 4 : 3;
    CHECK(caps.votes(u).shape() == Shape{2, 6, j, 5});
    const Routed out = caps.route(u);
    CHECK(out.poses.shape() == Shape{2, 3, 5});
    CHECK(out.couplings.shape() == Shape{2, 6, j});
    CHECK(max_difference(sum(out.couplings, {2}), ones({2, 6})) < 1e-6);
    CHECK(same_bits(caps(u), out.poses));
    CHECK(caps.output_shape() == Shape{2, 3, 5});
    backward(sum(caps(u)));
    for (const auto& entry : caps.named_parameters()) {
      CAPTURE(entry.first);
      const Tensor& p = entry.second;
      CHECK(p.grad().defined());
      CHECK(largest(p.grad()) > 0);
    }
  }
}

TEST_CASE("dense capsules compute W_ij u_i, and the cheaper forms their special cases of it") {
  Rng rng(1);
  const Tensor u = noise({2, 3, 4});
  DenseCapsules full(3, 4, 2, 5, rng), shared(3, 4, 2, 5, rng, {.votes = VoteWeights::shared}),
      factors(3, 4, 2, 5, rng, {.votes = VoteWeights::factorised, .inner_dim = 3});
  const auto w = test::values(full.votes.weight), x = test::values(u),
             v = test::values(full.votes(u));
  for (std::size_t b = 0; b < 2; ++b)
    for (std::size_t i = 0; i < 3; ++i)
      for (std::size_t jd = 0; jd < 10; ++jd) {
        double s = 0;
        for (std::size_t e = 0; e < 4; ++e) s += w[(i * 10 + jd) * 4 + e] * x[(b * 3 + i) * 4 + e];
        REQUIRE(v[(b * 3 + i) * 10 + jd] == doctest::Approx(s).epsilon(1e-5));
      }
  // D11: equal copies in the unshared weights.
  full.votes.weight.copy_(broadcast_to(unsqueeze(shared.votes.weight, 0), {3, 2, 5, 4}));
  CHECK(max_difference(full(u), shared(u)) < 1e-6);
  const Tensor product = sum(
      unsqueeze(factors.votes.weight, -1) * reshape(factors.votes.lower_weight, {3, 1, 1, 3, 4}),
      {3});
  full.votes.weight.copy_(product);
  CHECK(max_difference(full(u), factors(u)) < 1e-6);
  // Shared weights take any number of children, the others do not.
  CHECK(shared(noise({2, 7, 4})).shape() == Shape{2, 2, 5});
  CHECK(message_of<ShapeError>([&] {
          full(noise({2, 7, 4}));
        }) == "DenseCapsules: u must be [B, 3, 4]; got [2, 7, 4]");
  CHECK_THROWS_AS(shared(noise({2, 7, 3})), ShapeError);
  CHECK_THROWS_AS(full(noise({3, 4})), ShapeError);
}

TEST_CASE("a learned prior starts uniform, receives a gradient and steers the routing") {
  Rng rng(1);
  DenseCapsules caps(4, 3, 2, 3, rng, {.routing = "dynamic:iterations=1,prior"});
  CHECK(largest(prior_of(caps)) == 0);
  const Tensor u = noise({2, 4, 3});
  CHECK(largest(caps.route(u).couplings - 0.5) == 0);
  backward(sum(lengths(caps(u))));
  CHECK(largest(prior_of(caps).grad()) > 0);
  prior_of(caps).copy_(from_vector(std::vector<float>{30, 0, 0, 30, 30, 0, 0, 0}, {4, 2}));
  const auto c = test::values(caps.route(u).couplings);
  CHECK(c[0] == doctest::Approx(1));
  CHECK(c[3] == doctest::Approx(1));
  CHECK(c[6] == 0.5);
}

TEST_CASE("a noise class takes its share of the routing and is dropped from the poses") {
  Rng rng(1);
  DenseCapsules with(5, 4, 3, 6, rng, {.noise_class = true}), all(5, 4, 4, 6, rng);
  all.votes.weight.copy_(with.votes.weight);
  const Tensor u = noise({2, 5, 4});
  const Routed a = with.route(u), b = all.route(u);
  CHECK(same_bits(a.poses, contiguous_data(narrow(b.poses, 1, 0, 3))));
  CHECK(same_bits(a.couplings, b.couplings));
  CHECK(max(sum(narrow(a.couplings, 2, 0, 3), {2})).item() < 1);
}

TEST_CASE("partial sampling drops capsules in training only, reproducibly from the generator") {
  const Tensor u = noise({64, 5, 4});
  const auto dropped = [](const Tensor& poses) {  // a row of flags per sample
    return test::values(to(eq(lengths(poses), 0.0), DType::f32));
  };
  Rng a(9), b(9);
  DenseCapsules caps(5, 4, 4, 6, a, {.keep = 0.5}), twin(5, 4, 4, 6, b, {.keep = 0.5});
  const Tensor v = caps(u);
  CHECK(same_bits(v, twin(u)));
  const auto flags = dropped(v);
  std::vector<double> per_class(4, 0);
  for (std::size_t s = 0; s < 64; ++s) {
    CHECK(flags[4 * s] + flags[4 * s + 1] + flags[4 * s + 2] + flags[4 * s + 3] == 2);
    for (std::size_t j = 0; j < 4; ++j) per_class[j] += flags[4 * s + j];
  }
  for (double n : per_class) CHECK((n > 16 && n < 48));  // every class has its turn
  CHECK(dropped(caps(u)) != flags);
  // Routing on the kept capsules alone: each child's couplings still sum to one.
  CHECK(max_difference(sum(caps.route(u).couplings, {2}), ones({64, 5})) < 1e-6);
  caps.eval();
  const Tensor e = caps(u);
  CHECK(same_bits(e, caps(u)));
  for (double f : dropped(e)) CHECK(f == 0);
  DenseCapsules few(5, 4, 4, 6, a, {.keep = 0.01});  // at least one is kept
  CHECK(mean(to(eq(lengths(few(u)), 0.0), DType::f64)).item() == 0.75);
  few.to(DType::f64);
  CHECK(few(to(u, DType::f64)).dtype() == DType::f64);
}

TEST_CASE("D4 D3 a dense layer forgets: equal results again, and for a sample alone") {
  Rng rng(1);
  DenseCapsules caps(6, 4, 3, 5, rng, {.routing = "dynamic:prior", .init_std = 1});
  const Tensor u = noise({3, 6, 4});
  const Tensor v = caps(u);
  CHECK(same_bits(v, caps(u)));
  for (std::int64_t b = 0; b < 3; ++b)
    CHECK(max_difference(caps(narrow(u, 0, b, 1)), narrow(v, 0, b, 1)) < 1e-6);
}

TEST_CASE("D9 without a vote bias the layer is odd, with one it is not") {
  Rng rng(1);
  const Tensor u = noise({2, 6, 4});
  DenseCapsules odd(6, 4, 3, 5, rng, {.init_std = 0.5});
  CHECK(max_difference(odd(-u), -odd(u)) < 1e-6);
  DenseCapsules biased(6, 4, 3, 5, rng, {.vote_bias = true, .init_std = 0.5});
  CHECK(largest(biased.votes.bias) == 0);
  biased.votes.bias.copy_(noise({3, 5}, 3));
  CHECK(max_difference(biased(-u), -biased(u)) > 0.1);
  const Tensor shift = biased.votes(u) - votes_full(u, biased.votes.weight);
  CHECK(max_difference(shift, broadcast_to(biased.votes.bias, shift.shape())) < 1e-6);
}

TEST_CASE("D10 what N(0, std²) does to lengths: why stacks are scaled and single layers are not") {
  // From 96 capsules of length near ½: the squash makes a short capsule quadratically shorter.
  const auto tiny = chain(0.01, 2), usual = chain(0.1, 2), unit = chain(1, 2);
  CHECK(tiny[0] < 1e-4);
  CHECK(tiny[1] < 1e-12);
  CHECK(usual[0] > 1e-3);
  CHECK(usual[1] < 1e-6);
  CHECK(unit[0] > 0.3);
  CHECK(unit[1] > 0.05);
  // The layer of the paper, 1152 x 8 to 10 x 16 with the default 0.1, keeps what it needs.
  Rng rng(2);
  DenseCapsules digits(1152, 8, 10, 16, rng);
  CHECK(mean_length(digits(squash(rng.normal({1, 1152, 8}, 0, 0.4)))) > 0.2);
  // The product of the factors has the same scale as a full matrix.
  DenseCapsules factors(64, 8, 10, 16, rng, {.votes = VoteWeights::factorised, .inner_dim = 32});
  const Tensor w = sum(
      unsqueeze(factors.votes.weight, -1) * reshape(factors.votes.lower_weight, {64, 1, 1, 32, 8}),
      {3});
  CHECK(std::sqrt(mean(square(w)).item()) / 0.1 == doctest::Approx(1).epsilon(0.03));
}

TEST_CASE("D13 permuted children with permuted weights give the same parents") {
  Rng rng(1);
  DenseCapsules caps(5, 4, 3, 6, rng, {.init_std = 1}), moved(5, 4, 3, 6, rng);
  const Tensor u = noise({2, 5, 4}), v = caps(u);
  const Tensor order = from_vector(std::vector<std::int64_t>{3, 0, 4, 1, 2});
  moved.votes.weight.copy_(index_select(caps.votes.weight, 0, order));
  CHECK(max_difference(moved(index_select(u, 1, order)), v) < 1e-6);
  const Tensor parents = from_vector(std::vector<std::int64_t>{2, 0, 1});
  moved.votes.weight.copy_(index_select(caps.votes.weight, 1, parents));
  CHECK(max_difference(moved(u), index_select(v, 1, parents)) < 1e-6);
}

TEST_CASE("R2 the mask keeps one capsule per sample, and nothing else reaches the decoder") {
  const Tensor poses = test::random({2, 3, 4});
  const Tensor labels = from_vector(std::vector<std::int64_t>{2, 0});
  const Tensor m = mask_poses(poses, labels);
  CHECK(m.shape() == Shape{2, 12});
  const auto p = test::values(poses), got = test::values(m);
  for (std::size_t i = 0; i < 24; ++i) {
    const bool kept = i / 4 == 2 || i / 4 == 3;  // sample 0 class 2, sample 1 class 0
    CHECK(got[i] == (kept ? p[i] : 0));
  }
  test::check_gradients([&](const TensorList& in) { return TensorList{mask_poses(in[0], labels)}; },
                        {poses});
  const Tensor two =
      mask_poses_by(poses, from_vector(std::vector<double>{1, 0, 1, 0, 0, 0.5}, {2, 3}));
  CHECK_THROWS_AS(mask_poses_by(poses, ones({2, 1}, DType::f64)), ShapeError);
  CHECK_THROWS_AS(mask_poses_by(poses, ones({3}, DType::f64)), ShapeError);
  CHECK(test::values(two)[11] == p[11]);
  CHECK(test::values(two)[23] == 0.5 * p[23]);
  CHECK(message_of<ShapeError>([&] { mask_poses(poses, zeros({3}, DType::i64)); }) ==
        "mask_poses: poses [B, J, D] and labels [B]; got [2, 3, 4] and [3]");
  CHECK_THROWS_AS(mask_poses(poses, from_vector(std::vector<std::int64_t>{0, 3})), ValueError);
  CHECK_THROWS_AS(mask_poses(poses, zeros({2})), Error);
}

TEST_CASE("a dense layer agrees with finite differences, in weights and input, twice") {
  Rng rng(1);
  DenseCapsules caps(
      3, 2, 2, 3, rng,
      {.routing = "dynamic:prior", .vote_bias = true, .noise_class = true, .init_std = 1});
  caps.to(DType::f64);
  // The parameters are exchanged for the inputs of the check.
  const auto run = [&](const TensorList& in) {
    caps.votes.weight = in[1];
    caps.votes.bias = in[2];
    prior_of(caps) = in[3];
    return TensorList{caps.route(in[0]).poses};
  };
  test::check_gradients(run, {test::random({2, 3, 2}), test::random({3, 3, 3, 2}, 2),
                              test::random({3, 3}, 3), test::random({3, 3}, 4)});
}

TEST_CASE("capsule layers say what is wrong") {
  Rng rng(1);
  CHECK(message_of<ValueError>([&] { DenseCapsules(0, 4, 3, 5, rng); }) ==
        "DenseCapsules: sizes must be at least 1; got lower = 0x4, upper = 3x5, inner = 0");
  CHECK(message_of<ValueError>([&] { DenseCapsules(6, 4, 3, 5, rng, {.keep = 0}); }) ==
        "DenseCapsules: keep must lie in (0, 1]; got 0");
  CHECK_THROWS_AS(DenseCapsules(6, 4, 3, 5, rng, {.keep = std::nan("")}), ValueError);
  CHECK(message_of<ValueError>([&] { DenseCapsules(6, 4, 0, 5, rng, {.noise_class = true}); }) ==
        "DenseCapsules: at least 1 upper capsule beside the noise class; got 0");
  CHECK_THROWS_AS(DenseCapsules(6, 4, 3, 5, rng, {.inner_dim = -1}), ValueError);
  CHECK(message_of<ValueError>([] { vote_weights("half"); }) ==
        "votes: full, shared, factorised or matrix; got 'half'");
  CHECK_THROWS_AS(PrimaryCapsules(1, 0, 8, 3, rng), ValueError);
  CHECK(message_of<ValueError>([&] { PrimaryCapsules(1, 2, 8, 3, rng, {.squash_c = 0}); }) ==
        "PrimaryCapsules: squash_c must be positive; got 0");
  CHECK(message_of<ValueError>([&] { PrimaryCapsules(1, -2, -8, 3, rng); }) ==
        "PrimaryCapsules: sizes must be at least 1; got -2 types of -8");
  CHECK(contains(message_of<ValueError>(
                     [&] { DenseCapsules(6, 4, 3, 5, rng, {.routing = "dynamic:iterations=0"}); }),
                 "at least 1 iteration"));
}
