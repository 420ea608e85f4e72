// Routing by agreement alone: of given votes, or with the votes computed first.

#include "families.hpp"

namespace capsfw::bench {

Work make_routing(Spec& spec) {
  const bool gradient = spec.word("mode", {"fwdbwd", "fwd"}) == "fwdbwd";
  const std::int64_t b = spec.integer("B", 128), i = spec.integer("I", 1152),
                     j = spec.integer("J", 10), d = spec.integer("D", 16),
                     k = spec.integer("K", 0, 0), r = spec.integer("r", 3);
  spec.finish();
  Rng rng(1);
  const DynamicRoutingOptions options{.iterations = static_cast<int>(r)};
  const Tensor g = randn({b, j, d}, rng);
  Work work;
  work.items = static_cast<double>(b);
  const double passes = gradient ? 3 : 1;
  work.flops = passes * work.items * routing_flops(i, j, d, r);
  if (k == 0) {
    const Tensor votes = (randn({b, i, j, d}, rng) * 0.05).requires_grad_(gradient);
    // The votes are read once forward; once more backward, when their gradient is written.
    work.bytes = passes * 4.0 * static_cast<double>(votes.numel());
    work.step = [=] {
      if (gradient) {
        grad({dynamic_routing(votes, options).poses}, {votes}, {g});
      } else {
        const NoGradGuard no_grad;
        dynamic_routing(votes, options);
      }
    };
    return work;
  }
  DenseCapsulesOptions dense;
  dense.routing = options;
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
