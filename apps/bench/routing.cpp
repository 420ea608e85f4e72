// Routing by agreement alone, or one of its relatives: of given votes, or with the votes computed
// first.

#include "families.hpp"

namespace capsfw::bench {

Work make_routing(Spec& spec) {
  const bool gradient = spec.word("mode", {"fwdbwd", "fwd"}) == "fwdbwd";
  const std::int64_t b = spec.integer("B", 128), i = spec.integer("I", 1152),
                     j = spec.integer("J", 10), d = spec.integer("D", 16),
                     k = spec.integer("K", 0, 0), r = spec.integer("r", 3);
  const std::string name = spec.word("name", {"dynamic", "kmeans", "entropy"});
  spec.finish();
  Rng rng(1);
  const auto n = static_cast<int>(r);  // weighted sums of each
  RoutingSpec routing = DynamicRoutingOptions{.iterations = n};
  if (name == "kmeans") routing = KmeansRoutingOptions{.iterations = n - 1};
  if (name == "entropy") routing = EntropyRoutingOptions{.alphas = alpha_schedule(n)};
  const Tensor g = randn({b, j, d}, rng);
  Work work;
  work.items = static_cast<double>(b);
  const double passes = gradient ? 3 : 1;
  work.flops = passes * work.items * routing_flops(i, j, d, r);
  if (k == 0) {
    const Tensor votes = (randn({b, i, j, d}, rng) * 0.05).requires_grad_(gradient);
    // The votes are read once forward; once more backward, when their gradient is written.
    work.bytes = passes * 4.0 * static_cast<double>(votes.numel());
    const std::shared_ptr<Routing> module =
        routing.make({.children = i, .parents = j, .dim = d}, rng);
    work.step = [=] {
      if (gradient) {
        grad({(*module)({.votes = votes}).poses}, {votes}, {g});
      } else {
        const NoGradGuard no_grad;
        (*module)({.votes = votes});
      }
    };
    return work;
  }
  DenseCapsulesOptions dense;
  dense.routing = routing;
  const auto layer = std::make_shared<DenseCapsules>(i, k, j, d, rng, dense);
  const Tensor u = (randn({b, i, k}, rng) * 0.3).requires_grad_(gradient);
  work.parameters = layer->parameter_count();
  work.flops += passes * 2.0 * static_cast<double>(b * i * j * k * d);
  work.bytes = passes * 4.0 * static_cast<double>(u.numel() + work.parameters);
  work.step = [=] {
    if (gradient) {
      grad({layer->route(u).poses}, {u, layer->votes.weight}, {g});
    } else {
      const NoGradGuard no_grad;
      layer->route(u);
    }
  };
  return work;
}

}  // namespace capsfw::bench
