// Capsule convolution with every routing, against dense layers on patches that are cut by hand.

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/layers/em.hpp>
#include <capsfw/ops/arithmetic.hpp>
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

Tensor draw(const Shape& shape, std::uint64_t seed) {
  return Rng(seed).normal(shape, 0, 1, DType::f64);
}

std::unique_ptr<ConvCapsules> make(const PatchOptions& patches,
                                   const DenseCapsulesOptions& o,
                                   std::int64_t types = 3) {
  Rng rng(3);
  auto caps = std::make_unique<ConvCapsules>(2, 4, types, 4, patches, rng, o);
  caps->to(DType::f64);
  // Parameters that start at 0 (priors, betas) would hide which of them are used.
  std::uint64_t seed = 20;
  for (Tensor p : caps->parameters()) p.copy_(draw(p.shape(), ++seed) * 0.5);
  return caps;
}

/// Results are the pose and the activation of every type at one position.
struct At {
  Tensor pose, activation;
};
At at(const ConvRouted& r, std::int64_t y, std::int64_t x) {
  const auto pick = [&](const Tensor& t) { return select(select(t, 2, y), 2, x); };
  return {pick(r.poses), r.activations.defined() ? pick(r.activations) : lengths(pick(r.poses))};
}

/// The patch of position (y, x), kernel 2x3, stride {2, 1}: [B, 2·2·3, ...].
Tensor cut(const Tensor& t, std::int64_t y, std::int64_t x) {
  const Tensor window = contiguous(narrow(narrow(t, 2, 2 * y, 2), 3, x, 3));
  return t.dim() == 5 ? reshape(window, {t.size(0), 12, t.size(4)})
                      : reshape(window, {t.size(0), 12});
}

const PatchOptions kPlain{.kernel = {2, 3}, .stride = {2, 1}};

}  // namespace

TEST_CASE("capsule convolution is a dense layer on every patch, with every routing and vote") {
  const Tensor x = draw({2, 2, 5, 6, 4}, 1), a = Rng(2).uniform({2, 2, 5, 6}, 0, 1, DType::f64);
  for (const char* votes : {"full", "shared", "factorised", "matrix"})
    for (const RoutingKind& kind : routing_kinds()) {
      CAPTURE(votes);
      CAPTURE(kind.name);
      const auto caps =
          make(kPlain, {.routing = kind.name, .votes = vote_weights(votes), .noise_class = true});
      const ConvRouted out = caps->route(x, a);
      CHECK(out.poses.shape() == Shape{2, 3, 2, 4, 4});
      CHECK(out.couplings.shape() == Shape{2, 8, 12, 4});
      for (const auto& [row, column] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {1, 3}}) {
        const Routed dense = caps->patch.route(cut(x, row, column), cut(a, row, column));
        const At here = at(out, row, column);
        CHECK(max_difference(here.pose, dense.poses) < 1e-12);
        CHECK(max_difference(here.activation, activations_of(dense)) < 1e-12);
        CHECK(max_difference(select(out.couplings, 1, row * 4 + column), dense.couplings) < 1e-12);
      }
    }
}

TEST_CASE("capsule convolution: padding is a border of children that do not exist") {
  const PatchOptions padded{.kernel = {3, 2}, .stride = {1, 2}, .padding = {2, 1}},
      plain{.kernel = {3, 2}, .stride = {1, 2}};
  const Tensor x = draw({2, 2, 3, 4, 4}, 1), a = Rng(2).uniform({2, 2, 3, 4}, 0, 1, DType::f64);
  // The same map inside a larger one, whose border holds anything.
  const auto framed = [](const Tensor& t, double border) {
    const auto beside = [&](const Tensor& inner, int axis, std::int64_t n) {
      Shape s = inner.shape();
      s[axis] = n;
      const Tensor side = full(s, border, inner.dtype());
      return cat({side, inner, side}, axis);
    };
    return beside(beside(t, 2, 2), 3, 1);
  };
  const Tensor exists = ne(framed(ones({2, 2, 3, 4}, DType::f64), 0), 0.0);
  for (const RoutingKind& kind : routing_kinds()) {
    CAPTURE(kind.name);
    const auto one = make(padded, {.routing = kind.name}),
               other = make(plain, {.routing = kind.name});
    const ConvRouted r = one->route(x, a), s = other->route(framed(x, 9), framed(a, 0.9), exists);
    CHECK(r.poses.shape() == Shape{2, 3, 5, 3, 4});
    CHECK(max_difference(r.poses, s.poses) < 1e-12);
    CHECK(max_difference(r.couplings, s.couplings) < 1e-12);
    if (r.activations.defined()) CHECK(max_difference(r.activations, s.activations) < 1e-12);
    // The first patch sees a single row and column of the map: (c, 2, 1) of each type.
    const Tensor first = select(r.couplings, 1, 0);
    for (std::int64_t i = 0; i < 12; ++i)
      if (i % 6 != 5) CHECK(largest(select(first, 1, i)) == 0);
  }
}

TEST_CASE("capsule convolution over sequences is that over maps of one row") {
  const Tensor x = draw({2, 2, 7, 4}, 1), a = Rng(2).uniform({2, 2, 7}, 0, 1, DType::f64);
  for (const RoutingKind& kind : routing_kinds()) {
    CAPTURE(kind.name);
    const auto line = make({.kernel = {3}, .stride = {2}, .padding = {1}}, {.routing = kind.name}),
               map = make({.kernel = {1, 3}, .stride = {1, 2}, .padding = {0, 1}},
                          {.routing = kind.name});
    const ConvRouted r = line->route(x, a), s = map->route(unsqueeze(x, 2), unsqueeze(a, 2));
    CHECK(r.poses.shape() == Shape{2, 3, 4, 4});
    CHECK(same_bits(r.poses, reshape(s.poses, r.poses.shape())));
    if (r.activations.defined())
      CHECK(same_bits(r.activations, reshape(s.activations, r.activations.shape())));
  }
}

TEST_CASE("capsule convolution: priors of a sequence belong to the same children on every path") {
  const Tensor x = draw({2, 2, 7, 4}, 1);
  for (const std::string routing : {"dynamic:prior", "kmeans:prior", "entropy:prior"}) {
    CAPTURE(routing);
    const DenseCapsulesOptions o{.routing = routing, .votes = VoteWeights::shared};
    const auto line = make({.kernel = {3}, .stride = {2}}, o),
               map = make({.kernel = {1, 3}, .stride = {1, 2}}, o);
    const ConvRouted r = line->route(x), s = map->route(unsqueeze(x, 2));
    CHECK(max_difference(r.poses, reshape(s.poses, r.poses.shape())) < 1e-12);
    CHECK(max_difference(r.couplings, s.couplings) < 1e-12);
  }
}

TEST_CASE("O4 capsule convolution: a sequence gives the same for any amount of padding behind it") {
  const Tensor x = draw({1, 2, 5, 4}, 1);
  for (const RoutingKind& kind : routing_kinds()) {
    CAPTURE(kind.name);
    const auto caps = make({.kernel = {3}}, {.routing = kind.name});
    const Tensor alone = caps->route(x).poses;
    for (const std::int64_t more : {1, 4}) {
      const Tensor longer = cat({x, full({1, 2, more, 4}, 1e3, DType::f64)}, 2),
                   exists = broadcast_to(lt(arange(5 + more), 5), {1, 2, 5 + more});
      // Positions that see the sequence alone; those behind see fewer children.
      if (kind.name == "em" && more == 4) continue;  // the last patch is empty: an error of EM
      CHECK(max_difference(narrow(caps->route(longer, {}, exists).poses, 2, 0, 3), alone) < 1e-12);
    }
  }
}

TEST_CASE("capsule convolution: EM with matrix votes is conv_caps_em within patches") {
  const PatchOptions patches{.kernel = {2, 2}, .stride = {1, 2}, .padding = {1, 0}};
  const auto caps = make(patches, {.routing = EmRoutingOptions{}, .votes = VoteWeights::matrix});
  const Tensor x = draw({2, 2, 3, 4, 4}, 1), a = Rng(2).uniform({2, 2, 3, 4}, 0, 1, DType::f64);
  const auto& em = dynamic_cast<EmRouting&>(caps->routing());
  const ConvEmRouted expected =
      conv_caps_em(reshape(x, {2, 2, 3, 4, 2, 2}), a, caps->patch.votes.weight, em.beta_a,
                   em.beta_u, lambdas_for({}, 3, 8), patches);
  const ConvRouted r = caps->route(x, a);
  CHECK(max_difference(r.poses, reshape(expected.poses, r.poses.shape())) < 1e-12);
  CHECK(max_difference(r.activations, expected.activations) < 1e-12);
  CHECK(max_difference(r.couplings, expected.assignments) < 1e-12);
}

TEST_CASE("capsule convolution: a sample alone, other threads, gradients to second order") {
  const Tensor x = draw({2, 2, 3, 4, 4}, 1);
  const PatchOptions patches{.kernel = {2, 3}, .padding = {1, 0}};
  for (const RoutingKind& kind : routing_kinds()) {
    CAPTURE(kind.name);
    const auto caps = make(patches, {.routing = kind.name});
    const Tensor all_two = (*caps)(x);
    for (std::int64_t k = 0; k < 2; ++k)
      CHECK(max_difference((*caps)(narrow(x, 0, k, 1)), narrow(all_two, 0, k, 1)) < 1e-12);
    backward(sum(square((*caps)(x))));
    CHECK(largest(caps->patch.votes.weight.grad()) > 0);
    // Enough positions for several threads.
    const Tensor wide = draw({5, 2, 12, 13, 4}, 2);
    const auto with_threads = [&](int n) {
      const testing::Threads threads(n);
      const Tensor w = wide.detach().requires_grad_(), y = (*caps)(w);
      return TensorList{y.detach(), grad(sum(square(y)), w)};
    };
    const TensorList one = with_threads(1), three = with_threads(3);
    for (const std::size_t i : {0, 1}) CHECK(same_bits(one[i], three[i]));
  }
  const auto small = make({.kernel = {2}, .padding = {1}}, {.routing = "kmeans"}, 2);
  test::check_gradients([&](const TensorList& in) { return TensorList{small->route(in[0]).poses}; },
                        {draw({1, 2, 3, 4}, 5)});
}

TEST_CASE("capsule convolution: partial sampling drops types at single positions in training") {
  const auto caps = make({.kernel = {2, 2}}, {.keep = 0.5}, 4);
  const Tensor x = draw({2, 2, 5, 4, 4}, 1);
  const Tensor gone = to(eq(lengths((*caps)(x)), 0.0), DType::f64);  // [B, J, 4, 3]
  CHECK(max_difference(sum(gone, {1}), full({2, 4, 3}, 2, DType::f64)) == 0);
  CHECK(largest(gone - mean(gone, {2, 3}, true)) > 0.1);  // others at other positions
  caps->eval();
  CHECK(max(to(eq(lengths((*caps)(x)), 0.0), DType::f64)).item() == 0);
}

TEST_CASE("capsule convolution says what is wrong") {
  Rng rng(1);
  const auto build = [&](const PatchOptions& p, std::int64_t in = 2) {
    ConvCapsules caps(in, 4, 3, 4, p, rng);
  };
  CHECK(message_of<ValueError>([&] {
          build({.kernel = {2, 0}});
        }) ==
        "ConvCapsules: at least 1 capsule type below, and a kernel of one or two numbers of at "
        "least 1; got 2 and [2, 0]");
  CHECK_THROWS_AS(build({.kernel = {2, 2, 2}}), ValueError);
  CHECK_THROWS_AS(build({.kernel = {2}}, 0), ValueError);
  const auto caps = make({.kernel = {2, 2}}, {});
  const Tensor x = draw({1, 2, 3, 3, 4}, 1);
  CHECK(message_of<ShapeError>([&] {
          (*caps)(draw({1, 2, 3, 4}, 1));
        }) == "ConvCapsules: x must be [B, 2, H, W, 4] for a kernel [2, 2]; got [1, 2, 3, 4]");
  CHECK_THROWS_AS((*caps)(draw({1, 2, 1, 3, 4}, 1)), ShapeError);
  CHECK_THROWS_AS(caps->route(x, zeros({1, 2, 3, 4}, DType::f64)), ShapeError);
  CHECK_THROWS_AS(caps->route(x, {}, zeros({1, 2, 3, 3}, DType::f64)), DTypeError);
}
