#include <capsfw/layers/routing_table.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/layers/baseline_routings.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/em.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/heinsen_routing.hpp>
#include <capsfw/layers/inverted_attention_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/self_attention_routing.hpp>
#include <capsfw/layers/self_routing.hpp>
#include <capsfw/layers/variational_routing.hpp>

namespace capsfw {
namespace {

std::vector<RoutingKind>& table() {
  static std::vector<RoutingKind> kinds = {
      routing_kind<DynamicRouting>("dynamic", "by agreement (Sabour, Frosst, Hinton 2017)"),
      routing_kind<KmeansRouting>("kmeans", "K-means on normalised means (Su 2018)"),
      routing_kind<KmeansRouting>("hard", "each child to its best parent", {.hard = true}),
      routing_kind<EntropyRouting>("entropy", "entropy-regularised, annealed (Wang, Liu 2018)"),
      // em and heinsen: for votes of variance 1, as their balance() makes them.
      routing_kind<EmRouting>("em", "a Gaussian mixture (Hinton, Sabour, Frosst 2018)",
                              {.lambda = 0.03, .eps_var = 1}),
      routing_kind<UniformRouting>("uniform", "baseline: equal couplings"),
      routing_kind<RandomRouting>("random", "baseline: couplings from fixed noise"),
      routing_kind<LongestVoteRouting>("longest", "baseline: the longest vote for each parent"),
      routing_kind<PoolRouting>("pool", "attention pooling, softmax over the children"),
      routing_kind<SelfAttentionRouting>(
          "self-attention", "votes that agree with all (Mazzia, Salvetti, Chiaberge 2021)"),
      routing_kind<InvertedAttentionRouting>("inverted-attention",
                                             "parents compete by dot products (Tsai et al. 2020)"),
      routing_kind<SelfRouting>("self-routing",
                                "each child by its own pose (Hahn, Pyeon, Kim 2019)"),
      routing_kind<VariationalRouting>("variational-bayes",
                                       "a Bayesian mixture (Ribeiro et al. 2020)"),
      routing_kind<HeinsenRouting>("heinsen", "use against ignoring (Heinsen 2019)",
                                   {.eps_var = 1}),
  };
  return kinds;
}

const RoutingKind& find(std::string_view name) {
  std::string names;
  for (const RoutingKind& kind : table()) {
    if (kind.name == name) return kind;
    names += (names.empty() ? "" : ", ") + kind.name;
  }
  throw ValueError(fmt::format("routing: one of {}; got '{}'", names, name));
}

/// Value of `option` in complete options, or nothing.
std::pair<bool, std::string> lookup(std::string_view options, std::string_view option) {
  while (!options.empty()) {
    const std::string_view part = options.substr(0, options.find(','));
    options.remove_prefix(std::min(part.size() + 1, options.size()));
    const std::size_t equals = part.find('=');
    if (part.substr(0, equals) == option) return {true, std::string(part.substr(equals + 1))};
  }
  return {false, ""};
}

}  // namespace

const std::vector<RoutingKind>& routing_kinds() { return table(); }

void add_routing(RoutingKind kind) {
  for (const RoutingKind& other : table())
    if (other.name == kind.name)
      throw ValueError(fmt::format("add_routing: the name '{}' is taken", kind.name));
  table().push_back(std::move(kind));
}

RoutingSpec::RoutingSpec(std::string_view text) : name_(text.substr(0, text.find(':'))) {
  const std::size_t colon = text.find(':');
  options_ = find(name_).complete(colon == std::string_view::npos ? "" : text.substr(colon + 1));
}

bool RoutingSpec::has(std::string_view option) const { return lookup(options_, option).first; }

std::string RoutingSpec::get(std::string_view option) const {
  return lookup(options_, option).second;
}

RoutingSpec RoutingSpec::with(std::string_view option, std::string_view value) const {
  return RoutingSpec(fmt::format("{}{}{}={}", text(), options_.empty() ? ":" : ",", option, value));
}

std::unique_ptr<Routing> RoutingSpec::make(const RoutingSize& size, Rng& rng) const {
  return find(name_).make(options_, size, rng);
}

}  // namespace capsfw
