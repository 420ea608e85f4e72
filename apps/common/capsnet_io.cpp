#include "common/capsnet_io.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/ops/arithmetic.hpp>

namespace capsfw::apps {
namespace {

using Json = nlohmann::json;

constexpr const char* kFormat = "capsfw-capsnet-2";

Json sizes(const std::vector<CapsuleSize>& list) {
  Json out = Json::array();
  for (const CapsuleSize& s : list) out.push_back({s.count, s.dim});
  return out;
}

Json to_json(const CapsNetOptions& o) {
  Json convs = Json::array();
  for (const ConvStage& c : o.convs) convs.push_back({c.channels, c.kernel, c.stride});
  return {{"image", {o.image[0], o.image[1], o.image[2]}},
          {"convs", convs},
          {"primary", {o.primary.count, o.primary.dim, o.primary_kernel, o.primary_stride}},
          {"primary_squash_c", o.primary_squash_c},
          {"capsules", sizes(o.capsules)},
          {"routing", o.dense.routing.text()},
          {"votes", static_cast<int>(o.dense.votes)},
          {"inner_dim", o.dense.inner_dim},
          {"vote_bias", o.dense.vote_bias},
          {"frobenius", o.dense.frobenius},
          {"noise_class", o.dense.noise_class},
          {"keep", o.dense.keep},
          {"decoder", static_cast<int>(o.decoder)},
          {"decoder_hidden", o.decoder_hidden}};
}

CapsNetOptions from_json(const Json& j) {
  CapsNetOptions o;
  const auto image = j.at("image").get<std::vector<std::int64_t>>();
  o.image = Shape(image);
  for (const Json& c : j.at("convs")) o.convs.push_back({c.at(0), c.at(1), c.at(2)});
  const Json& p = j.at("primary");
  o.primary = {p.at(0), p.at(1)};
  o.primary_kernel = p.at(2);
  o.primary_stride = p.at(3);
  o.primary_squash_c = j.at("primary_squash_c");
  o.capsules.clear();
  for (const Json& c : j.at("capsules")) o.capsules.push_back({c.at(0), c.at(1)});
  o.dense.routing = RoutingSpec(j.at("routing").get<std::string>());
  o.dense.votes = static_cast<VoteWeights>(j.at("votes").get<int>());
  o.dense.inner_dim = j.at("inner_dim");
  o.dense.vote_bias = j.at("vote_bias");
  o.dense.frobenius = j.at("frobenius");
  o.dense.noise_class = j.at("noise_class");
  o.dense.keep = j.at("keep");
  o.decoder = static_cast<DecoderKind>(j.at("decoder").get<int>());
  o.decoder_hidden = j.at("decoder_hidden").get<std::vector<std::int64_t>>();
  return o;
}

/// What from_json cannot see: numbers that no program of ours writes.
void check(const CapsNetOptions& o, std::size_t names, const std::filesystem::path& path) {
  const auto known = [](auto value, auto last) { return value >= 0 && value <= last; };
  if (!known(static_cast<int>(o.dense.votes), static_cast<int>(VoteWeights::matrix)) ||
      !known(static_cast<int>(o.decoder), static_cast<int>(DecoderKind::convolutional)))
    throw IoError(
        fmt::format("{}: damaged description of the network: unknown kind of votes or "
                    "decoder",
                    path.string()));
  if (o.capsules.empty() || names != static_cast<std::size_t>(o.capsules.back().count))
    throw IoError(
        fmt::format("{}: damaged description of the network: {} class names for {} classes",
                    path.string(), names, o.capsules.empty() ? 0 : o.capsules.back().count));
}

std::string routing_names() {
  std::string names;
  for (const RoutingKind& kind : routing_kinds()) names += (names.empty() ? "" : ", ") + kind.name;
  return names;
}

/// A network with such a weight answers every image with NaN.
void require_finite(const StateDict& state, const std::filesystem::path& path) {
  for (const auto& [name, value] : state)
    if (!all(isfinite(value)))
      throw IoError(
          fmt::format("{}: {} {} holds a NaN or an infinity: the weights of a run that "
                      "failed, or a damaged file",
                      path.string(), name, value.shape().str()));
}

}  // namespace

void NetFlags::add_to(Args& args) {
  args_ = &args;
  args.section("Network")
      .choice("--arch", arch, {"compact", "paper"},
              "compact: minutes on two cores; paper: Sabour et al. 2017")
      .add("--capsules LIST", capsules,
           "dense capsule layers as COUNTxSIZE, the last one the classes: 32x8,10x16",
           [](const std::string& text) { parse_capsules(text); })
      .choice("--votes", votes, {"full", "shared", "factorised", "matrix"},
              "weights of the votes: W_ij, W_j, W_j W~_i, or P_i W_ij of square matrices")
      .add("--frobenius", frobenius, "votes by W_ij / |W_ij|")
      .add("--routing NAME[:OPTIONS]", routing,
           "for example kmeans or kmeans:iterations=2,sharpness=4; one of " + routing_names(),
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

RoutingSpec NetFlags::routing_spec() const {
  RoutingSpec spec(routing);
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

CapsNetOptions NetFlags::options(const Shape& image, std::int64_t classes) const {
  CapsNetOptions o = arch == "paper" ? CapsNetOptions::paper(image, classes)
                                     : CapsNetOptions::compact(image, classes);
  if (!capsules.empty()) o.capsules = parse_capsules(capsules);
  if (o.capsules.back().count != classes)
    throw UsageError(fmt::format(
        "--capsules: the last layer must have one capsule per class; got {} for {} classes",
        o.capsules.back().count, classes));
  o.dense.routing = routing_spec();
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

void save_net(const std::filesystem::path& path,
              const CapsNet& net,
              const std::vector<std::string>& class_names) {
  save_safetensors(path, net.state_dict(),
                   {{"format", kFormat},
                    {"options", to_json(net.options()).dump()},
                    {"class_names", Json(class_names).dump()}});
}

LoadedNet load_net(const std::filesystem::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second != kFormat)
    throw IoError(
        fmt::format("{}: not a capsule network saved by capsfw (metadata 'format' must be {}). "
                    "Hint: train_capsnet writes one",
                    path.string(), kFormat));
  require_finite(file.state, path);
  LoadedNet out;
  try {
    Rng rng;
    out.class_names = Json::parse(file.metadata.at("class_names")).get<std::vector<std::string>>();
    const CapsNetOptions options = from_json(Json::parse(file.metadata.at("options")));
    check(options, out.class_names.size(), path);
    out.net = std::make_unique<CapsNet>(options, rng);
  } catch (const Json::exception& e) {
    throw IoError(
        fmt::format("{}: damaged description of the network: {}", path.string(), e.what()));
  } catch (const std::out_of_range&) {
    throw IoError(fmt::format("{}: the description of the network is missing", path.string()));
  }
  out.net->load_state_dict(file.state);
  return out;
}

StateDict load_weights(const std::filesystem::path& path) {
  const StateDict state = load_safetensors(path).state;
  require_finite(state, path);
  return state;
}

}  // namespace capsfw::apps
