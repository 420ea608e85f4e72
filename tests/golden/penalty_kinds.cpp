#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/inequality.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/mlp.hpp>
#include <capsfw/layers/penalty.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/spectral.hpp>
#include <capsfw/ops/unary.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

std::vector<MlpLayer> mlp(const Case& c) {
  std::vector<MlpLayer> layers;
  for (const std::string& name : split_list(c.text("acts"))) {
    const std::string k = std::to_string(layers.size() + 1);
    layers.push_back({c["W" + k], c["b" + k], activation(name == "id" ? "identity" : name)});
  }
  return layers;
}

/// The scalar function of the cases: ⟨q, h⟩ + ½ ‖h‖² of the last h.
Tensor head(const Case& c, const Tensor& h) {
  return matmul(h, c["q"]) + 0.5 * sum(square(h), {1});
}

SampleFunction mlp_function(const Case& c) {
  return [&c, layers = mlp(c)](const Tensor& x) {
    Tensor h = x;
    for (const MlpLayer& layer : layers) h = layer.activation(linear(h, layer.weight, layer.bias));
    return head(c, h);
  };
}

TensorList mlp_params(const Case& c) {
  TensorList params;
  for (const MlpLayer& layer : mlp(c))
    for (const Tensor& p : {layer.weight, layer.bias}) params.push_back(p);
  return params;
}

Named input_mlp(Case& c) { return {{"penalty", input_gradient_penalty(mlp_function(c), c["x"])}}; }

Named param_batch_mlp(Case& c) {
  const GradModeGuard recording(true);
  return {{"penalty", param_gradient_penalty_batch(mlp_function(c)(c["x"]), mlp_params(c))}};
}

Named param_sample_mlp(Case& c) {
  const SampleFunction f = mlp_function(c);
  return {{"penalty",
           param_gradient_penalty_per_sample([&](const TensorList& batch) { return f(batch[0]); },
                                             {c["x"]}, mlp_params(c))}};
}

Named loss_plus_both(Case& c) {
  const GradModeGuard recording(true);
  const Tensor losses = mlp_function(c)(c["x"]);
  return {{"total",
           mean(losses) + c.number("input_weight") * input_gradient_penalty(losses, c["x"]) +
               c.number("param_weight") * param_gradient_penalty_batch(losses, mlp_params(c))}};
}

Named wgan(Case& c) {
  return {{"penalty", wgan_gp(mlp_function(c), c["real"], c["fake"], c["mix"])}};
}

Tensor weighted_lengths(const Case& c, const Tensor& poses) {
  return matmul(safe_norm(poses), c["q"]);
}

SampleFunction dynamic(const Case& c) {
  return [&c](const Tensor& u) {
    return weighted_lengths(
        c, dynamic_routing(votes_full(u, c["W"]), {.iterations = c.integer("iterations"),
                                                   .squash_c = c.number("c"),
                                                   .detach = c.flag("detach")})
               .poses);
  };
}

SampleFunction kmeans(const Case& c) {
  return [&c](const Tensor& u) {
    return weighted_lengths(
        c, kmeans_routing(votes_shared(u, c["W"]), {.iterations = c.integer("iterations"),
                                                    .sharpness = c.number("K"),
                                                    .squash_c = c.number("c"),
                                                    .detach = c.flag("detach"),
                                                    .hard = c.flag("hard")})
               .poses);
  };
}

SampleFunction em(const Case& c) {
  return [&c](const Tensor& pose) {
    const EmRouted r = em_routing(votes_matrix(pose, c["W"]), c["a_in"], c["beta_a"], c["beta_u"],
                                  c.numbers("lambdas"),
                                  {.variant = em_variant(c.text("variant")),
                                   .eps_var = c.number("eps_var"),
                                   .detach = c.flag("detach")});
    return matmul(r.activations, c["q"]) + sum(r.poses * c["m"], {1, 2});
  };
}

template <SampleFunction (*F)(const Case&)>
Named by_input(Case& c) {
  return {{"penalty", input_gradient_penalty(F(c), c.has("u") ? c["u"] : c["pose"])}};
}

template <SampleFunction (*F)(const Case&)>
Named by_params(Case& c) {
  const GradModeGuard recording(true);
  TensorList params = {c["W"]};
  for (const char* beta : {"beta_a", "beta_u"})
    if (c.has(beta)) params.push_back(c[beta]);
  return {{"penalty", param_gradient_penalty_batch(F(c)(c.has("u") ? c["u"] : c["pose"]), params)}};
}

Named capsnet(Case& c) {
  const GradModeGuard recording(true);
  const Tensor conv = c["conv_w"], primary = c["prim_w"], w = c["W"], x = c["x"];
  const int dim = c.integer("primary_dim");
  Rng rng;
  CapsNet net({.image = {x.size(1), x.size(2), x.size(3)},
               .convs = {{.channels = conv.size(0), .kernel = conv.size(2)}},
               .primary = {.count = primary.size(0) / dim, .dim = dim},
               .primary_kernel = primary.size(2),
               .primary_stride = c.integer("stride2"),
               .primary_squash_c = c.number("c"),
               .capsules = {{.count = w.size(1), .dim = w.size(2)}},
               .dense = {.routing = DynamicRoutingOptions{.iterations = c.integer("iterations"),
                                                          .squash_c = c.number("c"),
                                                          .detach = c.flag("detach")}},
               .decoder = DecoderKind::none},
              rng);
  c.load(net, {{"conv1.weight", "conv_w"},
               {"conv1.bias", "conv_b"},
               {"primary.conv.weight", "prim_w"},
               {"primary.conv.bias", "prim_b"},
               {"digits.votes.weight", "W"}});
  const Tensor losses = margin_loss_per_sample(net(x).lengths, c["T"]);
  return {{"penalty", input_gradient_penalty(losses, x)}, {"loss", mean(losses)}};
}

Named inequality(Case& c) {
  const InequalityTerms t =
      inequality_terms(mlp(c), c["x"], [&](const Tensor& h) { return head(c, h); });
  return {{"h2", t.h2},       {"w2", t.w2},       {"j2", t.j2},       {"lhs_w", t.lhs_w},
          {"rhs_w", t.rhs_w}, {"lhs_b", t.lhs_b}, {"rhs_b", t.rhs_b}, {"gx2", t.gx2},
          {"lhs", t.lhs},     {"rhs", t.rhs}};
}

Named power(Case& c) {
  const PowerIteration p = power_iteration(c["W"], c["u0"], c.integer("iterations"));
  return {{"sigma", p.sigma}, {"u", p.u}, {"v", p.v}};
}

const Kind kKinds[] = {
    {"penalty.input_mlp*", input_mlp},
    {"penalty.param_batch_mlp*", param_batch_mlp},
    {"penalty.param_sample_mlp*", param_sample_mlp},
    {"penalty.loss_plus_both", loss_plus_both},
    {"penalty.wgan_gp", wgan},
    {"penalty.input_dynamic_routing", by_input<dynamic>},
    {"penalty.param_batch_dynamic_routing", by_params<dynamic>},
    {"penalty.input_kmeans_routing", by_input<kmeans>},
    {"penalty.input_em_routing", by_input<em>},
    {"penalty.param_batch_em_routing", by_params<em>},
    {"penalty.input_capsnet", capsnet},
    {"penalty.inequality_*", inequality},
    {"penalty.spectral_norm",
     [](Case& c) -> Named {
       return {{"sigma", spectral_norm(c["W"])}};
     }},
    {"penalty.power_iteration", power},
};

}  // namespace

std::span<const Kind> penalty_kinds() { return kKinds; }

}  // namespace capsfw::golden
