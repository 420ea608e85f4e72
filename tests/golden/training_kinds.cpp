#include <memory>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/decoder.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/rmsprop.hpp>
#include <capsfw/optim/sgd.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

Named margin(Case& c) {
  const MarginOptions options{
      .positive = c.number("m_pos"), .negative = c.number("m_neg"), .lambda = c.number("lam")};
  return {{"loss", margin_loss(c["lengths"], c["T"], options)}};
}

Named schedules(Case& c) {
  std::vector<double> linear, sigmoid;
  for (const double step : c["step"].to_vector<double>()) {
    linear.push_back(spread_margin_linear(step, c.number("total_steps")));
    sigmoid.push_back(spread_margin_sigmoid(step));
  }
  const auto length = [&](const char* output) {
    return static_cast<int>(c.output_shape(output).numel());
  };
  return {{"margin_linear", from_vector(linear)},
          {"margin_sigmoid", from_vector(sigmoid)},
          {"lambda", from_vector(lambda_schedule(length("lambda"), c.number("lambda_final"),
                                                 c.number("lambda_base")))},
          {"alpha",
           from_vector(alpha_schedule(length("alpha"), c.number("alpha0"), c.number("gamma")))}};
}

Named decoder(Case& c) {
  Rng rng;
  Decoder layer(c["w1"].size(1), {c["w1"].size(0), c["w2"].size(0)}, c["w3"].size(0), rng);
  c.load(layer, {{"fc1.weight", "w1"},
                 {"fc1.bias", "b1"},
                 {"fc2.weight", "w2"},
                 {"fc2.bias", "b2"},
                 {"fc3.weight", "w3"},
                 {"fc3.bias", "b3"}});
  return {{"recon", layer(mask_poses_by(c["v"], c["onehot"]))}};
}

/// A case names the options that it sets; the defaults of the others are PyTorch's. Only options of
/// the optimizer at hand are read, so that another's are not lost in silence.
std::unique_ptr<Optimizer> make_optimizer(const Case& c, const ParamList& params) {
  const std::string name = c.text("optimizer");
  const double decay = c.number("weight_decay", 0);
  if (name == "sgd")
    return std::make_unique<SGD>(params, SGDOptions{.lr = c.number("lr"),
                                                    .momentum = c.number("momentum", 0),
                                                    .dampening = c.number("dampening", 0),
                                                    .weight_decay = decay,
                                                    .nesterov = c.flag("nesterov")});
  if (name == "rmsprop")
    return std::make_unique<RMSprop>(params, RMSpropOptions{.lr = c.number("lr", 1e-2),
                                                            .alpha = c.number("alpha", 0.99),
                                                            .eps = c.number("eps", 1e-8),
                                                            .weight_decay = decay,
                                                            .momentum = c.number("momentum", 0),
                                                            .centered = c.flag("centered")});
  if (name != "adam") throw ValueError("golden: no optimizer '" + name + "'");
  const double lr = c.number("lr", 1e-3), eps = c.number("eps", 1e-8);
  const double beta1 = c.number("beta1", 0.9), beta2 = c.number("beta2", 0.999);
  const bool amsgrad = c.flag("amsgrad");
  if (c.flag("decoupled"))
    return std::make_unique<AdamW>(params, AdamWOptions{lr, beta1, beta2, eps, decay, amsgrad});
  return std::make_unique<Adam>(params, AdamOptions{lr, beta1, beta2, eps, decay, amsgrad});
}

/// The parameter after every step, with the gradient A p − b.
Named optimize(Case& c) {
  Tensor p = c["p0"].detach().requires_grad_();
  const auto optimizer = make_optimizer(c, {p});
  TensorList path;
  for (int steps = c.integer("steps"); steps > 0; --steps) {
    const NoGradGuard no_grad;
    p.set_grad(matmul(c["A"], p) - c["b"]);
    optimizer->step();
    path.push_back(p + 0.0);
  }
  return {{"path", stack(path)}};
}

const Kind kKinds[] = {
    {"loss.margin_*", margin},
    {"loss.spread_m*",
     [](Case& c) -> Named {
       return {{"loss", spread_loss(c["a"], c["target"], c.number("m"))}};
     }},
    {"loss.schedules", schedules},
    {"loss.reconstruction",
     [](Case& c) -> Named {
       return {{"loss", reconstruction_loss(c["x"], c["recon"], c.number("scale"))}};
     }},
    {"loss.cross_entropy",
     [](Case& c) -> Named {
       return {{"loss", cross_entropy(c["logits"], c["target"])}};
     }},
    {"loss.bce_with_logits",
     [](Case& c) -> Named {
       return {{"loss", binary_cross_entropy_with_logits(c["z"], c["T"])}};
     }},
    {"loss.decoder", decoder},
    {"optim.*", optimize},
};

}  // namespace

std::span<const Kind> training_kinds() { return kKinds; }

}  // namespace capsfw::golden
