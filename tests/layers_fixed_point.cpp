// Implicit differentiation at fixed points, against long unrolled graphs, and its memory.

#include <capsfw/layers/fixed_point.hpp>

#include <doctest/doctest.h>

#include <cmath>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/layers/gmm.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_cluster.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

const FixedPointOptions kExact{
    .tolerance = 1e-14, .max_iterations = 5000, .backward_tolerance = 1e-13};

/// Three groups of points that overlap a little.
Tensor groups(std::uint64_t seed, std::int64_t batch = 1, DType dtype = DType::f64) {
  Rng rng(seed);
  const Tensor centres =
      cast_data(from_vector<double>({0, 0, 2.5, 0, 0, 2.5}, {1, 3, 1, 2}), dtype);
  return reshape(centres + rng.normal({batch, 3, 8, 2}, 0, 0.5, dtype), {batch, 24, 2});
}

Tensor first_centres(std::int64_t batch = 1, DType dtype = DType::f64) {
  const Tensor v = cast_data(from_vector<double>({0.2, -0.1, 2, 0.3, -0.2, 2}, {1, 3, 2}), dtype);
  return contiguous(broadcast_to(v, {batch, 3, 2}));
}

/// x = tanh(A x + b), a contraction for small A.
TensorList tanh_step(const TensorList& x, const TensorList& in) {
  return {tanh(matmul(in[0], x[0]) + in[1])};
}

}  // namespace

TEST_CASE("a linear fixed point has the gradient of the linear system") {
  Rng rng(1);
  const std::int64_t n = 60;  // more than one cycle of the solver
  Tensor a = rng.normal({n, n}, 0, 0.5 / std::sqrt(60.0), DType::f64).requires_grad_();
  Tensor b = randn({n}, rng, DType::f64).requires_grad_();
  const FixedPoint r =
      fixed_point([](const TensorList& x,
                     const TensorList& in) -> TensorList { return {matmul(in[0], x[0]) + in[1]}; },
                  {zeros({n}, DType::f64)}, {a, b}, kExact);
  CHECK(r.converged);
  const Tensor x = r.state[0], g = randn({n}, rng, DType::f64);
  CHECK(max_difference(x, matmul(a, x) + b) < 1e-13);
  const TensorList back = grad({x}, {a, b}, {g});
  const Tensor w = back[1];
  CHECK(max_difference(w, matmul(transpose(a), w) + g) < 1e-11);  // (I − A)ᵀ w = g
  CHECK(max_difference(back[0], unsqueeze(w, 1) * unsqueeze(x, 0)) < 1e-11);
}

TEST_CASE("the solver also works where the plain series of products diverges") {
  // x' = x + 1.5 (b − x) has the derivative −0.5, x' = 4 x − 3 b has 4: iterating runs away, but
  // from the fixed point itself the system is well posed.
  Tensor b = from_vector<double>({0.3, -2}).requires_grad_();
  const FixedPoint r =
      fixed_point([](const TensorList& x,
                     const TensorList& in) -> TensorList { return {4.0 * x[0] - 3.0 * in[0]}; },
                  {b.detach()}, {b}, {.max_iterations = 1});
  CHECK(r.converged);
  CHECK(max_difference(grad(sum(r.state[0]), b), ones({2}, DType::f64)) < 1e-12);
}

TEST_CASE("soft K-means: implicit gradients equal those of a long unrolled graph") {
  for (const auto metric : {ClusterMetric::euclid, ClusterMetric::inner}) {
    Tensor u = groups(2, 2).requires_grad_();
    const Tensor v = first_centres(2);
    const KmeansOptions o{.iterations = 400, .sharpness = 1.3, .metric = metric};
    const ConvergedKmeans implicit = kmeans_soft_converged(u, v, o, kExact);
    const Clustering unrolled = kmeans_soft(u, v, o);
    CHECK(implicit.converged);
    CHECK(implicit.iterations < 400);
    CHECK(max_difference(implicit.centres, unrolled.centres) < 1e-10);
    CHECK(max_difference(implicit.couplings, unrolled.couplings) < 1e-10);
    CHECK(max_difference(implicit.loss, select(unrolled.losses, -1, 400)) < 1e-10);
    Rng rng(3);
    const Tensor g = randn(v.shape(), rng, DType::f64),
                 h = randn(implicit.couplings.shape(), rng, DType::f64);
    const auto gradient = [&](const Tensor& centres, const Tensor& c) {
      return grad({centres, c}, {u}, {g, h})[0];
    };
    const Tensor expected = gradient(unrolled.centres, unrolled.couplings);
    CHECK(max_difference(gradient(implicit.centres, implicit.couplings), expected) < 1e-8);
    CHECK(largest(expected) > 0.1);
  }
}

TEST_CASE("fuzzy clustering by entropy: implicit gradients equal those of a long unrolled graph") {
  Tensor u = (groups(2, 2) - 0.8).requires_grad_();
  const Tensor v = first_centres(2) - 0.8;
  const ConvergedFuzzy implicit = entropy_clustering_converged(u, v, 0.7, kExact);
  const FuzzyClustering unrolled = entropy_clustering(u, v, std::vector<double>(300, 0.7));
  CHECK(implicit.converged);
  CHECK(implicit.iterations < 300);
  CHECK(max_difference(implicit.centres, unrolled.centres) < 1e-10);
  CHECK(max_difference(implicit.couplings, unrolled.couplings) < 1e-10);
  const Tensor last = select(select(unrolled.objectives, -2, 299), -1, 2);
  CHECK(max_difference(implicit.objective, last) < 1e-9);
  Rng rng(3);
  const Tensor g = randn(v.shape(), rng, DType::f64),
               h = randn(implicit.couplings.shape(), rng, DType::f64);
  const auto gradient = [&](const Tensor& centres, const Tensor& c, const Tensor& f) {
    return grad({centres, c, f}, {u}, {g, h, ones_like(f)})[0];
  };
  const Tensor expected = gradient(unrolled.centres, unrolled.couplings, last);
  CHECK(max_difference(gradient(implicit.centres, implicit.couplings, implicit.objective),
                       expected) < 1e-8);
  CHECK(largest(expected) > 0.1);
  CHECK_THROWS_AS(entropy_clustering_converged(u, v, 0), ValueError);
  CHECK_THROWS_AS(entropy_clustering_converged(u, select(v, 0, 0), 1), ShapeError);
}

TEST_CASE("Gaussian mixtures: implicit gradients equal those of a long unrolled graph") {
  for (const auto kind :
       {Covariance::full, Covariance::diag, Covariance::spherical, Covariance::fixed}) {
    Tensor x = groups(4).requires_grad_();
    GaussianMixture start = mixture_at(x, first_centres(), kind);
    if (kind == Covariance::fixed) start.covariance = scalar(0.5, DType::f64).requires_grad_();
    const GmmOptions o{.iterations = 600, .covariance = kind, .eps = 0.05};
    const ConvergedGmm implicit = gmm_em_converged(x, start, o, kExact);
    const GmmResult unrolled = gmm_em(x, start, o);
    CHECK(implicit.converged);
    CHECK(max_difference(implicit.mixture.means, unrolled.mixture.means) < 1e-9);
    CHECK(max_difference(implicit.mixture.weights, unrolled.mixture.weights) < 1e-9);
    CHECK(max_difference(implicit.responsibilities, unrolled.responsibilities) < 1e-9);
    CHECK(max_difference(implicit.log_likelihood, select(unrolled.log_likelihoods, -1, 600)) <
          1e-8);
    Rng rng(5);
    const Tensor g = randn(start.means.shape(), rng, DType::f64),
                 h = randn(start.weights.shape(), rng, DType::f64);
    TensorList inputs{x};
    if (kind == Covariance::fixed) inputs.push_back(start.covariance);
    const auto gradient = [&](const GaussianMixture& m) {
      Tensor value = sum(m.means * g) + sum(m.weights * h);
      if (kind != Covariance::fixed) value = value + sum(square(m.covariance));
      return grad({value}, inputs);
    };
    const TensorList found = gradient(implicit.mixture), expected = gradient(unrolled.mixture);
    for (std::size_t i = 0; i < inputs.size(); ++i)
      CHECK(max_difference(found[i], expected[i]) < 1e-6 * largest(expected[i]));
  }
}

TEST_CASE("implicit derivatives are right to second order, against differences") {
  Rng rng(6);
  const Tensor a = rng.normal({3, 3}, 0, 0.3, DType::f64), b = randn({3}, rng, DType::f64);
  test::check_gradients(
      [](const TensorList& in) {
        return fixed_point(tanh_step, {zeros({3}, DType::f64)}, in, kExact).state;
      },
      {a, b});
  const Tensor u = narrow(groups(7), 1, 0, 20);
  const auto soft = [](const TensorList& in) {
    const ConvergedKmeans r =
        kmeans_soft_converged(in[0], first_centres(), {.sharpness = 1.5}, kExact);
    return TensorList{r.centres, r.couplings, r.loss};
  };
  const GradcheckOptions few{.rtol = 1e-4, .atol = 1e-5, .directions = 2, .components = 0};
  testing::check_gradients(soft, {u}, few);
  const auto mixture = [](const TensorList& in) {
    const ConvergedGmm r =
        gmm_em_converged(in[0], mixture_at(in[0].detach() * 0.0, first_centres(), Covariance::diag),
                         {.eps = 0.1}, kExact);
    return TensorList{r.mixture.means, r.mixture.covariance, r.mixture.weights};
  };
  testing::check_gradients(mixture, {groups(8)}, few);
}

TEST_CASE("third derivatives through a fixed point exist, too") {
  // x = cos(x) / 2 + b: x' = 1 / (1 + sin(x)/2), and so on by implicit differentiation.
  Tensor b = scalar(0.3, DType::f64).requires_grad_();
  const auto solve = [](const Tensor& at) {
    return fixed_point([](const TensorList& x,
                          const TensorList& in) -> TensorList { return {0.5 * cos(x[0]) + in[0]}; },
                       {zeros({}, DType::f64)}, {at}, kExact)
        .state[0];
  };
  const auto recorded = [](const Tensor& y, const Tensor& x) {
    return grad(y, x, {}, {.create_graph = true});
  };
  const Tensor x = solve(b), d1 = recorded(x, b), d2 = recorded(d1, b), d3 = recorded(d2, b);
  const double s = std::sin(x.item()) / 2, c = std::cos(x.item()) / 2, p = 1 / (1 + s);
  CHECK(d1.item() == doctest::Approx(p));
  CHECK(d2.item() == doctest::Approx(-c * p * p * p));
  CHECK(d3.item() == doctest::Approx((3 * c * c * p + s) * std::pow(p, 4)).epsilon(1e-9));
}

TEST_CASE("live memory is the same after 10 and after 1,000 iterations") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    Tensor u = groups(9, 2, dtype).requires_grad_();
    const Tensor v = first_centres(2, dtype);
    const GaussianMixture start = mixture_at(u, v, Covariance::diag);
    const auto memory_of = [&](int iterations) {
      const FixedPointOptions o{.tolerance = 0, .max_iterations = iterations};
      const std::size_t before = memory_stats().live;
      const std::int64_t nodes = live_nodes(), tensors = live_tensors();
      reset_peak_memory();
      const ConvergedKmeans k = kmeans_soft_converged(u, v, {}, o);
      const ConvergedGmm m = gmm_em_converged(u, start, {.eps = 0.01}, o);
      const ConvergedFuzzy f = entropy_clustering_converged(u, v, 0.7, o);
      const FixedPoint slow = fixed_point(
          [](const TensorList& x, const TensorList& in) -> TensorList {
            return {x[0] + 0.001 * (mean(in[0], {1}, true) - x[0])};
          },
          {v}, {u}, o);
      CHECK((k.iterations == iterations || k.converged));  // it may come to a standstill earlier
      CHECK(slow.iterations == iterations);                // this one cannot
      const std::size_t held = memory_stats().live - before;
      const std::int64_t more_nodes = live_nodes() - nodes, more = live_tensors() - tensors;
      const Tensor loss = sum(square(k.centres)) + sum(square(m.mixture.means)) +
                          sum(square(slow.state[0])) + sum(square(f.couplings));
      CHECK(all(isfinite(grad(loss, u))));
      return std::vector<std::size_t>{held, static_cast<std::size_t>(more_nodes),
                                      static_cast<std::size_t>(more), memory_stats().peak - before};
    };
    memory_of(2);  // u gets its node
    const auto ten = memory_of(10), thousand = memory_of(1000);
    CHECK(ten == thousand);
    CHECK(ten[0] > 0);
  }
}

TEST_CASE("the unrolled graph grows where the implicit one does not") {
  Tensor u = groups(10).requires_grad_();
  const auto held = [&](const auto& f) {
    const auto before = memory_stats().live;
    const auto result = f();
    return memory_stats().live - before;
  };
  const auto unrolled = held([&] { return kmeans_soft(u, first_centres(), {.iterations = 50}); });
  const auto implicit =
      held([&] { return kmeans_soft_converged(u, first_centres(), {}, {.max_iterations = 50}); });
  CHECK(unrolled > 10 * implicit);
}

TEST_CASE("nothing is left alive after first and second order") {
  const std::int64_t nodes = live_nodes(), tensors = live_tensors();
  {
    Tensor u = groups(11).requires_grad_();
    const ConvergedKmeans k = kmeans_soft_converged(u, first_centres(), {}, kExact);
    const Tensor g = grad(sum(square(k.centres)), u, {}, {.create_graph = true});
    CHECK(largest(grad(sum(square(g)), u)) > 0);
  }
  CHECK(live_nodes() == nodes);
  CHECK(live_tensors() == tensors);
}

TEST_CASE("without a gradient nothing is recorded, and the start has none") {
  const Tensor u = groups(12);
  Tensor v = first_centres().requires_grad_();
  const ConvergedKmeans k = kmeans_soft_converged(u, v);
  CHECK_FALSE(k.centres.requires_grad());
  Tensor x = u.detach().requires_grad_();
  const Tensor loss = sum(kmeans_soft_converged(x, v).centres);
  CHECK_FALSE(grad({loss}, {x, v}, {}, {.allow_unused = true})[1].defined());
  const NoGradGuard off;
  CHECK_FALSE(kmeans_soft_converged(x, v).centres.requires_grad());
}

TEST_CASE("a state that stops moving, a step without state, a NaN") {
  Tensor b = scalar(2, DType::f64).requires_grad_();
  const FixedPoint constant = fixed_point(
      [](const TensorList&, const TensorList& in) -> TensorList { return {square(in[0])}; },
      {scalar(0, DType::f64)}, {b});
  CHECK(constant.converged);
  CHECK(constant.iterations == 2);
  CHECK(grad(constant.state[0], b).item() == 4);
  const FixedPoint nan = fixed_point(
      [](const TensorList& x, const TensorList&) -> TensorList { return {log(x[0] - 1.0)}; },
      {scalar(0.5, DType::f64)}, {});
  CHECK_FALSE(nan.converged);
  CHECK(nan.iterations == 1);
  CHECK(std::isnan(nan.change));
  const FixedPoint slow =
      fixed_point([](const TensorList& x, const TensorList&) -> TensorList { return {x[0] + 1.0}; },
                  {scalar(0, DType::f64)}, {}, {.max_iterations = 7});
  CHECK_FALSE(slow.converged);
  CHECK(slow.iterations == 7);
  CHECK(slow.change == 1);
}

TEST_CASE("errors of fixed points say what was expected and what was given") {
  const auto same = [](const TensorList& x, const TensorList&) { return x; };
  const Tensor x = ones({2});
  CHECK(contains(message_of<ValueError>([&] { fixed_point(same, {}, {}); }),
                 "fixed_point: the state must hold at least one tensor"));
  CHECK(contains(message_of<ValueError>([&] { fixed_point(same, {x}, {}, {.tolerance = -1}); }),
                 "tolerance must be at least 0"));
  CHECK(contains(message_of<ValueError>([&] { fixed_point(same, {x}, {}, {.max_iterations = 0}); }),
                 "max_iterations at least 1; got 1e-06 and 0"));
  CHECK(contains(
      message_of<ValueError>([&] { fixed_point(same, {x}, {}, {.backward_iterations = 0}); }),
      "backward_iterations at least 1"));
  CHECK_THROWS_AS(fixed_point(same, {arange(3)}, {}), DTypeError);
  CHECK(message_of<ShapeError>([&] {
          fixed_point([](const TensorList&, const TensorList&) { return TensorList{ones({3})}; },
                      {x}, {});
        }) == "fixed_point: the step must keep shape and type of state 0, f32 [2]; got f32 [3]");
  CHECK(contains(message_of<ShapeError>([&] {
                   fixed_point([](const TensorList&, const TensorList&) { return TensorList{}; },
                               {x}, {});
                 }),
                 "as many tensors as the state has, 1; got 0"));
  // x' = x + b − b: every x is a fixed point, and none has a gradient.
  Tensor b = ones({2}).requires_grad_();
  const FixedPoint r =
      fixed_point([](const TensorList& s,
                     const TensorList& in) -> TensorList { return {s[0] + in[0] - in[0]}; },
                  {x}, {b});
  CHECK(contains(message_of<GradError>([&] { grad(sum(r.state[0]), b); }),
                 "fixed_point: the adjoint system (I - df/dx)^T w = g is singular"));
  CHECK(contains(message_of<ValueError>([&] {
                   kmeans_soft_converged(ones({4, 2}), ones({2, 2}), {.sharpness = 0});
                 }),
                 "kmeans_soft_converged: the sharpness K"));
}
