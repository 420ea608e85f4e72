#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/layers/conv_capsules.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

std::vector<double> lambdas(const Case& c) {
  std::vector<double> out;
  for (const std::string& part : split_list(c.text("lambdas")))
    out.push_back(parse_number(part, "hp.lambdas"));
  return out;
}

EmOptions em_options(const Case& c) {
  return {.variant = em_variant(c.text("variant")),
          .eps_var = c.number("eps_var"),
          .detach = c.flag("detach"),
          .init = {c.optional("mu0"), c.optional("var0"), c.optional("w0")}};
}

Named route(const Case& c, const Tensor& votes) {
  const EmRouted r = em_routing(votes, c.optional("a_in"), c.optional("beta_a"),
                                c.optional("beta_u"), lambdas(c), em_options(c));
  return {{"pose", r.poses}, {"act", r.activations}, {"R", r.assignments}, {"var", r.variance}};
}

/// The points themselves vote, for every upper capsule alike.
Named route_points(Case& c) {
  const Tensor p = c["P"];
  return route(c,
               broadcast_to(unsqueeze(p, 2), {p.size(0), p.size(1), c["mu0"].size(1), p.size(2)}));
}

Named lambda_schedule_case(Case& c) {
  const auto given = lambdas(c);
  const auto made = lambda_schedule(static_cast<int>(given.size()), c.number("lambda_final"),
                                    c.number("lambda_base"));
  const EmRouted r =
      em_routing(c["votes"], c["a_in"], c["beta_a"], c["beta_u"], made, em_options(c));
  return {{"pose", r.poses}, {"act", r.activations}, {"R", r.assignments}, {"var", r.variance}};
}

Named entropies(Case& c) {
  const Tensor r = softmax(c["logits"], 1), votes = c["votes"], mean = weighted_sum(r, votes);
  const Tensor squares = square(votes - unsqueeze(mean, 1));
  const Tensor variance = weighted_sum(r, squares);
  return {{"S", cluster_entropy(r, vote_log_density(votes, mean, variance))},
          {"S_closed", cluster_entropy_closed(r, variance)}};
}

PatchOptions patch_options(const Case& c) {
  const int k = c.integer("kernel"), s = c.integer("stride");
  return {.kernel = {k, k}, .stride = {s, s}};
}

/// The weight says by its rank whether the children share it; a case says so, too.
Named conv_dynamic(Case& c) {
  if (const bool shared = c["W"].dim() == 3; c.flag("shared") != shared)
    throw ValueError(fmt::format("hp.shared: must be {} for a weight {}; got {}", shared,
                                 c["W"].shape().str(), !shared));
  return {
      {"v", conv_caps_dynamic(c["x"], c["W"], patch_options(c),
                              {.iterations = c.integer("iterations"), .squash_c = c.number("c")})}};
}

Named conv_em(Case& c) {
  const ConvEmRouted r = conv_caps_em(
      c["pose"], c["act"], c["W"], c["beta_a"], c["beta_u"], lambdas(c), patch_options(c),
      {.em = em_options(c), .competition = competition(c.text("norm"))});
  return {{"pose", r.poses}, {"act", r.activations}};
}

Named class_em(Case& c) {
  const EmRouted r =
      class_caps_em(c["pose"], c["act"], c["W"], c["beta_a"], c["beta_u"], lambdas(c),
                    {.em = em_options(c), .coordinates = c.flag("coords", true)});
  return {{"pose", r.poses}, {"act", r.activations}};
}

Named matrix_capsnet(Case& c) {
  const Tensor x = c["x"], conv = c["conv_w"];
  const MatrixCapsNetOptions options{
      .image = {x.size(1), x.size(2), x.size(3)},
      .conv = {.channels = conv.size(0),
               .kernel = conv.size(2),
               .stride = c.integer("conv_stride")},
      .primary_types = c.integer("capsules"),
      .pose = c.integer("P"),
      .capsules = {{.types = c["cc_beta_a"].size(0),
                    .kernel = c.integer("kernel"),
                    .stride = c.integer("stride")}},
      .classes = c["cls_beta_a"].size(0),
      .routing = {.lambdas = lambdas(c), .data_per_parent = 0, .eps_var = c.number("eps_var")},
      .competition = competition(c.text("norm"))};
  Rng rng;
  MatrixCapsNet net(options, rng);
  c.load(net, {{"conv.weight", "conv_w"},
               {"conv.bias", "conv_b"},
               {"primary.pose.weight", "pose_w"},
               {"primary.pose.bias", "pose_b"},
               {"primary.activation.weight", "act_w"},
               {"primary.activation.bias", "act_b"},
               {"capsules1.weight", "cc_w"},
               {"capsules1.beta_a", "cc_beta_a"},
               {"capsules1.beta_u", "cc_beta_u"},
               {"classes.weight", "cls_w"},
               {"classes.beta_a", "cls_beta_a"},
               {"classes.beta_u", "cls_beta_u"}});
  const MatrixCapsNetOutput out = net(x);
  return {{"loss", spread_loss(out.activations, c["target"], c.number("m"))},
          {"act", out.activations},
          {"pose", out.poses}};
}

const Kind kKinds[] = {
    {"em.*_points_init", route_points},
    {"em.complete", [](Case& c) { return route(c, votes_matrix(c["pose_in"], c["W"])); }},
    {"em.hinton_lambda_schedule", lambda_schedule_case},
    {"em.entropy", entropies},
    {"em.*", [](Case& c) { return route(c, c["votes"]); }},
    {"conv.patches",
     [](Case& c) -> Named {
       return {{"patches", capsule_patches(c["x"], patch_options(c)).values}};
     }},
    {"conv.coordinate_addition",
     [](Case& c) -> Named {
       return {{"votes", coordinate_addition(c["votes"])}};
     }},
    {"conv.dynamic_*", conv_dynamic},
    {"conv.em_*", conv_em},
    {"conv.class_caps_em", class_em},
    {"net.matrix_capsnet_*", matrix_capsnet},
};

}  // namespace

std::span<const Kind> em_kinds() { return kKinds; }

}  // namespace capsfw::golden
