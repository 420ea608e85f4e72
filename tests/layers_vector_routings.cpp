// K-means and entropy-regularised routing: invariants over random shapes, gradients, limits,
// errors.

#include <cmath>
#include <functional>

#include <doctest/doctest.h>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

struct Named {
  const char* name;
  Routed (*route)(const Tensor&);
};

const Named kRoutings[] = {
    {"kmeans", [](const Tensor& v) { return kmeans_routing(v); }},
    {"kmeans, K = 4",
     [](const Tensor& v) {
       return kmeans_routing(v, {.iterations = 2, .sharpness = 4, .squash_c = 0.5});
     }},
    {"kmeans, hard", [](const Tensor& v) { return kmeans_routing(v, {.hard = true}); }},
    {"entropy", [](const Tensor& v) { return entropy_routing(v); }},
    {"entropy, constant",
     [](const Tensor& v) {
       return entropy_routing(v, {.alphas = {0.7, 0.7}});
     }},
};

Tensor random_votes(Rng& rng) {
  const Shape shape{1 + rng.below(3), 1 + rng.below(7), 1 + rng.below(5), 1 + rng.below(6)};
  return rng.normal(shape, 0, 1, DType::f64);
}

}  // namespace

TEST_CASE(
    "D1 couplings of K-means and entropy routing sum to 1 over parents, lengths stay below 1") {
  Rng rng(3);
  for (const Named& r : kRoutings)
    for (int trial = 0; trial < 20; ++trial) {
      CAPTURE(r.name);
      const Routed out = r.route(random_votes(rng));
      CHECK(allclose(sum(out.couplings, {-1}),
                     ones({out.couplings.size(0), out.couplings.size(1)}, DType::f64), 0, 1e-12));
      CHECK(max(safe_norm(out.poses)).item() < 1);
    }
}

TEST_CASE("D13 permuting children leaves the poses, permuting parents permutes them") {
  Rng rng(4);
  for (const Named& r : kRoutings) {
    CAPTURE(r.name);
    const Tensor votes = rng.normal({2, 5, 4, 3}, 0, 1, DType::f64);
    const Routed plain = r.route(votes), children = r.route(flip(votes, {1})),
                 parents = r.route(flip(votes, {2}));
    CHECK(max_difference(children.poses, plain.poses) < 1e-12);
    CHECK(max_difference(children.couplings, flip(plain.couplings, {1})) < 1e-12);
    CHECK(max_difference(parents.poses, flip(plain.poses, {1})) < 1e-12);
  }
}

TEST_CASE("D3 a sample is routed alone as in a batch by K-means and entropy routing") {
  Rng rng(5);
  for (const Named& r : kRoutings) {
    CAPTURE(r.name);
    const Tensor votes = rng.normal({3, 6, 4, 5}, 0, 1, DType::f64);
    const Tensor all = r.route(votes).poses;
    for (int b = 0; b < 3; ++b)
      CHECK(max_difference(r.route(narrow(votes, 0, b, 1)).poses, narrow(all, 0, b, 1)) < 1e-14);
  }
}

TEST_CASE("gradients of K-means and entropy routing to second order") {
  Rng rng(6);
  const Tensor votes = rng.normal({2, 4, 3, 3}, 0, 1, DType::f64);
  for (const Named& r : kRoutings) {
    CAPTURE(r.name);
    const Function f = [&](const TensorList& in) { return TensorList{r.route(in[0]).poses}; };
    testing::check_gradients(f, {votes});
  }
}

TEST_CASE("detached couplings: equal values, the gradient of the last sum alone") {
  Rng rng(7);
  Tensor votes = rng.normal({2, 5, 3, 4}, 0, 1, DType::f64).requires_grad_();
  const auto check = [&](const Routed& full, const Routed& detached, auto&& tail) {
    CHECK(max_difference(full.poses, detached.poses) == 0);
    const Tensor cotangent = rng.normal(full.poses.shape(), 0, 1, DType::f64);
    const Tensor frozen = tail(weighted_sum(detached.couplings.detach(), votes));
    const Tensor mine = grad(detached.poses, votes, cotangent),
                 wanted = grad(frozen, votes, cotangent);
    CHECK(max_difference(mine, wanted) < 1e-13);
    CHECK(max_difference(grad(full.poses, votes, cotangent), wanted) > 1e-3);
  };
  check(kmeans_routing(votes), kmeans_routing(votes, {.detach = true}),
        [](const Tensor& s) { return squash(s); });
  check(entropy_routing(votes), entropy_routing(votes, {.detach = true}),
        [](const Tensor& s) { return s / (unsqueeze(max(safe_norm(s), {-1}, true), -1) + 1.0); });
}

TEST_CASE("K-means routing: K and the scale of the votes are one, and the loss never rises") {
  Rng rng(8);
  for (int trial = 0; trial < 20; ++trial) {
    const Tensor votes = random_votes(rng);
    CHECK(max_difference(kmeans_routing(votes, {.sharpness = 2.5}).couplings,
                         kmeans_routing(votes * 2.5).couplings) < 1e-11);
    // Su 2018, eq (6) with the inner product: - Σ_i ln Σ_j exp⟨û, v / ‖v‖⟩ at the sums of each
    // iteration.
    double before = INFINITY;
    for (int r = 0; r < 6; ++r) {
      const Tensor c = kmeans_routing(votes, {.iterations = r}).couplings;
      const Tensor score = agreement(votes, safe_normalize(weighted_sum(c, votes)));
      const double loss = -sum(logsumexp(score, {-1})).item();
      CHECK(loss <= before + 1e-9);
      before = loss;
    }
  }
}

TEST_CASE("short means keep their direction: kernels choose the parents that plain ops choose") {
  // The couplings of the second parent are so small that squares of its mean are below the range.
  std::vector<float> numbers(32, 8.9F);
  for (std::size_t k = 0; k < 16; ++k) numbers[k] = k == 0 ? 82.36F : 0.0F;
  numbers[16] = 12.0F;
  const Tensor votes = from_vector(numbers, {1, 1, 2, 16});
  const Tensor truth = kmeans_routing_reference(to(votes, DType::f64), {.iterations = 2}).couplings;
  CHECK(max_difference(kmeans_routing(votes, {.iterations = 2}).couplings, truth) < 1e-6);
  // Annealing empties nearly all parents; in f64 as well, once it is cold enough.
  for (const DType dtype : {DType::f32, DType::f64}) {
    const int steps = dtype == DType::f32 ? 6 : 12;
    Rng rng(1);
    const Tensor v = rng.normal({256, 1, 10, 16}, 0, dtype == DType::f32 ? 3.0 : 10.0, dtype);
    const EntropyRoutingOptions o{.alphas = alpha_schedule(steps)};
    CHECK(max_difference(entropy_routing(v, o).couplings,
                         entropy_routing_reference(v, o).couplings) < 0.1);
  }
  // The gradient of a direction: as for votes 2^60 times as long, that much larger.
  const auto slope = [](double size, DType dtype) {
    Tensor v = Rng(5).normal({2, 6, 3, 4}, 0, 1, dtype) * size;
    v.requires_grad_();
    const Routed r = kmeans_routing(v, {.iterations = 1, .sharpness = 1 / size});
    return grad(sum(square(r.couplings)), v) * size;
  };
  CHECK(max_difference(slope(0x1p-60, DType::f32), slope(1, DType::f64)) < 1e-5);
  CHECK(max_difference(slope(0x1p-500, DType::f64), slope(1, DType::f64)) < 1e-10);
}

TEST_CASE("edge cases and errors of K-means and entropy routing") {
  for (const Named& r : kRoutings) {
    CAPTURE(r.name);
    CHECK(max_difference(r.route(zeros({2, 3, 4, 5}, DType::f64)).poses,
                         zeros({2, 4, 5}, DType::f64)) == 0);
    CHECK(all(isfinite(r.route(full({1, 3, 2, 2}, 1e3)).poses)));
    CHECK(r.route(zeros({0, 3, 4, 5})).poses.shape() == Shape{0, 4, 5});
  }
  const Tensor votes = ones({1, 2, 3, 4});
  for (const auto& route : {std::function([&](const Tensor&prior, const Tensor&kept) {
                              return kmeans_routing(votes, {}, prior, kept);
                            }),
                            std::function([&](const Tensor&prior, const Tensor&kept) {
                              return entropy_routing(votes, {}, prior, kept);
                            })}) {
    CHECK(contains(message_of<ShapeError>([&] {
                     route(zeros({1, 3}), {});
                   }),
                   "the prior must be [2, 3] for votes [1, 2, 3, 4]; got [1, 3]"));
    CHECK_THROWS_AS(route({}, ones({2, 3}, DType::b8)), ShapeError);
    CHECK_THROWS_AS(route({}, ones({1, 3})), DTypeError);
  }
  CHECK(message_of<ShapeError>([&] {
          kmeans_routing(ones({2, 3}));
        }) == "kmeans_routing: votes must be [B, I, J, D]; got [2, 3]");
  CHECK(contains(message_of<ValueError>([&] { kmeans_routing(votes, {.sharpness = 0}); }),
                 "sharpness > 0"));
  CHECK_THROWS_AS(kmeans_routing(votes, {.sharpness = NAN}), ValueError);
  CHECK(contains(message_of<ValueError>([&] { entropy_routing(votes, {.alphas = {}}); }),
                 "at least one temperature"));
  CHECK(contains(message_of<ValueError>([&] {
                   entropy_routing(votes, {.alphas = {1, -1}});
                 }),
                 "must be positive and finite, and their reciprocals finite in f32; got -1"));
}

TEST_CASE("temperatures and sharpness have a reciprocal in the type of the votes") {
  const Tensor single = Rng(1).normal({2, 5, 3, 4}, 0, 1), both = to(single, DType::f64);
  const auto cold = [](const Tensor& v, double alpha) {
    return entropy_routing(v, {.alphas = {1, alpha, alpha}});
  };
  CHECK(
      message_of<ValueError>([&] { cold(single, 1e-46); }) ==
      "entropy_routing: temperatures must be positive and finite, and their reciprocals finite in "
      "f32; got 1e-46");
  CHECK(all(isfinite(cold(both, 1e-46).couplings)));
  CHECK_THROWS_AS(cold(both, 1e-310), ValueError);
  CHECK_THROWS_AS(cold(both, INFINITY), ValueError);
  const auto sharp = [](const Tensor& v, double k) { return kmeans_routing(v, {.sharpness = k}); };
  CHECK(message_of<ValueError>([&] { sharp(single, 1e39); }) ==
        "kmeans_routing: the sharpness and its reciprocal must be finite in f32; got 1e+39");
  CHECK_THROWS_AS(sharp(single, 1e-39), ValueError);
  CHECK(all(isfinite(sharp(both, 1e39).couplings)));
  CHECK_THROWS_AS(sharp(both, INFINITY), ValueError);
  // Modules know the type only when they route: also by products, which make no votes.
  Rng rng(2);
  const RoutingSize size{.children = 8, .parents = 4, .dim = 4, .child_dim = 4};
  EntropyRouting entropy(size, {.alphas = {1e-46, 1e-46}}, rng);
  KmeansRouting kmeans(size, {.sharpness = 1e39}, rng);
  const VoteProduct product{ones({8, 8, 4}), ones({8, 4, 4, 4})};
  CHECK_THROWS_AS(entropy.route_product(product, {}), ValueError);
  CHECK_THROWS_AS(kmeans.route_product(product, {}), ValueError);
  CHECK_THROWS_AS(EntropyRouting(size, {.alphas = {INFINITY}}, rng), ValueError);
  CHECK_THROWS_AS(KmeansRouting(size, {.sharpness = INFINITY}, rng), ValueError);
}

TEST_CASE("entropy routing: any number of iterations may be set, also in f32") {
  Rng rng(3);
  const Tensor votes = rng.normal({2, 5, 3, 4}, 0, 1);
  for (const std::vector<double>& alphas :
       {std::vector<double>{1.0, 0.5, 0.25}, {0.25, 0.5, 1.0}, {1.0, 1e-20}}) {
    EntropyRouting routing({.children = 5, .parents = 3, .dim = 4}, {.alphas = alphas}, rng);
    for (const int n : {2, 10, 16, 140, 1200}) {
      CAPTURE(n);
      routing.set_iterations(n);
      CHECK(routing.iterations() == n);
      const Routed out = routing({.votes = votes});
      CHECK(all(isfinite(out.poses)));
      CHECK(max_difference(sum(out.couplings, {-1}), ones({2, 5})) < 1e-5);
    }
  }
}
