// The whole capsule family far from 1 in f32: at zero, at denormal and at one-hot numbers, and up
// to 1e12, results and gradients are finite; beyond, up to 1e30, they are, or an error names the
// cause.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/layers/gmm.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;

namespace {

struct Results {
  TensorList values, parameters;
  Results(TensorList v, const NamedTensors& p = {}) : values(std::move(v)) {
    for (const auto& named : p) parameters.push_back(named.second);
  }
};

/// A function of x [B, I, J, D], small ones of which are looked at.
struct Case {
  std::string name;
  std::function<Results(const Tensor&)> run;
  bool loss = false;  ///< infinite where squares overflow, for Run to see; never NaN
};

constexpr std::int64_t kB = 2, kI = 6, kJ = 3, kD = 4;

TensorList results_of(const Routed& r) {
  return r.activations.defined() ? TensorList{r.poses, r.couplings, r.activations}
                                 : TensorList{r.poses, r.couplings};
}

/// The first votes as the poses of children, [B, I, D].
Tensor poses_of(const Tensor& x) { return select(x, 2, 0); }

void add_routings(std::vector<Case>& all) {
  std::vector<std::string> specs;
  for (const RoutingKind& kind : routing_kinds()) specs.push_back(kind.name);
  for (const char* more : {"dynamic:leaky", "dynamic:agreement=cosine", "dynamic:activation",
                           "kmeans:sharpness=8,leaky", "entropy:alphas=0.7/0.7", "em:variant=v1",
                           "em:variant=v2", "em:variant=v3", "em:variant=v4", "em:variant=eq12"})
    specs.emplace_back(more);
  for (const std::string& spec : specs) {
    all.push_back({"routing " + spec, [spec](const Tensor& x) {
                     Rng rng(1);
                     const auto routing = RoutingSpec(spec).make(
                         {.children = kI, .parents = kJ, .dim = kD, .child_dim = kD}, rng);
                     return results_of((*routing)({.votes = x, .poses = poses_of(x)}));
                   }});
    all.push_back({"dense " + spec, [spec](const Tensor& x) {
                     Rng rng(1);
                     DenseCapsules layer(kI, kD, kJ, kD, rng, {.routing = spec});
                     return Results(results_of(layer.route(poses_of(x))), layer.named_parameters());
                   }});
    all.push_back({"conv " + spec, [spec](const Tensor& x) {
                     Rng rng(1);
                     ConvCapsules layer(kJ, kD, kJ, kD, {.kernel = {2}}, rng, {.routing = spec});
                     // [B, I, J, D] as [B, C = J, L = I, D].
                     const ConvRouted r = layer.route(transpose(x, 1, 2));
                     return Results({r.poses, r.couplings}, layer.named_parameters());
                   }});
  }
}

void add_references(std::vector<Case>& all) {
  all.push_back({"dynamic_routing_reference",
                 [](const Tensor& x) { return results_of(dynamic_routing_reference(x, {})); }});
  all.push_back({"kmeans_routing_reference",
                 [](const Tensor& x) { return results_of(kmeans_routing_reference(x, {})); }});
  all.push_back({"entropy_routing_reference",
                 [](const Tensor& x) { return results_of(entropy_routing_reference(x, {})); }});
  for (const bool fused : {true, false})
    for (const char* variant : {"v1", "v2", "v3", "v4", "hinton", "eq12"})
      all.push_back({std::string(fused ? "em_routing " : "em_routing_reference ") + variant,
                     [fused, variant](const Tensor& x) {
                       const Tensor a = full({kB, kI}, 0.5), beta = zeros({kJ});
                       const auto lambdas = lambda_schedule(3, 1.0, 0.5);
                       const EmOptions o{.variant = em_variant(variant)};
                       const EmRouted r = fused
                                              ? em_routing(x, a, beta, beta, lambdas, o)
                                              : em_routing_reference(x, a, beta, beta, lambdas, o);
                       return TensorList{r.poses, r.activations, r.assignments};
                     }});
}

void add_squashes(std::vector<Case>& all) {
  const auto of_size = [](std::int64_t d) {
    return [d](const Tensor& x) { return reshape(x, {x.numel() / d, d}); };
  };
  for (const std::int64_t d : {1, 3, 8, 16}) {
    const auto rows = of_size(d);
    const std::string size = " of size " + std::to_string(d);
    all.push_back(
        {"squash" + size, [rows](const Tensor& x) { return TensorList{squash(rows(x))}; }});
    all.push_back({"squash_reference" + size,
                   [rows](const Tensor& x) { return TensorList{squash_reference(rows(x))}; }});
    all.push_back(
        {"squash_exp" + size, [rows](const Tensor& x) { return TensorList{squash_exp(rows(x))}; }});
    all.push_back({"safe_norm" + size,
                   [rows](const Tensor& x) { return TensorList{safe_norm(rows(x)) * 1e-8}; }});
    all.push_back({"safe_normalize" + size,
                   [rows](const Tensor& x) { return TensorList{safe_normalize(rows(x))}; }});
  }
}

void add_losses(std::vector<Case>& all) {
  const auto scores = [](const Tensor& x) { return reshape(x, {kB * kI, kJ * kD}); };
  const Tensor labels = cast_data(Rng(2).uniform({kB * kI}, 0, 11.9), DType::i64);
  all.push_back({"margin_loss",
                 [=](const Tensor& x) {
                   return TensorList{margin_loss(scores(x), one_hot(labels, kJ * kD))};
                 },
                 true});
  all.push_back({"spread_loss",
                 [=](const Tensor& x) { return TensorList{spread_loss(scores(x), labels, 0.9)}; },
                 true});
  all.push_back({"cross_entropy",
                 [=](const Tensor& x) { return TensorList{cross_entropy(scores(x), labels)}; }});
}

void add_clusterings(std::vector<Case>& all) {
  const auto points = [](const Tensor& x) { return reshape(x, {kB, kI * kJ, kD}); };
  const auto centres = [points](const Tensor& x) { return narrow(points(x), 1, 0, 2).detach(); };
  for (const ClusterMetric metric : {ClusterMetric::euclid, ClusterMetric::inner}) {
    const std::string name = metric == ClusterMetric::euclid ? " euclid" : " inner";
    const KmeansOptions o{.iterations = 3, .metric = metric};
    all.push_back({"kmeans_soft" + name, [=](const Tensor& x) {
                     const Clustering c = kmeans_soft(points(x), centres(x), o);
                     return TensorList{c.centres, c.couplings, c.losses};
                   }});
    all.push_back({"kmeans_hard" + name, [=](const Tensor& x) {
                     const Clustering c = kmeans_hard(points(x), centres(x), o);
                     return TensorList{c.centres, c.losses};
                   }});
  }
  for (const Covariance kind : {Covariance::full, Covariance::diag, Covariance::spherical})
    all.push_back({"gmm_em " + std::to_string(static_cast<int>(kind)), [=](const Tensor& x) {
                     const Tensor u = points(x);
                     const GmmResult r = gmm_em(u, mixture_at(u, centres(x), kind),
                                                {.iterations = 2, .covariance = kind, .eps = 1e-3});
                     return TensorList{r.mixture.means, r.responsibilities, r.log_likelihoods};
                   }});
  all.push_back({"kl_clustering", [=](const Tensor& x) {
                   const FuzzyClustering r = kl_clustering(points(x), centres(x), 3);
                   return TensorList{r.centres, r.couplings};
                 }});
  all.push_back({"entropy_clustering", [=](const Tensor& x) {
                   const FuzzyClustering r = entropy_clustering(points(x), centres(x), {1.0, 1.0});
                   return TensorList{r.centres, r.couplings};
                 }});
  all.push_back({"kl_trace", [](const Tensor& x) {
                   const FuzzyClustering r = kl_trace(x, 3);
                   return TensorList{r.centres, r.couplings};
                 }});
  all.push_back({"entropy_trace", [](const Tensor& x) {
                   const FuzzyClustering r = entropy_trace(x, {1.0, 0.5});
                   return TensorList{r.centres, r.couplings};
                 }});
  all.push_back({"smooth_max", [](const Tensor& x) {
                   return TensorList{smooth_max(x, 2.0), smooth_min(x, 2.0)};
                 }});
}

std::vector<Case> cases() {
  std::vector<Case> all;
  add_routings(all);
  add_references(all);
  add_squashes(all);
  add_losses(all);
  add_clusterings(all);
  return all;
}

struct Input {
  std::string name;
  Tensor x;
  bool huge;  ///< products of such numbers leave the range of f32
};

std::vector<Input> inputs() {
  const Shape shape{kB, kI, kJ, kD};
  std::vector<Input> all;
  Rng rng(7);
  const Tensor normal = rng.normal(shape, 0, 1);
  for (int power = -42; power <= 30; power += testing::kSanitized ? 6 : 1)
    all.push_back({fmt::format("normal times 1e{}", power),
                   cast_data(cast_data(normal, DType::f64) * std::pow(10.0, power), DType::f32),
                   power > 12});
  all.push_back({"zero", zeros(shape), false});
  for (int power = -30; power <= 30; power += testing::kSanitized ? 12 : 3) {
    const double value = std::pow(10.0, power);
    Tensor one = zeros(shape);
    one.mutable_data<float>()[5] = static_cast<float>(value);
    all.push_back({fmt::format("one-hot of 1e{}", power), one, power > 12});
    // The mean of equal ones is not one of them: what they differ by grows with them.
    all.push_back({fmt::format("equal to 1e{}", power), full(shape, value), power > 6});
  }
  Tensor mixed = contiguous_data(normal);
  for (std::int64_t i = 0; i < mixed.numel(); ++i)
    mixed.mutable_data<float>()[i] *= i % 3 == 0 ? 1e-30F : i % 3 == 1 ? 1.0F : 1e15F;
  all.push_back({"mixed", mixed, true});
  return all;
}

bool finite(const Tensor& x) {
  for (const double v : x.to_vector<double>())
    if (!std::isfinite(v)) return false;
  return true;
}

/// "" or what is wrong.
std::string check(const Case& c, const Input& input) {
  try {
    Tensor x = input.x.detach().requires_grad_();
    TensorList y, gy;
    Rng rng(9);
    std::size_t k = 0;
    const Results results = c.run(x);
    for (const Tensor& t : results.values) {
      const bool may = c.loss && input.huge && !any(isnan(t));
      if (!finite(t) && !may) return "result " + std::to_string(k) + " is not finite";
      ++k;
      if (!t.requires_grad()) continue;
      y.push_back(t);
      gy.push_back(rng.normal(t.shape(), 0, 1));
    }
    if (y.empty()) return "";
    TensorList wanted = results.parameters;
    wanted.push_back(x);
    for (const Tensor& g : grad(y, wanted, gy, {.allow_unused = true}))
      if (g.defined() && !finite(g)) return "a gradient is not finite";
    return "";
  } catch (const ValueError& e) {
    const bool said = dynamic_cast<const OverflowError*>(&e) != nullptr ||
                      contains(e.what(), "covariance of a component is singular");
    return input.huge && said ? "" : std::string("throws ") + e.what();
  }
}

}  // namespace

TEST_CASE("extreme inputs: finite results and gradients, or an error that names the cause") {
  const std::vector<Input> all = inputs();
  for (const Case& c : cases()) {
    std::string wrong;
    for (const Input& input : all)
      if (const std::string w = check(c, input); !w.empty())
        wrong += "\n  " + input.name + ": " + w;
    CHECK_MESSAGE(wrong.empty(), c.name << wrong);
  }
}
