#include <capsfw/layers/cluster.hpp>
#include <capsfw/layers/fuzzy.hpp>
#include <capsfw/layers/gmm.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

std::vector<double> alphas(const Case& c) {
  std::vector<double> out;
  for (const std::string& part : split_list(c.text("alphas")))
    out.push_back(parse_number(part, "hp.alphas"));
  return out;
}

Named named(const Clustering& r) {
  return {{"v", r.centres}, {"c", r.couplings}, {"loss", r.losses}};
}

Named soft_kmeans(Case& c) {
  return named(kmeans_soft(c["u"], c["v0"],
                           {.iterations = c.integer("iterations"),
                            .sharpness = c.number("K"),
                            .metric = cluster_metric(c.text("metric"))}));
}

Named hard_kmeans(Case& c) {
  return named(kmeans_hard(
      c["u"], c["v0"],
      {.iterations = c.integer("iterations"), .metric = cluster_metric(c.text("metric"))}));
}

Named gmm(Case& c) {
  const GmmResult r = gmm_em(c["x"], {c["mu0"], c["cov0"], c["pi0"]},
                             {.iterations = c.integer("iterations"),
                              .covariance = covariance_kind(c.text("kind")),
                              .eps = c.number("eps")});
  return {{"mu", r.mixture.means},
          {"cov", r.mixture.covariance},
          {"pi", r.mixture.weights},
          {"resp", r.responsibilities},
          {"log_likelihood", r.log_likelihoods}};
}

const Kind kKinds[] = {
    {"cluster.smooth_max*",
     [](Case& c) -> Named {
       return {{"max", smooth_max(c["x"], c.number("K"))},
               {"min", smooth_min(c["x"], c.number("K"))}};
     }},
    {"cluster.kmeans_soft_*", soft_kmeans},
    {"cluster.kmeans_hard_*", hard_kmeans},
    {"cluster.gmm_log_prob",
     [](Case& c) -> Named {
       return {{"full", gaussian_log_prob_full(c["x"], c["mu"], c["cov"])},
               {"diag", gaussian_log_prob_diag(c["x"], c["mu"], c["var"])}};
     }},
    {"cluster.gmm_*", gmm},
    {"objective.kl_trace",
     [](Case& c) -> Named {
       const FuzzyClustering r = kl_trace(c["votes"], c.integer("iterations"));
       return {{"values", r.objectives}, {"v", r.centres}};
     }},
    {"objective.entropy_trace_*",
     [](Case& c) -> Named {
       return {{"values", entropy_trace(c["votes"], alphas(c)).objectives}};
     }},
    {"objective.kl_value",
     [](Case& c) -> Named {
       return {{"loss", kl_objective(c["votes"], c["c"], c["s"], c["w"], c["c_old"])}};
     }},
    {"objective.entropy_value",
     [](Case& c) -> Named {
       return {{"loss", entropy_objective(c["votes"], c["c"], c["s"], c.number("alpha"))}};
     }},
    {"objective.potential_*",
     [](Case& c) -> Named {
       return {
           {"psi", dynamic_routing_potential(c["votes"], c.integer("iterations"), c.number("c"))}};
     }},
};

}  // namespace

std::span<const Kind> cluster_kinds() { return kKinds; }

}  // namespace capsfw::golden
