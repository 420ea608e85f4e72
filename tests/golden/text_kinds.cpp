#include <map>

#include <fmt/format.h>

#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/text_capsules.hpp>
#include <capsfw/ops/index.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

/// Words -> n-grams -> capsules -> windows -> classes, any number of branches.
Named text_capsules(Case& c) {
  const Dims ngrams = c.dims("ngram");
  const auto input = [&](std::size_t branch, const char* name) {
    return (ngrams.rank() == 1 ? "" : fmt::format("{}.", branch)) + name;
  };
  const std::int64_t dim = c.integer("dim"), outputs = c[input(0, "fc_w")].size(0);
  TextCapsNetOptions o{.ngrams = {ngrams.begin(), ngrams.end()},
                       .filters = c[input(0, "conv_w")].size(0),
                       .types = c[input(0, "prim_w")].size(0) / dim,
                       .dim = dim,
                       .window = c.integer("window"),
                       .window_types = c[input(0, "cc_w")].size(0),
                       .squash_c = c.number("c"),
                       .routing = DynamicRoutingOptions{.iterations = c.integer("iterations"),
                                                        .squash_c = c.number("c"),
                                                        .leaky = c.flag("leaky")},
                       .noise_class = c.flag("orphan")};
  Rng rng;
  const Tensor table = zeros({2, c["emb"].size(1)}, c.dtype());
  TextCapsNet net(table, outputs - (o.noise_class ? 1 : 0), o, rng);
  for (std::size_t k = 0; k < o.ngrams.size(); ++k)
    c.load(net.branch(k), {{"conv.weight", input(k, "conv_w")},
                           {"conv.bias", input(k, "conv_b")},
                           {"primary.weight", input(k, "prim_w")},
                           {"primary.bias", input(k, "prim_b")},
                           {"windows.patch.votes.weight", input(k, "cc_w")},
                           {"classes.votes.weight", input(k, "fc_w")}});
  const ClassifierOutput out = net.from_words(embedding(c["emb"], c["ids"]));
  return {
      {"lengths", out.lengths}, {"poses", out.poses}, {"loss", margin_loss(out.lengths, c["T"])}};
}

const Kind kKinds[] = {{"net.text_capsule*", text_capsules}};

}  // namespace

std::span<const Kind> text_kinds() { return kKinds; }

}  // namespace capsfw::golden
