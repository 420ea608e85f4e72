// Training steps whose loss contains a gradient: 0.01 mean_b ‖∂f_b/∂x_b‖² or 0.01 ‖∂f/∂θ‖², f being
// cross entropy (MLP) or margin loss (CapsNet).

#include "families.hpp"

namespace capsfw::bench {
namespace {

constexpr double kStrength = 0.01;

/// f, or f and its penalty.
Tensor penalised(const std::function<Tensor(const Tensor&)>& f,
                 const Tensor& x,
                 const TensorList& parameters,
                 const std::string& wrt) {
  if (wrt.empty()) return f(x);
  const GradOptions recorded{.create_graph = true, .allow_unused = true};
  if (wrt == "x") {
    Tensor at = x.detach().requires_grad_();
    const Tensor value = f(at);
    // f is a mean over the batch: times B, row b is the gradient of sample b.
    const auto b = static_cast<double>(x.size(0));
    const Tensor slope = grad(value * b, at, {}, recorded);
    at.requires_grad_(false);  // backward() is for the parameters alone
    return value + (kStrength / b) * sum(square(slope));
  }
  const Tensor value = f(x);
  Tensor total = value;
  for (const Tensor& g : grad({value}, parameters, {}, recorded))
    if (g.defined()) total = total + kStrength * sum(square(g));
  return total;
}

std::shared_ptr<Sequential> mlp(const std::string& act, Rng& rng) {
  const auto net = std::make_shared<Sequential>();
  Tensor (*const f)(const Tensor&) = act == "tanh" ? tanh : softplus;
  net->add<Linear>(784, 512, rng);
  net->add<Activation>(f);
  net->add<Linear>(512, 512, rng);
  net->add<Activation>(f);
  net->add<Linear>(512, 10, rng);
  return net;
}

}  // namespace

Work make_penalty(Spec& spec) {
  const bool dense = spec.word("net", {"mlp", "caps"}) == "mlp";
  const bool penalty = spec.integer("pen", 1, 0) != 0;
  std::string wrt = spec.word("wrt", {"x", "theta"});
  const std::string act = spec.word("act", {"tanh", "softplus"});
  const std::int64_t b = spec.integer("B", 128);
  spec.finish();
  if (!penalty) wrt.clear();
  Rng rng(1);
  const Batch batch = make_batch(b);
  Work work;
  work.items = static_cast<double>(b);
  std::shared_ptr<Module> net;
  std::function<Tensor(const Tensor&)> f;
  Tensor x = batch.images;
  if (dense) {
    const auto made = mlp(act, rng);
    net = made;
    x = reshape(x, {b, 784});
    f = [made, batch](const Tensor& in) { return cross_entropy((*made)(in), batch.labels); };
    // Products of one pass over the three layers; a penalty needs as many again for its gradient.
    const double pass = 2.0 * static_cast<double>(b * (784 * 512 + 512 * 512 + 512 * 10)),
                 first = 2.0 * static_cast<double>(b * 784 * 512);
    work.flops = wrt.empty() ? 3 * pass - first : 6 * pass - first;
  } else {
    const CapsNetOptions options = CapsNetOptions::paper();
    const auto made = std::make_shared<CapsNet>(options, rng);
    net = made;
    f = [made, batch](const Tensor& in) {
      return margin_loss((*made)(in, {}, false).lengths, batch.targets);
    };
    CapsNetOptions counted = options;
    counted.decoder = DecoderKind::none;
    work.flops = static_cast<double>(b) * (wrt.empty() ? capsnet_flops(counted, 3, true)
                                                       : 6 * capsnet_flops(counted, 3, false));
  }
  work.parameters = net->parameter_count();
  work.bytes = adam_bytes(work.parameters) + 4.0 * static_cast<double>(x.numel());
  const TensorList parameters = net->parameters();
  work.step = training_step(net, {.lr = 1e-3},
                            [f, x, parameters, wrt] { return penalised(f, x, parameters, wrt); });
  return work;
}

}  // namespace capsfw::bench
