#include "common/routing_trace.hpp"

#include <algorithm>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>

namespace capsfw::apps {
namespace {

/// The only sample of a batch.
Tensor first(const Tensor& x) { return contiguous(select(x, 0, 0)); }

RoutingTrace trace_capsnet(CapsNet& net, const Tensor& x) {
  RoutingTrace trace{.out = net(x), .grid = net.primary_grid()};
  Routed below{.poses = net.primary_capsules(x), .couplings = {}};
  trace.sizes = first(lengths(below.poses));
  for (const auto& layer : net.capsule_layers()) {
    const std::int64_t parents = layer == net.capsule_layers().back() ? net.classes() : -1;
    TensorList couplings, poses;
    trace.votes = first(layer->votes(below.poses));
    below = layer->route(below.poses, below.activations, {}, [&](const RoutingStep& step) {
      couplings.push_back(first(step.couplings));
      poses.push_back(first(step.poses));
    });
    if (couplings.empty()) {  // a routing of no iterations
      couplings.push_back(first(below.couplings));
      poses.push_back(first(below.poses));
    }
    if (parents > 0) {  // without the class of noise
      trace.votes = contiguous(narrow(trace.votes, 1, 0, parents));
      for (Tensor& c : couplings) c = contiguous(narrow(c, 1, 0, parents));
      for (Tensor& v : poses) v = contiguous(narrow(v, 0, 0, parents));
    }
    if (trace.shares.empty()) {
      trace.shares = couplings;
    } else {
      trace.shares.resize(std::min(trace.shares.size(), couplings.size()));
      for (std::size_t t = 0; t < trace.shares.size(); ++t)
        trace.shares[t] = matmul(trace.shares[t], couplings[t]);
    }
    trace.couplings = couplings;
    trace.poses = poses;
  }
  return trace;
}

}  // namespace

RoutingTrace trace_routing(ImageClassifier& net, const Tensor& image) {
  const NoGradGuard no_grad;
  net.eval();
  const Tensor x = unsqueeze(image, 0);
  if (auto* capsnet = dynamic_cast<CapsNet*>(&net)) return trace_capsnet(*capsnet, x);
  if (auto* matrix = dynamic_cast<MatrixCapsNet*>(&net)) {
    RoutingTrace trace{.out = net(x, {}, false), .grid = matrix->last_grid()};
    trace.shares = {first(trace.out.couplings)};
    trace.all_iterations = false;
    return trace;
  }
  throw ValueError(
      "trace_routing: this network has no capsules, so there is no routing to look at. Hint: "
      "train_capsnet --arch compact, paper or efficient trains one that has");
}

}  // namespace capsfw::apps
