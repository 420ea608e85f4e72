// Matrix capsules with EM routing, Hinton, Sabour, Frosst 2018: the small network (A = 64, B = 8,
// C = D = 16) as public code has it, which differs from MatrixCapsNet in three things: the first
// convolution is padded, batch normalisation follows it, and the coordinates go to the first
// places.

#include "families.hpp"

namespace capsfw::bench {
namespace {

EmRoutingOptions routing_of(std::int64_t iterations) {
  EmRoutingOptions o;
  o.iterations = static_cast<int>(iterations);
  return o;
}

class PaddedMatrixNet : public Module {
 public:
  PaddedMatrixNet(std::int64_t iterations, Rng& rng)
      : conv_(1, 64, 5, rng, {.stride = 2, .padding = 2}),
        norm_(64, {.eps = 1e-3}),
        primary_(64, 8, 4, rng),
        first_(8, 16, 4, 3, rng, {.stride = 2, .routing = routing_of(iterations)}),
        second_(16, 16, 4, 3, rng, {.routing = routing_of(iterations)}),
        classes_(16, 10, 4, rng, {.coordinate_places = {0, 1}, .routing = routing_of(iterations)}) {
    child("conv", conv_);
    child("norm", norm_);
    child("primary", primary_);
    child("first", first_);
    child("second", second_);
    child("classes", classes_);
  }
  Tensor operator()(const Tensor& x) {
    return classes_(second_(first_(primary_(relu(norm_(conv_(x))))))).activations;
  }

 private:
  Conv2d conv_;
  BatchNorm2d norm_;
  PrimaryMatrixCapsules primary_;
  ConvMatrixCapsules first_, second_;
  ClassMatrixCapsules classes_;
};

/// Per image; `map`: side of the map of primary capsules.
double em_flops(std::int64_t map, std::int64_t r, bool train) {
  const std::int64_t s1 = (map - 3) / 2 + 1, s2 = s1 - 2;
  const double conv = 2.0 * static_cast<double>(map * map * (25 * 64 + 64 * 8 * 17));
  const auto pairs = static_cast<double>(s1 * s1 * 9 * 8 * 16 + s2 * s2 * 9 * 16 * 16 +
                                         s2 * s2 * 16 * 10);  // child and parent
  // A vote: 4 x 4 by 4 x 4. Mean and variance: two products each; the density: three.
  const double routing = 16.0 * static_cast<double>(4 * r + 3 * (r - 1));
  return (conv + pairs * (2.0 * 64 + routing)) * (train ? 3 : 1);
}

}  // namespace

Work make_em(Spec& spec) {
  const bool train = spec.word("mode", {"train", "infer"}) == "train",
             padded = spec.word("net", {"padded", "library"}) == "padded";
  const std::int64_t b = spec.integer("B", 64), r = spec.integer("r", 2);
  spec.finish();
  Rng rng(1);
  const Batch batch = make_batch(b);
  std::shared_ptr<Module> net;
  std::function<Tensor()> run;
  if (padded) {
    const auto made = std::make_shared<PaddedMatrixNet>(r, rng);
    net = made;
    run = [made, batch] { return (*made)(batch.images); };
  } else {
    MatrixCapsNetOptions options = MatrixCapsNetOptions::small();
    options.routing = routing_of(r);
    const auto made = std::make_shared<MatrixCapsNet>(options, rng);
    net = made;
    run = [made, batch] { return (*made)(batch.images).activations; };
  }
  Work work;
  work.items = static_cast<double>(b);
  work.flops = work.items * em_flops(padded ? 14 : 12, r, train);
  work.parameters = net->parameter_count();
  const double images = 4.0 * static_cast<double>(batch.images.numel());
  if (train) {
    work.bytes = adam_bytes(work.parameters) + images;
    work.step = training_step(net, {.lr = 3e-3, .weight_decay = 2e-7},
                              [run, batch] { return spread_loss(run(), batch.labels, 0.27); });
  } else {
    net->eval();
    work.bytes = 4.0 * static_cast<double>(work.parameters) + images;
    work.step = [run] {
      const NoGradGuard no_grad;
      run();
    };
  }
  return work;
}

Work make_em_routing(Spec& spec) {
  const bool gradient = spec.word("mode", {"fwdbwd", "fwd"}) == "fwdbwd";
  const std::int64_t b = spec.integer("B", 64), i = spec.integer("I", 288),
                     j = spec.integer("J", 32), d = spec.integer("D", 16), r = spec.integer("r", 3);
  spec.finish();
  Rng rng(1);
  const Tensor votes = randn({b, i, j, d}, rng).requires_grad_(gradient),
               beta_a = zeros({j}).requires_grad_(gradient),
               beta_u = zeros({j}).requires_grad_(gradient), a = rand({b, i}, rng),
               g_pose = randn({b, j, d}, rng), g_activation = randn({b, j}, rng);
  const std::vector<double> lambdas = lambda_schedule(static_cast<int>(r), 1e-3);
  Work work;
  work.items = static_cast<double>(b);
  const auto n = static_cast<double>(votes.numel());
  const double passes = gradient ? 3 : 1;
  work.flops = passes * n * static_cast<double>(7 * r + 4 * (r - 1));
  work.bytes = passes * 4 * n;
  work.step = [=] {
    if (gradient) {
      const EmRouted out = em_routing(votes, a, beta_a, beta_u, lambdas);
      grad({out.poses, out.activations}, {votes, beta_a, beta_u}, {g_pose, g_activation});
    } else {
      const NoGradGuard no_grad;
      em_routing(votes, a, beta_a, beta_u, lambdas);
    }
  };
  return work;
}

}  // namespace capsfw::bench
