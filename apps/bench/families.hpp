#pragma once
// The workloads. Shapes, parameters and arithmetic are those of the PyTorch programs in torch/.

#include <string>
#include <vector>

#include <capsfw/capsfw.hpp>

#include "measure.hpp"
#include "spec.hpp"

namespace capsfw::bench {

/// A name and what it stands for.
struct Named {
  std::string spec, about;
};

/// What runs without further arguments.
std::vector<Named> standard_workloads();
/// One small workload of every family, for a quick look whether all of them run.
std::vector<Named> smoke_workloads();

/// Builds a workload. UsageError for an unknown family or key.
Work make_work(const std::string& spec);

// ---- the families ----
Work make_capsnet(Spec& spec);
Work make_routing(Spec& spec);
Work make_em(Spec& spec);
Work make_em_routing(Spec& spec);
Work make_penalty(Spec& spec);
Work make_efficient(Spec& spec);
Work make_text(Spec& spec);
Work make_primitive(Spec& spec);
Work make_startup(Spec& spec);

// ---- what they share ----
/// Images of noise [B, 1, side, side] in [0, 1) and ten classes.
struct Batch {
  Tensor images, labels, targets;  // targets: one-hot
};
Batch make_batch(std::int64_t n, std::int64_t side = 28);

/// Multiply-adds count two. Weighted sums (r) and agreements (r − 1) of a routing.
double routing_flops(std::int64_t i, std::int64_t j, std::int64_t d, std::int64_t r);
/// CapsNet per image: forward pass, or training step without the data gradient of the first layer.
double capsnet_flops(const CapsNetOptions& options, std::int64_t iterations, bool train);

/// zero_grad, loss, backward, reading of the loss, step.
std::function<void()> training_step(const std::shared_ptr<Module>& net,
                                    const AdamOptions& adam,
                                    const std::function<Tensor()>& loss);
/// Bytes that parameters make a step of Adam move: read forward, their gradient written, then seven
/// streams of the update.
double adam_bytes(std::int64_t parameters);

}  // namespace capsfw::bench
