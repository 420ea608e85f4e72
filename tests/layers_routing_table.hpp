#pragma once
// Every routing of the table, on random votes.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <capsfw/layers/routing_table.hpp>

#include "support.hpp"

namespace capsfw::testing::routings {

/// Every kind with its defaults, and variants that take other paths.
inline std::vector<std::string> specs() {
  std::vector<std::string> out;
  for (const RoutingKind& kind : routing_kinds()) out.push_back(kind.name);
  for (const char* more :
       {"dynamic:iterations=1", "dynamic:leaky,squash_c=0.5", "dynamic:agreement=cosine",
        "dynamic:activation", "dynamic:prior", "kmeans:iterations=2,sharpness=4,leaky",
        "kmeans:prior", "hard:straight_through", "entropy:alphas=0.7/0.7", "entropy:prior,leaky",
        "em:variant=v1", "em:variant=v2,iterations=2", "em:variant=v4",
        "self-attention:prior=false"})
    out.emplace_back(more);
  return out;
}

/// The same routings; λ of EM, which follows the numbers of children and parents, as it is.
inline std::vector<std::string> specs_of_fixed_size() {
  std::vector<std::string> out = specs();
  for (std::string& spec : out)
    if (spec.starts_with("em")) spec = RoutingSpec(spec).with("data_per_parent", "0").text();
  return out;
}

inline bool competes_over_parents(const std::string& spec) {
  return spec != "longest" && spec != "pool" && !contains(spec, "leaky") &&
         spec != "dynamic:activation";
}

inline bool has_prior(const std::string& spec) {
  return contains(spec, "prior") && !contains(spec, "prior=false");
}

struct Setup {
  std::int64_t b = 3, i = 7, j = 4, d = 4, e = 5;
  DType dtype = DType::f64;

  Votes draw(std::uint64_t seed = 1) const {
    Rng rng(seed);
    return {.votes = rng.normal({b, i, j, d}, 0, 1, dtype),
            .poses = rng.normal({b, i, e}, 0, 0.4, dtype)};
  }
  std::unique_ptr<Routing> make(const std::string& spec) const {
    Rng rng(3);
    auto routing =
        RoutingSpec(spec).make({.children = i, .parents = j, .dim = d, .child_dim = e}, rng);
    routing->to(dtype);
    return routing;
  }
};

}  // namespace capsfw::testing::routings
