// The kernels of K-means and entropy-regularised routing (stored votes, products, windows) against
// the algorithms in plain ops. Those of dynamic routing have files of their own.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/per_sample.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;
using capsfw::testing::Threads;
using capsfw::testing::worst_relative_difference;

namespace {

enum class How { stored, product, windows };

/// A routing with its inputs. Windows: three children, two apart.
struct Problem {
  bool entropy;
  How how;
  std::int64_t b, i, j, d, e;
  int sums;
  bool leaky = false, detach = false, prior = false, mask = false, shared = false;

  Shape votes() const { return {b, i, j, d}; }
  std::int64_t windows() const { return how == How::windows ? (i - 3) / 2 + 1 : 1; }
  Shape routed() const {
    return how == How::windows ? Shape{b * windows(), 3, j, d} : Shape{b, i, j, d};
  }
  KmeansRoutingOptions kmeans() const {
    return {.iterations = sums - 1,
            .sharpness = 2.5,
            .squash_c = 0.5,
            .detach = detach,
            .leaky = leaky,
            .prior = prior};
  }
  EntropyRoutingOptions regularised() const {
    return {
        .alphas = alpha_schedule(sums, 1.3, 0.7), .detach = detach, .leaky = leaky, .prior = prior};
  }
};

std::string name_of(const Problem& p) {
  return std::string(p.entropy ? "entropy " : "kmeans ") + std::to_string(static_cast<int>(p.how)) +
         " " + Shape{p.b, p.i, p.j, p.d, p.e}.str() + " sums=" + std::to_string(p.sums) +
         (p.leaky ? " leaky" : "") + (p.detach ? " detach" : "") + (p.prior ? " prior" : "") +
         (p.mask ? " mask" : "") + (p.shared ? " shared" : "");
}

/// Votes of every window, copied by plain ops.
Tensor cut(const Problem& p, const Tensor& votes) {
  if (p.how != How::windows) return votes;
  TensorList copies;
  for (std::int64_t k = 0; k < p.windows(); ++k) copies.push_back(narrow(votes, 1, k * 2, 3));
  return flatten(stack(copies, 1), 0, 1);
}

Routed reference(const Problem& p, const Tensor& votes, const Tensor& prior, const Tensor& kept) {
  return p.entropy ? entropy_routing_reference(cut(p, votes), p.regularised(), prior, kept)
                   : kmeans_routing_reference(cut(p, votes), p.kmeans(), prior, kept);
}

template <class Module, class Options>
Routed routed_by(const Options& options,
                 const Problem& p,
                 const VoteProduct& product,
                 const Tensor& prior,
                 const Tensor& kept) {
  Rng rng(1);
  Module module({.children = p.i, .parents = p.j, .dim = p.d}, options, rng);
  if (prior.defined()) module.prior = prior;
  const Votes rest{.votes = {}, .kept = kept};
  const std::optional<Routed> out = p.how == How::windows
                                        ? module.route_windows({product, 3, 2}, rest)
                                        : module.route_product(product, rest);
  REQUIRE(out.has_value());
  return *out;
}

Routed fused(const Problem& p,
             const VoteProduct& product,
             const Tensor& prior,
             const Tensor& kept) {
  if (p.how == How::stored)
    return p.entropy ? entropy_routing(product.votes(), p.regularised(), prior, kept)
                     : kmeans_routing(product.votes(), p.kmeans(), prior, kept);
  return p.entropy ? routed_by<EntropyRouting>(p.regularised(), p, product, prior, kept)
                   : routed_by<KmeansRouting>(p.kmeans(), p, product, prior, kept);
}

/// Poses, couplings, gradients of u, weight and prior, and those of the second order.
TensorList results(const Problem& p, DType dtype, bool fast, bool second) {
  Rng rng(1);
  const auto draw = [&](const Shape& shape, double scale) {
    return cast_data(rng.normal(shape, 0, scale, DType::f64), dtype);
  };
  const Shape shape = p.shared ? Shape{p.j, p.d, p.e} : Shape{p.i, p.j, p.d, p.e};
  Tensor u = draw({p.b, p.i, p.e}, 1).requires_grad_(),
         w = draw(shape, 1 / std::sqrt(static_cast<double>(p.e))).requires_grad_();
  const VoteProduct product{u, w};
  const Shape to = p.routed();
  Tensor prior, kept;
  TensorList inputs{u, w};
  if (p.prior) inputs.push_back(prior = draw({p.i, p.j}, 1).requires_grad_());
  if (p.mask) {
    kept = ones({to[0], p.j}, DType::b8);
    for (std::int64_t k = 0; p.j > 1 && k < to[0]; ++k)
      select(select(kept, 0, k), 0, k % p.j).copy_(scalar(0, DType::b8));
  }
  const Tensor gv = draw({to[0], p.j, p.d}, 1), gc = draw({to[0], to[1], p.j}, 1),
               du = draw(u.shape(), 1), dw = draw(shape, 1);
  const Routed out =
      fast ? fused(p, product, prior, kept) : reference(p, product.votes(), prior, kept);
  TensorList all{out.poses.detach(), out.couplings.detach()};
  const auto add = [&](const TensorList& g) { all.insert(all.end(), g.begin(), g.end()); };
  const GradOptions keep{.retain_graph = true, .allow_unused = true};
  add(grad({out.poses}, inputs, {gv}, keep));
  if (p.detach) return all;
  add(grad({out.poses, out.couplings}, inputs, {gv, gc}, keep));
  if (!second) return all;
  const TensorList g = grad({out.poses, out.couplings}, inputs, {gv, gc}, {.create_graph = true});
  add(grad({sum(g[0] * du) + sum(g[1] * dw)}, inputs, {}, keep));
  return all;
}

}  // namespace

TEST_CASE("kernels of K-means and entropy routing equal plain ops: values, gradients, 2nd order") {
  for (const bool entropy : {false, true})
    for (const How how : {How::stored, How::product, How::windows})
      for (const Problem& size : std::vector<Problem>{
               {.entropy = entropy, .how = how, .b = 8, .i = 5, .j = 1, .d = 4, .e = 3, .sums = 2},
               {.entropy = entropy, .how = how, .b = 9, .i = 40, .j = 4, .d = 8, .e = 8, .sums = 3},
               {.entropy = entropy,
               .how = how,
               .b = 17,
               .i = 7,
               .j = 3,
               .d = 16,
               .e = 5,
               .sums = 5}})
        for (const int variant : {0, 1, 2, 3, 4, 5}) {
          if (testing::kSanitized && (variant == 0 || variant == 2)) continue;  // slow there
          Problem p = size;
          p.leaky = variant % 2 == 1;
          p.prior = how != How::windows && variant % 3 == 1;
          p.mask = variant > 2;
          p.detach = how != How::windows && variant == 5;
          p.shared = how == How::windows || (how == How::stored && variant == 4);
          CAPTURE(name_of(p));
          const bool second = p.b * p.i * p.j * p.d < 3000;
          const TensorList expected = results(p, DType::f64, false, second);
          CHECK(worst_relative_difference(results(p, DType::f64, true, second), expected) < 1e-9);
          CHECK(worst_relative_difference(results(p, DType::f32, true, second), expected) <
                8 * worst_relative_difference(results(p, DType::f32, false, second), expected) +
                    5e-5);
        }
}

TEST_CASE("kernels of K-means and entropy routing agree with finite differences, twice") {
  Rng rng(3);
  const Tensor votes = rng.normal({2, 4, 3, 2}, 0, 1, DType::f64),
               prior = rng.normal({4, 3}, 0, 1, DType::f64);
  const Function kmeans = [](const TensorList& in) -> TensorList {
    const Routed out = kmeans_routing(in[0], {.sharpness = 1.5}, in[1]);
    return {out.poses, out.couplings};
  };
  const Function entropy = [](const TensorList& in) -> TensorList {
    const Routed out = entropy_routing(in[0], {}, in[1]);
    return {out.poses, out.couplings};
  };
  for (const Function& fn : {kmeans, entropy}) {
    testing::check_gradients(fn, {votes, prior});
  }
}

TEST_CASE(
    "kernels of K-means and entropy routing: zero votes, threads, memory, many temperatures") {
  Rng rng(4);
  Tensor votes = rng.normal({20, 300, 5, 16}, 0, 0.1);
  select(votes, 0, 0).fill_(0);
  select(votes, 2, 1).fill_(0);
  votes.requires_grad_();
  const Tensor cotangent = rng.normal({20, 5, 16}, 0, 1);
  for (const bool entropy : {false, true}) {
    TensorList before;
    for (const int threads : {1, 2, 3}) {
      const Threads scope(threads);
      const Routed out = entropy ? entropy_routing(votes) : kmeans_routing(votes);
      const TensorList now{out.poses.detach(), out.couplings.detach(),
                           grad(out.poses, votes, cotangent)};
      for (std::size_t k = 0; k < before.size(); ++k) CHECK(same_bits(before[k], now[k]));
      before = now;
      CHECK(largest(select(now[0], 0, 0)) == 0);
      for (const Tensor& x : now)
        for (const double v : testing::values(x)) REQUIRE(std::isfinite(v));
    }
  }
  // Besides the gradient of the votes nothing of their size is made.
  reset_peak_memory();
  const auto live = static_cast<double>(memory_stats().live);
  grad(kmeans_routing(votes, {.iterations = 8}).poses, votes, cotangent);
  CHECK(static_cast<double>(memory_stats().peak) - live <
        2.0 * 4 * static_cast<double>(votes.numel()));
  // More temperatures than a node holds: plain ops.
  const Tensor few = rng.normal({2, 3, 2, 4}, 0, 1, DType::f64);
  for (const int n : {16, 17, 20}) {
    const EntropyRoutingOptions o{.alphas = alpha_schedule(n, 1.0, 0.9)};
    CHECK(max_difference(entropy_routing(few, o).poses, entropy_routing_reference(few, o).poses) <
          1e-12);
  }
}

TEST_CASE("gradients of single samples pass K-means routing of votes that are not stored") {
  Rng rng(5);
  DenseCapsules layer(6, 4, 3, 5, rng, {.routing = KmeansRoutingOptions{.iterations = 2}});
  layer.to(DType::f64);
  const Tensor x = rng.normal({9, 6, 4}, 0, 1, DType::f64);
  const auto losses = [&](const Tensor& u) { return sum(square(layer(u)), {1, 2}); };
  const TensorList found = per_sample_gradients(losses(x), layer), parameters = layer.parameters();
  REQUIRE(found.size() == parameters.size());
  for (std::size_t k = 0; k < found.size(); ++k)
    for (std::int64_t b = 0; b < 9; ++b) {
      const Tensor one = grad(sum(losses(narrow(x, 0, b, 1))), parameters[k]);
      CHECK(max_difference(select(found[k], 0, b), one) < 1e-10);
    }
}
