#include "common/net_flags.hpp"

#include <fmt/format.h>

namespace capsfw::apps {
namespace {

/// What a network without capsules cannot have.
constexpr std::initializer_list<const char*> kCapsuleFlags = {
    "--capsules", "--votes",    "--frobenius", "--routing",     "--routing-iterations",
    "--gradient", "--squash-c", "--leaky",     "--noise-class", "--vote-bias",
    "--prior",    "--keep",     "--decoder"};

std::string routing_names() {
  std::string names;
  for (const RoutingKind& kind : routing_kinds()) names += (names.empty() ? "" : ", ") + kind.name;
  return names;
}

}  // namespace

void NetFlags::add_to(Args& args) {
  args_ = &args;
  args.section("Network")
      .choice("--arch", arch, {"compact", "paper", "efficient", "se", "cnn"},
              "compact: minutes on two cores; paper: Sabour et al. 2017; efficient: "
              "Mazzia et al. 2021, self-attention; se, cnn: networks without "
              "capsules as large as compact, with and without squeeze-and-excitation gates")
      .add("--capsules LIST", capsules,
           "dense capsule layers as COUNTxSIZE, the last one the classes: 32x8,10x16",
           [](const std::string& text) { parse_capsules(text); })
      .choice("--votes", votes, {"full", "shared", "factorised", "matrix"},
              "weights of the votes: W_ij, W_j, W_j W~_i, or P_i W_ij of square matrices")
      .add("--frobenius", frobenius, "votes by W_ij / |W_ij|")
      .add("--routing NAME[:OPTIONS]", routing,
           "for example kmeans or kmeans:iterations=2,sharpness=4; one of " + routing_names() +
               "; efficient has self-attention",
           [](const std::string& text) { const RoutingSpec spec(text); })
      .add("--routing-iterations N", iterations, "routing iterations", {.min = 0, .max = 100})
      .choice("--gradient", gradient, {"full", "detached"},
              "through all routing iterations, or the last sum only")
      .add("--squash-c X", squash_c, "constant c of the squash |s|/(c+|s|^2) s", {.above = 0})
      .add("--leaky", leaky, "leaky softmax: children may support no parent")
      .add("--noise-class", noise_class, "one more class takes part in the routing and is dropped")
      .add("--vote-bias", vote_bias, "learned bias on the votes")
      .add("--prior", prior, "learned log priors as initial routing logits")
      .add("--keep X", keep, "share of the classes routed to in training (partial sampling)",
           {.above = 0, .max = 1})
      .choice("--decoder", decoder, {"auto", "none", "fc", "conv"},
              "reconstruction: fc as in the paper, conv is small");
}

RoutingSpec NetFlags::routing_spec(const RoutingSpec& usual) const {
  RoutingSpec spec = args_ == nullptr || args_->given("--routing") ? RoutingSpec(routing) : usual;
  const auto set = [&](const char* flag, const char* option, const std::string& value) {
    if (args_ == nullptr || !args_->given(flag)) return;
    if (!spec.has(option))
      throw UsageError(
          fmt::format("{}: the routing '{}' has no option '{}'", flag, spec.name(), option));
    spec = spec.with(option, value);
  };
  set("--routing-iterations", "iterations", fmt::to_string(iterations));
  set("--squash-c", "squash_c", fmt::to_string(squash_c));
  set("--gradient", "detach", gradient == "detached" ? "true" : "false");
  set("--leaky", "leaky", leaky ? "true" : "false");
  set("--prior", "prior", prior ? "true" : "false");
  return spec;
}

CapsNetOptions NetFlags::capsnet(const Shape& image, std::int64_t classes) const {
  CapsNetOptions o = arch == "paper"       ? CapsNetOptions::paper(image, classes)
                     : arch == "efficient" ? CapsNetOptions::efficient(image, classes)
                                           : CapsNetOptions::compact(image, classes);
  if (!capsules.empty()) o.capsules = parse_capsules(capsules);
  if (o.capsules.back().count != classes)
    throw UsageError(fmt::format(
        "--capsules: the last layer must have one capsule per class; got {} for {} classes",
        o.capsules.back().count, classes));
  o.dense.routing = routing_spec(o.dense.routing);
  o.dense.votes = vote_weights(votes);
  o.dense.vote_bias = vote_bias;
  o.dense.frobenius = frobenius;
  o.dense.noise_class = noise_class;
  o.dense.keep = keep;
  if (decoder == "none") o.decoder = DecoderKind::none;
  if (decoder == "fc") o.decoder = DecoderKind::fully_connected;
  if (decoder == "conv") o.decoder = DecoderKind::convolutional;
  return o;
}

void NetFlags::set_training(TrainFlags& f) const {
  if (arch != "efficient") return;
  const auto set = [&](const char* flag, auto& value, auto usual) {
    if (args_ == nullptr || !args_->given(flag)) value = usual;
  };
  set("--batch", f.batch, 16);
  set("--lr", f.lr, 5e-4);
  set("--schedule", f.schedule, "exponential");
  set("--decay", f.decay, 0.97);
}

void NetFlags::refuse_idle(const ImageClassifier& net, double reconstruction) const {
  if (args_ != nullptr)
    args_->refuse_idle(!net.has_decoder() && reconstruction > 0,
                       fmt::format("of a decoder; --arch {} with --decoder {} has none. Hint: a "
                                   "capsule network with --decoder conv",
                                   arch, decoder),
                       {"--reconstruction"});
}

std::unique_ptr<ImageClassifier> NetFlags::make(const Shape& image,
                                                std::int64_t classes,
                                                Rng& rng) const {
  if (arch != "se" && arch != "cnn") return std::make_unique<CapsNet>(capsnet(image, classes), rng);
  if (args_ != nullptr)
    args_->refuse_idle(true, fmt::format("--arch {} has no capsules. Hint: --arch compact", arch),
                       kCapsuleFlags);
  const CapsNetOptions beside = CapsNetOptions::compact(image, classes);
  return std::make_unique<ConvNet>(ConvNetOptions::beside(beside, arch == "se" ? 16 : 0), rng);
}

}  // namespace capsfw::apps
