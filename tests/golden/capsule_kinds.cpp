#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

Named named(const Routed& r) { return {{"v", r.poses}, {"couplings", r.couplings}}; }

DynamicRoutingOptions routing_options(const Case& c) {
  return {.iterations = c.integer("iterations"),
          .squash_c = c.number("c"),
          .detach = c.flag("detach"),
          .leaky = c.flag("leaky")};
}

Routed route(const Case& c) {
  return dynamic_routing(
      c["votes"], routing_options(c),
      {.prior = c.optional("b0"), .mask = c.optional("mask"), .activation = c.optional("act_in")});
}

/// The noise class takes part in the routing and is dropped from the output.
Named route_with_noise_class(Case& c) {
  const Tensor v = route(c).poses;
  return {{"v", narrow(v, 1, 0, v.size(1) - 1)}};
}

KmeansRoutingOptions kmeans_options(const Case& c) {
  return {.iterations = c.integer("iterations"),
          .sharpness = c.number("K"),
          .squash_c = c.number("c"),
          .detach = c.flag("detach"),
          .hard = c.flag("hard")};
}

EntropyRoutingOptions entropy_options(const Case& c) {
  return {.alphas = c.numbers("alphas"), .detach = c.flag("detach")};
}

Named dense_capsules(Case& c, VoteWeights votes) {
  const Tensor u = c["u"], w = c["W"];
  const int j = votes == VoteWeights::full ? 1 : 0;  // axis of the upper capsules in W
  DenseCapsulesOptions options{.routing = routing_options(c), .votes = votes};
  std::map<std::string, std::string> inputs = {{"votes.weight", "W"}};
  if (votes == VoteWeights::factorised) {
    options.inner_dim = w.size(-1);
    inputs["votes.lower_weight"] = "Wt";
  }
  Rng rng;
  DenseCapsules layer(u.size(1), u.size(2), w.size(j), w.size(j + 1), rng, options);
  c.load(layer, inputs);
  return named(layer.route(u));
}

Named capsnet(Case& c) {
  const Tensor x = c["x"], conv = c["conv_w"], primary = c["prim_w"], w = c["W"];
  const int dim = c.integer("primary_dim");
  const CapsNetOptions options{.image = {x.size(1), x.size(2), x.size(3)},
                               .convs = {{.channels = conv.size(0), .kernel = conv.size(2)}},
                               .primary = {.count = primary.size(0) / dim, .dim = dim},
                               .primary_kernel = primary.size(2),
                               .primary_stride = c.integer("stride2"),
                               .primary_squash_c = c.number("c"),
                               .capsules = {{.count = w.size(1), .dim = w.size(2)}},
                               .dense = {.routing = routing_options(c)},
                               .decoder_hidden = {c["dec_w1"].size(0), c["dec_w2"].size(0)}};
  Rng rng;
  CapsNet net(options, rng);
  c.load(net, {{"conv1.weight", "conv_w"},
               {"conv1.bias", "conv_b"},
               {"primary.conv.weight", "prim_w"},
               {"primary.conv.bias", "prim_b"},
               {"digits.votes.weight", "W"},
               {"decoder.fc1.weight", "dec_w1"},
               {"decoder.fc1.bias", "dec_b1"},
               {"decoder.fc2.weight", "dec_w2"},
               {"decoder.fc2.bias", "dec_b2"},
               {"decoder.fc3.weight", "dec_w3"},
               {"decoder.fc3.bias", "dec_b3"}});
  CapsNetOutput out = net(x, argmax(c["T"], 1));
  out.reconstruction = net.decode(out.poses, c["T"]);  // several classes, or none, too
  return {{"loss", capsnet_loss(out, x, c["T"], {.reconstruction = c.number("recon_scale")})},
          {"lengths", out.lengths},
          {"v", out.poses},
          {"recon", flatten(out.reconstruction, 1)}};
}

const Kind kKinds[] = {
    {"squash.c*",
     [](Case& c) -> Named {
       return {{"v", squash(c["s"], c.number("c"))}};
     }},
    {"squash.safe_norm_*",
     [](Case& c) -> Named {
       return {{"y", safe_norm(c["x"])}};
     }},
    {"squash.safe_normalize_*",
     [](Case& c) -> Named {
       return {{"y", safe_normalize(c["x"])}};
     }},
    {"votes.full",
     [](Case& c) -> Named {
       return {{"votes", votes_full(c["u"], c["W"])}};
     }},
    {"votes.shared",
     [](Case& c) -> Named {
       return {{"votes", votes_shared(c["u"], c["W"])}};
     }},
    {"votes.factorised",
     [](Case& c) -> Named {
       return {{"votes", votes_factorised(c["u"], c["W"], c["Wt"])}};
     }},
    {"votes.frobenius*",
     [](Case& c) -> Named {
       return {{"votes", votes_full(c["u"], frobenius_normalize(c["W"]))}};
     }},
    {"votes.matrix",
     [](Case& c) -> Named {
       return {{"votes", votes_matrix(c["pose"], c["W"])}};
     }},
    {"routing.dynamic_noise_class*", route_with_noise_class},
    {"routing.dynamic_*", [](Case& c) -> Named { return named(route(c)); }},
    {"routing.layer_full_dynamic*", [](Case& c) { return dense_capsules(c, VoteWeights::full); }},
    {"routing.layer_shared_dynamic*",
     [](Case& c) { return dense_capsules(c, VoteWeights::shared); }},
    {"routing.layer_factorised_dynamic*",
     [](Case& c) { return dense_capsules(c, VoteWeights::factorised); }},
    {"routing.kmeans_*",
     [](Case& c) -> Named { return named(kmeans_routing(c["votes"], kmeans_options(c))); }},
    {"routing.layer_shared_kmeans*",
     [](Case& c) -> Named {
       return named(kmeans_routing(votes_shared(c["u"], c["W"]), kmeans_options(c)));
     }},
    {"routing.entropy_frobenius*",
     [](Case& c) -> Named {
       const Tensor votes = votes_full(c["u"], frobenius_normalize(c["W"]));
       return named(entropy_routing(votes, entropy_options(c)));
     }},
    {"routing.entropy_*",
     [](Case& c) -> Named { return named(entropy_routing(c["votes"], entropy_options(c))); }},
    {"net.capsnet*", capsnet},
};

}  // namespace

std::span<const Kind> capsule_kinds() { return kKinds; }

}  // namespace capsfw::golden
