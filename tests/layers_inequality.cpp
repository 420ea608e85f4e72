// The inequality between parameter and input gradients of multilayer perceptrons.

#include <cmath>

#include <capsfw/layers/inequality.hpp>
#include <capsfw/layers/per_sample.hpp>
#include <capsfw/ops/functional.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/spectral.hpp>

#include "layers_penalty.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

const std::vector<std::string> kActivations = {"tanh", "softplus", "relu", "identity"};

struct Network {
  std::vector<std::int64_t> sizes;
  MlpOptions options;
  double scale;
};

/// Depth 1 to 6, widths 1 to 64, any activation, with and without bias.
Network random_network(Rng& rng) {
  Network n{{},
            {.activation = kActivations[static_cast<std::size_t>(rng.below(4))],
             .last = kActivations[static_cast<std::size_t>(rng.below(4))],
             .bias = rng.below(2) == 0},
            0.2 + 3 * rng.uniform()};
  const std::int64_t depth = 1 + rng.below(6);
  // Half of the widths are small, where the two sides come close.
  for (std::int64_t t = 0; t <= depth; ++t)
    n.sizes.push_back(1 + rng.below(rng.below(2) == 0 ? 4 : 64));
  return n;
}

}  // namespace

TEST_CASE("the inequality holds on 1,000 random networks") {
  Rng rng(1);
  double worst = 0, layer = 0;
  std::string at;
  for (int k = 0; k < (capsfw::testing::kSanitized ? 100 : 1000); ++k) {
    const Network n = random_network(rng);
    DoubleMlp net(n.sizes, rng.next(), n.options);
    for (Tensor p : net.parameters()) p.copy_(p.detach() * n.scale);
    const Tensor x = rng.normal({2, n.sizes[0]}, 0, 1, DType::f64);
    const Tensor q = rng.normal({n.sizes.back()}, 0, 1, DType::f64);
    const InequalityTerms terms = inequality_terms(
        net.layers(), x, [&](const Tensor& h) { return matmul(h, q) + 0.5 * sum(square(h), {1}); });
    const Tightness t = tightness(terms);
    REQUIRE_MESSAGE(t.ratio <= 1 + 1e-9, "network " << k << ", " << t.where << ": " << t.ratio);
    if (t.ratio > layer) {
      layer = t.ratio;
      at = t.where;
    }
    const auto lhs = values(terms.lhs), rhs = values(terms.rhs);
    for (std::size_t b = 0; b < lhs.size(); ++b)
      if (rhs[b] > 0) worst = std::fmax(worst, lhs[b] / rhs[b]);
  }
  MESSAGE("largest left over right side: ", layer, " (1 - ", 1 - layer, "), ", at,
          "; of the total (f): ", worst);
  CHECK(layer > 0.999);  // networks with one output per layer come to equality
}

TEST_CASE("the sides of the inequality are what autograd says") {
  for (const bool bias : {true, false}) {
    DoubleMlp net({5, 6, 4, 3}, 1, {.activation = "softplus", .last = "tanh", .bias = bias});
    const Tensor x = normal({3, 5}, 2).requires_grad_();
    const InequalityTerms t = inequality_terms(net.layers(), x, head);
    const TensorList g = per_sample_gradients(head(net(x)), net);
    const std::size_t stride = bias ? 2 : 1;
    for (std::int64_t layer = 0; layer < 3; ++layer) {
      const auto k = static_cast<std::size_t>(layer) * stride;
      CHECK(max_difference(select(t.rhs_w, 1, layer), sum(square(g[k]), {1, 2})) < 1e-12);
      CHECK(max_difference(select(t.rhs_b, 1, layer),
                           bias ? sum(square(g[k + 1]), {1}) : zeros({3}, DType::f64)) < 1e-12);
    }
    CHECK(max_difference(t.rhs, per_sample_square_norms(head(net(x)), net)) < 1e-12);
    CHECK(mean(t.gx2).item() ==
          doctest::Approx(input_gradient_penalty(head(net(x)), x).item()).epsilon(1e-12));
    // The mean over samples bounds the per-sample penalty.
    CHECK(mean(t.lhs).item() <=
          param_gradient_penalty_per_sample(head(net(x)), net).item() * (1 + 1e-12));
    if (!bias) continue;
    // In a layer (w) and (b) have one ratio.
    CHECK(max_difference(t.lhs_w / t.rhs_w, t.lhs_b / t.rhs_b) < 1e-12);
  }
}

TEST_CASE("equality for one layer with one output") {
  for (const std::string& g : kActivations) {
    DoubleMlp net({7, 1}, 3, {.last = g});
    net.parameters()[1].fill_(0.4);
    const InequalityTerms t = inequality_terms(net.layers(), normal({4, 7}, 2), head);
    const auto lhs = values(t.lhs), rhs = values(t.rhs);
    for (std::size_t b = 0; b < 4; ++b) CHECK(lhs[b] == doctest::Approx(rhs[b]).epsilon(1e-12));
  }
}

TEST_CASE("a layer without an activation is one with the identity") {
  const DoubleMlp net({5, 4, 3}, 1, {.activation = "identity"});
  std::vector<MlpLayer> bare = net.layers();
  for (MlpLayer& layer : bare) layer.activation = nullptr;
  const Tensor x = normal({3, 5}, 2);
  const InequalityTerms a = inequality_terms(bare, x, head),
                        b = inequality_terms(net.layers(), x, head);
  CHECK(same_bits(a.lhs, b.lhs));
  CHECK(same_bits(a.rhs, b.rhs));
  CHECK(largest(a.lhs) > 0);
}

TEST_CASE("a dead layer has 0 on both sides") {
  DoubleMlp net({3, 4, 2}, 1, {.activation = "relu"});
  net.parameters()[1].fill_(-100);
  const InequalityTerms t = inequality_terms(net.layers(), normal({2, 3}, 2), head);
  CHECK(largest(t.gx2) == 0);
  CHECK(largest(t.j2 - from_vector<double>({1, 0, 1, 0}, {2, 2})) == 0);
  CHECK(largest(t.lhs) == 0);
  CHECK(all(isfinite(t.rhs)));
  CHECK(tightness(t).ratio == 0);
  // Weights of zero, and a function that looks at nothing.
  net.parameters()[0].fill_(0);
  CHECK(tightness(inequality_terms(net.layers(), normal({2, 3}, 2), head)).ratio == 0);
  CHECK(tightness(inequality_terms(net.layers(), normal({2, 3}, 2), [](const Tensor& h) {
          return sum(h.detach(), {1});
        })).ratio == 0);
}

TEST_CASE("the gradient of the batch mean does not bound the input penalty") {
  // ±x under an even function: the gradients of the bias cancel in the mean.
  DoubleMlp net({3, 4}, 3);
  net.parameters()[1].fill_(0);
  const Tensor half = normal({1, 3}, 4), x = cat({half, -half});
  const SampleFunction even = [](const Tensor& h) { return sum(square(h), {1}); };
  const InequalityTerms t = inequality_terms(net.layers(), x, even);
  CHECK(tightness(t).ratio <= 1 + 1e-12);
  const double bias = param_gradient_penalty_batch(even(net(x)), {net.parameters()[1]}).item();
  CHECK(mean(t.lhs_b).item() > 0.01);
  CHECK(bias < 1e-28);
}

TEST_CASE("power iteration gives the same table once it has converged") {
  // More inputs than units, and the reverse: through J Jᵀ, and J.
  for (const std::int64_t inputs : {20, 9}) {
    DoubleMlp net({inputs, 16, 12, 5}, 1);
    const Tensor x = normal({4, inputs}, 2);
    const InequalityTerms a = inequality_terms(net.layers(), x, head),
                          b = inequality_terms(net.layers(), x, head, SpectralMethod::power);
    CHECK(max_difference(a.w2, b.w2) < 1e-9);
    CHECK(max_difference(a.j2, b.j2) < 1e-9);
    CHECK(max_difference(a.lhs, b.lhs) < 1e-9 * largest(a.lhs));
    // The Jacobian of the last hidden layer, from autograd.
    const Tensor one = narrow(x, 0, 0, 1);
    const Tensor j = jacobian(
        [&](const Tensor& at) {
          Tensor h = at;
          for (std::size_t t = 0; t < 2; ++t) {
            const MlpLayer& layer = net.layers()[t];
            h = layer.activation(linear(h, layer.weight, layer.bias));
          }
          return h;
        },
        one);
    CHECK(square(spectral_norm(reshape(j, {12, inputs}))).item() ==
          doctest::Approx(values(select(a.j2, 0, 0))[2]).epsilon(1e-12));
  }
}

TEST_CASE("tightness names the place, and a NaN shows") {
  DoubleMlp net({3, 4, 2}, 1);
  InequalityTerms t = inequality_terms(net.layers(), normal({2, 3}, 2), head);
  t.rhs_b = t.rhs_b * 0.0;
  CHECK(std::isinf(tightness(t).ratio));
  CHECK(contains(tightness(t).where, "(b) of layer 1, sample 0"));
  CHECK(std::isnan(
      tightness(inequality_terms(net.layers(), full({1, 3}, NAN, DType::f64), head)).ratio));
  CHECK(message_of<ValueError>([] {
          inequality_terms({}, zeros({2, 3}), head);
        }) == "inequality_terms: at least one layer");
  CHECK(contains(
      message_of<ShapeError>([&] { inequality_terms(net.layers(), zeros({3}, DType::f64), head); }),
      "x must be [B, n]; got [3]"));
  CHECK(message_of<ValueError>([] { activation("gelu"); }) ==
        "activation: one of tanh, sigmoid, softplus, relu, identity; got 'gelu'");
  Rng rng(1);
  CHECK(contains(message_of<ValueError>([&] { Mlp({3}, rng); }), "at least two sizes"));
  CHECK(contains(message_of<ValueError>([&] { Mlp({3, 0}, rng); }), "got 3 and 0"));
}
