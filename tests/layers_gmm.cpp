// Gaussian mixtures: densities, EM in all forms of covariance, its likelihood, its limit, its
// errors.

#include <capsfw/layers/gmm.hpp>

#include <numbers>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_cluster.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

constexpr Covariance kKinds[] = {Covariance::full, Covariance::diag, Covariance::spherical,
                                 Covariance::fixed};

/// A random start for data [B, N, D].
GaussianMixture random_start(const Tensor& x, std::int64_t k, Covariance kind, Rng& rng) {
  const std::int64_t b = x.size(0), d = x.size(2);
  GaussianMixture m = mixture_at(x, rng.normal({b, k, d}, 0, 0.6, DType::f64), kind);
  m.weights = softmax(randn({b, k}, rng, DType::f64), -1);
  if (kind == Covariance::full) {
    const Tensor a = rng.normal({b, k, d, d}, 0, 0.3, DType::f64);
    m.covariance = matmul(a, transpose(a)) + eye(d, DType::f64);
  } else {
    m.covariance = rng.uniform(m.covariance.shape(), 0.6, 1.5, DType::f64);
  }
  return m;
}

/// ln N by its definition, for diagonal covariance.
double log_normal(double x, double mean, double variance) {
  return -0.5 * ((x - mean) * (x - mean) / variance + std::log(2 * std::numbers::pi * variance));
}

/// Σ in the form of a full covariance [B, k, D, D].
Tensor as_full(const Tensor& variance) {
  return unsqueeze(variance, -1) * eye(variance.size(-1), variance.dtype());
}

Tensor permuted(const Tensor& x, int axis, const Tensor& order, Covariance kind) {
  return kind == Covariance::fixed ? x : index_select(x, axis, order);
}

}  // namespace

TEST_CASE("E4 log densities: against the definition, full against diagonal, votes against data") {
  const Tensor x = from_vector<double>({0.3, -1}, {1, 2});
  const Tensor mean = from_vector<double>({1, 2}, {1, 2}),
               variance = from_vector<double>({0.5, 3}, {1, 2});
  CHECK(gaussian_log_prob_diag(x, mean, variance).item() ==
        doctest::Approx(log_normal(0.3, 1, 0.5) + log_normal(-1, 2, 3)));
  Rng rng(1);
  for (int trial = 0; trial < 20; ++trial) {
    const Problem p(rng);
    const Tensor v = rng.uniform(p.v.shape(), 0.3, 2, DType::f64);
    const Tensor diagonal = gaussian_log_prob_diag(p.u, p.v, v);
    CHECK(max_difference(diagonal, gaussian_log_prob_full(p.u, p.v, as_full(v))) < 1e-10);
    const Tensor votes =
        contiguous(broadcast_to(unsqueeze(p.u, 2), {p.batch, p.points, p.clusters, p.u.size(2)}));
    CHECK(max_difference(diagonal, vote_log_density(votes, p.v, v)) < 1e-10);
    CHECK(max_difference(select(diagonal, 0, 0),
                         gaussian_log_prob_diag(select(p.u, 0, 0), select(p.v, 0, 0),
                                                select(v, 0, 0))) < 1e-12);
  }
  // Rotating data, means and covariances changes nothing.
  const Problem p(rng);
  const GaussianMixture m = random_start(p.u, p.clusters, Covariance::full, rng);
  const double angle = 0.7;
  Tensor q = eye(p.u.size(2), DType::f64);
  if (p.u.size(2) > 1) {
    double* e = q.mutable_data<double>();
    const auto d = p.u.size(2);
    e[0] = e[d + 1] = std::cos(angle);
    e[1] = -std::sin(angle);
    e[d] = std::sin(angle);
  }
  const Tensor turned = matmul(matmul(q, m.covariance), transpose(q));
  CHECK(max_difference(gaussian_log_prob_full(matmul(p.u, transpose(q)),
                                              matmul(m.means, transpose(q)), turned),
                       gaussian_log_prob_full(p.u, m.means, m.covariance)) < 1e-9);
}

TEST_CASE("the log-likelihood never falls with eps = 0, for every kind of covariance") {
  Rng rng(2);
  for (int trial = 0; trial < 15; ++trial)
    for (const auto kind : kKinds) {
      const Problem p(rng, 30);
      const GaussianMixture start = random_start(p.u, 2 + rng.below(2), kind, rng);
      const GmmResult r = gmm_em(p.u, start, {.iterations = 6, .covariance = kind});
      CHECK(r.log_likelihoods.shape() == Shape{p.batch, 7});
      CHECK(largest_rise(neg(r.log_likelihoods)) <= 1e-10);
      CHECK(largest_rise(r.log_likelihoods) > 0);  // it does something
      CHECK(max_difference(sum(r.responsibilities, {-1}), ones({p.batch, p.points}, DType::f64)) <
            1e-12);
      CHECK(max_difference(sum(r.mixture.weights, {-1}), ones({p.batch}, DType::f64)) < 1e-12);
      CHECK(r.mixture.covariance.shape() == start.covariance.shape());
    }
}

TEST_CASE("kinds of covariance agree where they say the same") {
  Rng rng(3);
  const Tensor x = randn({2, 30, 3}, rng, DType::f64), means = randn({2, 1, 3}, rng, DType::f64);
  const auto once = [&](Covariance kind) {
    return gmm_em(x, mixture_at(x, means, kind), {.iterations = 1, .covariance = kind});
  };
  const GmmResult full = once(Covariance::full), diag = once(Covariance::diag),
                  spherical = once(Covariance::spherical);
  CHECK(max_difference(diag.mixture.means, mean(x, {1}, true)) < 1e-12);
  CHECK(max_difference(diag.mixture.covariance, var(x, {1}, 0, true)) < 1e-12);
  CHECK(max_difference(diagonal(full.mixture.covariance), diag.mixture.covariance) < 1e-12);
  CHECK(max_difference(spherical.mixture.covariance, mean(diag.mixture.covariance, {-1})) < 1e-12);
  const Tensor line = narrow(x, 2, 0, 1), at = randn({2, 3, 1}, rng, DType::f64);
  const auto run = [&](Covariance kind) {
    return gmm_em(line, mixture_at(line, at, kind), {.iterations = 4, .covariance = kind})
        .mixture.means;
  };
  CHECK(max_difference(run(Covariance::full), run(Covariance::diag)) < 1e-9);
  CHECK(max_difference(run(Covariance::spherical), run(Covariance::diag)) < 1e-9);
}

TEST_CASE("a small fixed variance gives hard K-means where no cluster empties and none ties") {
  Rng rng(4);
  int compared = 0;
  for (int trial = 0; trial < 80 && compared < 8; ++trial) {
    const Problem p(rng);
    const Clustering hard = kmeans_hard(p.u, p.v, {.iterations = 3});
    bool clear = true;
    Tensor v = p.v;
    for (int t = 0; t < 3; ++t) {
      const Tensor d = cluster_distances(p.u, v, ClusterMetric::euclid);
      const Tensor two = topk(d, 2, -1, false).values;
      clear = clear && min(select(two, -1, 1) - select(two, -1, 0)).item() > 1e-3;
      const Clustering one = kmeans_hard(p.u, v, {.iterations = 1});
      clear = clear && min(sum(one.couplings, {1})).item() > 0;
      v = one.centres;
    }
    if (!clear) continue;
    ++compared;
    GaussianMixture start = mixture_at(p.u, p.v, Covariance::fixed);
    start.covariance = scalar(1e-5, DType::f64);
    const GmmResult r = gmm_em(p.u, start, {.iterations = 3, .covariance = Covariance::fixed});
    CHECK(max_difference(r.mixture.means, hard.centres) < 1e-6);
    CHECK(max_difference(r.responsibilities, hard.couplings) < 1e-6);
  }
  CHECK(compared == 8);
}

TEST_CASE("permuting data permutes responsibilities, permuting components permutes all of them") {
  Rng rng(5);
  for (const auto kind : kKinds) {
    const Problem p(rng, 30);
    const std::int64_t k = 3;
    const GaussianMixture start = random_start(p.u, k, kind, rng);
    const GmmOptions o{.iterations = 3, .covariance = kind, .eps = 1e-4};
    const GmmResult base = gmm_em(p.u, start, o);
    const Tensor points = rng.permutation(p.points), components = rng.permutation(k);
    const GmmResult by_point = gmm_em(index_select(p.u, 1, points), start, o);
    CHECK(max_difference(by_point.mixture.means, base.mixture.means) < 1e-9);
    CHECK(max_difference(by_point.responsibilities,
                         index_select(base.responsibilities, 1, points)) < 1e-9);
    const GmmResult turned = gmm_em(
        p.u,
        {index_select(start.means, 1, components), permuted(start.covariance, 1, components, kind),
         index_select(start.weights, 1, components)},
        o);
    CHECK(max_difference(turned.mixture.means, index_select(base.mixture.means, 1, components)) <
          1e-9);
    CHECK(max_difference(turned.mixture.covariance,
                         permuted(base.mixture.covariance, 1, components, kind)) < 1e-9);
    CHECK(max_difference(turned.responsibilities,
                         index_select(base.responsibilities, 2, components)) < 1e-9);
    CHECK(max_difference(turned.log_likelihoods, base.log_likelihoods) < 1e-8);
  }
}

TEST_CASE("a sample is fitted alike alone, in a batch, and without a batch axis") {
  Rng rng(6);
  for (const auto kind : kKinds) {
    const Tensor x = randn({3, 25, 2}, rng, DType::f64);
    const GaussianMixture m = random_start(x, 3, kind, rng);
    const GmmOptions o{.iterations = 3, .covariance = kind};
    const GmmResult all = gmm_em(x, m, o);
    for (int b = 0; b < 3; ++b) {
      const Tensor covariance =
          kind == Covariance::fixed ? m.covariance : select(m.covariance, 0, b);
      const GmmResult one =
          gmm_em(select(x, 0, b), {select(m.means, 0, b), covariance, select(m.weights, 0, b)}, o);
      CHECK(max_difference(one.mixture.means, select(all.mixture.means, 0, b)) < 1e-10);
      CHECK(max_difference(one.responsibilities, select(all.responsibilities, 0, b)) < 1e-10);
      CHECK(max_difference(one.log_likelihoods, select(all.log_likelihoods, 0, b)) < 1e-9);
    }
  }
}

TEST_CASE("eps keeps a single point, coinciding points and starved components finite") {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const auto kind : kKinds) {
      const GmmOptions o{.iterations = 3, .covariance = kind, .eps = 1e-3};
      Rng rng(7);
      for (const std::int64_t n : {1, 4}) {
        Tensor x = ones({1, n, 2}, dtype).requires_grad_();
        const Tensor means = randn({1, 2, 2}, rng, dtype);
        const GmmResult r = gmm_em(x, mixture_at(x, means, kind), o);
        CHECK(max_difference(r.mixture.means, ones({1, 2, 2}, dtype)) < 1e-6);
        CHECK(all(isfinite(r.log_likelihoods)));
        CHECK(all(isfinite(grad(sum(r.mixture.means) + sum(r.mixture.weights), x))));
      }
      Tensor x = randn({1, 8, 2}, rng, dtype).requires_grad_();
      const Tensor far = cast_data(from_vector<double>({0, 0, 300, 300}, {1, 2, 2}), dtype);
      const GmmResult r = gmm_em(x, mixture_at(x, far, kind), o);
      CHECK(all(isfinite(r.mixture.means)));
      CHECK(largest(r.mixture.means) <= largest(x) * 1.001);
      CHECK(all(isfinite(grad(sum(r.mixture.means), x))));
    }
}

TEST_CASE("gradients of EM to second order, for every kind of covariance") {
  Rng rng(8);
  const Tensor x = randn({1, 7, 2}, rng, DType::f64);
  for (const auto kind : kKinds) {
    const GaussianMixture m = random_start(x, 2, kind, rng);
    const GmmOptions o{.iterations = 2, .covariance = kind, .eps = 0.1};
    test::check_gradients(
        [o](const TensorList& in) {
          const GmmResult r = gmm_em(in[0], {in[1], in[2], in[3]}, o);
          return TensorList{r.mixture.means, r.mixture.weights, r.responsibilities,
                            r.log_likelihoods};
        },
        {x, m.means, m.covariance, m.weights});
  }
}

TEST_CASE("the log-likelihoods cost nothing when not asked for") {
  Rng rng(9);
  const Problem p(rng, 20);
  const GaussianMixture m = random_start(p.u, 2, Covariance::diag, rng);
  const GmmResult with = gmm_em(p.u, m), without = gmm_em(p.u, m, {.log_likelihoods = false});
  CHECK_FALSE(without.log_likelihoods.defined());
  CHECK(same_bits(with.mixture.means, without.mixture.means));
  CHECK(same_bits(with.responsibilities, without.responsibilities));
}

TEST_CASE("errors of mixtures say what was expected and what was given") {
  Rng rng(10);
  const Tensor x = randn({1, 6, 2}, rng), means = randn({1, 2, 2}, rng);
  const GaussianMixture m = mixture_at(x, means, Covariance::diag);
  CHECK(contains(message_of<ShapeError>([&] {
                   mixture_at(x, ones({1, 2, 3}), Covariance::diag);
                 }),
                 "mixture_at: data must be [B, N, D] and means [B, k, D], or [N, D] and [k, D]; "
                 "got [1, 6, 2] and [1, 2, 3]"));
  CHECK(message_of<ShapeError>([&] { gmm_em(x, m, {.covariance = Covariance::full}); }) ==
        "gmm_em: the full covariance of means [1, 2, 2] must be [1, 2, 2, 2]; got [1, 2, 2]");
  CHECK(contains(message_of<ShapeError>([&] { gmm_em(x, {means, {}, m.weights}); }), "got none"));
  CHECK(contains(message_of<ShapeError>([&] {
                   gmm_em(x, {means, m.covariance, ones({2})});
                 }),
                 "the weights of means [1, 2, 2] must be [1, 2]; got [2]"));
  CHECK(contains(message_of<ValueError>([&] { gmm_em(x, m, {.iterations = 0}); }),
                 "gmm_em: at least 1 iteration; got 0"));
  CHECK(contains(message_of<ValueError>([&] { gmm_em(x, m, {.eps = -1}); }), "eps must be"));
  CHECK(contains(message_of<ValueError>([&] {
                   gmm_em(x, {means, zeros({1, 2, 2}), m.weights});
                 }),
                 "the first variances must be positive"));
  CHECK(contains(message_of<ValueError>([&] {
                   gmm_em(x, {means, m.covariance, zeros({1, 2})});
                 }),
                 "the first weights must be positive"));
  CHECK(contains(message_of<ValueError>([&] {
                   gmm_em(ones({1, 0, 2}), {means, m.covariance, m.weights});
                 }),
                 "at least one point"));
  CHECK(message_of<ValueError>([&] { covariance_kind("tied"); }) ==
        "covariance_kind: one of full, diag, spherical, fixed; got 'tied'");
  for (const auto kind : {Covariance::full, Covariance::diag, Covariance::spherical}) {
    const Tensor same = ones({1, 6, 2});
    const std::string message = message_of<ValueError>(
        [&] { gmm_em(same, mixture_at(same, means, kind), {.covariance = kind}); });
    CHECK(contains(message, "gmm_em: the "));
    CHECK(contains(message, "Hint: eps > 0, or fewer components"));
  }
}
