#include "common/classifier_io.hpp"

#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <capsfw/data/safetensors.hpp>
#include <capsfw/data/text.hpp>
#include <capsfw/layers/conv_net.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/layers/mlp_net.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "common/description.hpp"

namespace capsfw::apps {
namespace {

constexpr const char* kFormat = "capsfw-classifier-1";
constexpr std::int64_t kLargestImage = std::int64_t{1} << 26;  // as load_image

Json stage(const ConvStage& c) {
  return {c.channels, c.kernel, c.stride, c.batch_norm, c.se_reduction, c.pool};
}
ConvStage stage(const Json& j) { return {j.at(0), j.at(1), j.at(2), j.at(3), j.at(4), j.at(5)}; }
Json stages(const std::vector<ConvStage>& list) {
  Json out = Json::array();
  for (const ConvStage& s : list) out.push_back(stage(s));
  return out;
}
std::vector<ConvStage> stages(const Json& j) {
  std::vector<ConvStage> out;
  for (const Json& s : j) out.push_back(stage(s));
  return out;
}
Json dims(const Shape& image) { return {image[0], image[1], image[2]}; }
Shape dims(const Json& j) {
  const auto list = j.get<std::vector<std::int64_t>>();
  bool good = list.size() == 3;
  std::int64_t numel = 1;
  for (const std::int64_t n : list) good = good && n >= 1 && (numel *= n) <= kLargestImage;
  if (!good)
    throw std::out_of_range(
        fmt::format("images must be [channels, height, width] of 1 to {} numbers", kLargestImage));
  return Shape(list);
}

Json describe(const CapsNetOptions& o) {
  Json capsules = Json::array();
  for (const CapsuleSize& s : o.capsules) capsules.push_back({s.count, s.dim});
  return {{"image", dims(o.image)},
          {"convs", stages(o.convs)},
          {"conv_init", o.conv_init},
          {"primary_kind", static_cast<int>(o.primary_kind)},
          {"primary", {o.primary.count, o.primary.dim, o.primary_kernel, o.primary_stride}},
          {"primary_squash_c", o.primary_squash_c},
          {"capsules", capsules},
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

std::unique_ptr<ImageClassifier> make_capsnet(const Json& j, Rng& rng) {
  CapsNetOptions o;
  o.image = dims(j.at("image"));
  o.convs = stages(j.at("convs"));
  o.conv_init = j.at("conv_init");
  o.primary_kind = choice(j.at("primary_kind"), PrimaryKind::positions);
  const Json& p = j.at("primary");
  o.primary = {p.at(0), p.at(1)};
  o.primary_kernel = p.at(2);
  o.primary_stride = p.at(3);
  o.primary_squash_c = j.at("primary_squash_c");
  o.capsules.clear();
  for (const Json& c : j.at("capsules")) o.capsules.push_back({c.at(0), c.at(1)});
  o.dense.routing = RoutingSpec(j.at("routing").get<std::string>());
  o.dense.votes = choice(j.at("votes"), VoteWeights::matrix);
  o.dense.inner_dim = j.at("inner_dim");
  o.dense.vote_bias = j.at("vote_bias");
  o.dense.frobenius = j.at("frobenius");
  o.dense.noise_class = j.at("noise_class");
  o.dense.keep = j.at("keep");
  o.decoder = choice(j.at("decoder"), DecoderKind::convolutional);
  o.decoder_hidden = j.at("decoder_hidden").get<std::vector<std::int64_t>>();
  return std::make_unique<CapsNet>(o, rng);
}

Json describe(const ConvNetOptions& o) {
  return {{"image", dims(o.image)},       {"convs", stages(o.convs)}, {"conv_init", o.conv_init},
          {"global_pool", o.global_pool}, {"hidden", o.hidden},       {"classes", o.classes}};
}

std::unique_ptr<ImageClassifier> make_convnet(const Json& j, Rng& rng) {
  return std::make_unique<ConvNet>(ConvNetOptions{.image = dims(j.at("image")),
                                                  .convs = stages(j.at("convs")),
                                                  .conv_init = j.at("conv_init"),
                                                  .global_pool = j.at("global_pool"),
                                                  .hidden = j.at("hidden"),
                                                  .classes = j.at("classes")},
                                   rng);
}

Json describe(const MatrixCapsNetOptions& o) {
  Json capsules = Json::array();
  for (const MatrixStage& s : o.capsules)
    capsules.push_back({s.types, s.kernel, s.stride, s.padding});
  return {{"image", dims(o.image)},
          {"conv", stage(o.conv)},
          {"primary_types", o.primary_types},
          {"pose", o.pose},
          {"capsules", capsules},
          {"classes", o.classes},
          {"routing", RoutingSpec(o.routing).text()},
          {"competition", static_cast<int>(o.competition)},
          {"coordinates", o.coordinates},
          {"coordinate_places", o.coordinate_places}};
}

std::unique_ptr<ImageClassifier> make_matrix(const Json& j, Rng& rng) {
  MatrixCapsNetOptions o;
  o.image = dims(j.at("image"));
  o.conv = stage(j.at("conv"));
  o.primary_types = j.at("primary_types");
  o.pose = j.at("pose");
  o.capsules.clear();
  for (const Json& s : j.at("capsules")) o.capsules.push_back({s.at(0), s.at(1), s.at(2), s.at(3)});
  o.classes = j.at("classes");
  o.routing = options_of<EmRoutingOptions>(j.at("routing").get<std::string>());
  o.competition = choice(j.at("competition"), Competition::child);
  o.coordinates = j.at("coordinates");
  o.coordinate_places = j.at("coordinate_places").get<std::vector<std::int64_t>>();
  return std::make_unique<MatrixCapsNet>(o, rng);
}

Json describe(const MlpNetOptions& o) {
  return {{"image", dims(o.image)},
          {"hidden", o.hidden},
          {"activation", o.activation},
          {"classes", o.classes}};
}

std::unique_ptr<ImageClassifier> make_mlp(const Json& j, Rng& rng) {
  return std::make_unique<MlpNet>(
      MlpNetOptions{.image = dims(j.at("image")),
                    .hidden = j.at("hidden").get<std::vector<std::int64_t>>(),
                    .activation = j.at("activation"),
                    .classes = j.at("classes")},
      rng);
}

/// Every kind of network that can be saved: its name, and how it is made of its description.
struct Kind {
  const char* name;
  std::unique_ptr<ImageClassifier> (*make)(const Json&, Rng&);
};
constexpr Kind kKinds[] = {{"capsnet", make_capsnet},
                           {"convnet", make_convnet},
                           {"matrix-capsnet", make_matrix},
                           {"mlp", make_mlp}};

std::pair<std::string, Json> describe(const ImageClassifier& net) {
  if (const auto* n = dynamic_cast<const CapsNet*>(&net))
    return {"capsnet", describe(n->options())};
  if (const auto* n = dynamic_cast<const ConvNet*>(&net))
    return {"convnet", describe(n->options())};
  if (const auto* n = dynamic_cast<const MatrixCapsNet*>(&net))
    return {"matrix-capsnet", describe(n->options())};
  if (const auto* n = dynamic_cast<const MlpNet*>(&net)) return {"mlp", describe(n->options())};
  throw ValueError("save_classifier: no description for this class of networks");
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

std::string entry(const Metadata& metadata, const char* key, const std::filesystem::path& path) {
  const auto found = metadata.find(key);
  if (found == metadata.end())
    throw IoError(fmt::format("{}: the description of the network is missing", path.string()));
  return found->second;
}

}  // namespace

void save_classifier(const std::filesystem::path& path,
                     const ImageClassifier& net,
                     const std::vector<std::string>& class_names,
                     const std::string& note,
                     std::optional<double> border) {
  const auto [kind, options] = describe(net);
  Metadata metadata{{"format", kFormat},
                    {"kind", kind},
                    {"options", options.dump()},
                    {"class_names", Json(class_names).dump()},
                    {"note", note}};
  if (border) metadata["border"] = fmt::format("{:.3f}", *border);
  save_safetensors(path, net.state_dict(), metadata);
}

void save_classifier(const std::filesystem::path& path,
                     const ImageClassifier& net,
                     const ImageSet& trained_on,
                     const std::string& note) {
  constexpr std::int64_t kEnough = 1000;
  std::optional<double> border;
  if (trained_on.size() > 0)
    border = border_brightness(trained_on.images(0, std::min(kEnough, trained_on.size())));
  save_classifier(path, net, trained_on.class_names(), note, border);
}

double border_brightness(const Tensor& images) {
  double total = 0;
  std::int64_t count = 0;
  for (const int axis : {-1, -2})
    for (const std::int64_t at : {0, -1}) {
      const Tensor side = select(images, axis, at);
      total += sum(side).item();
      count += side.numel();
    }
  return count > 0 ? total / static_cast<double>(count) : 0;
}

LoadedClassifier load_classifier(const std::filesystem::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second != kFormat)
    throw IoError(
        fmt::format("{}: not a network saved by capsfw (metadata 'format' must be {}). Hint: "
                    "train_capsnet writes one",
                    path.string(), kFormat));
  require_finite(file.state, path);
  const std::string options = entry(file.metadata, "options", path),
                    names = entry(file.metadata, "class_names", path);
  LoadedClassifier out{.kind = entry(file.metadata, "kind", path)};
  if (const auto border = file.metadata.find("border"); border != file.metadata.end())
    out.border = std::strtod(border->second.c_str(), nullptr);
  try {
    if (const auto note = file.metadata.find("note"); note != file.metadata.end())
      out.note = note->second;
    if (!is_printable(out.note)) throw std::invalid_argument("control characters in its note");
    if (out.border && !(*out.border >= 0 && *out.border <= 1))
      throw std::out_of_range("a brightness outside [0, 1]");
    const GrantedByFile granted(std::filesystem::file_size(path));
    Rng rng;
    out.class_names = parse_class_names(parse_description(names));
    for (const Kind& k : kKinds)
      if (out.kind == k.name) out.net = k.make(parse_description(options), rng);
    if (!out.net) throw std::out_of_range(fmt::format("unknown kind '{}'", out.kind));
    const auto classes = static_cast<std::size_t>(out.net->classes());
    if (out.class_names.size() != classes)
      throw std::out_of_range(
          fmt::format("{} class names for {} classes", out.class_names.size(), classes));
    check_iterations(*out.net);
    out.net->load_state_dict(file.state);
  } catch (const IoError&) {
    throw;
  } catch (const std::exception& e) {
    throw IoError(fmt::format("{}: damaged description of the network: {}", path.string(),
                              shown(e.what(), 300)));
  }
  return out;
}

void check_classes(const std::string& path,
                   const LoadedClassifier& model,
                   const std::string& data,
                   const std::vector<std::string>& names) {
  if (names == model.class_names) return;
  const auto few = [](const std::vector<std::string>& all) {
    constexpr std::size_t kMost = 4;
    const std::size_t n = std::min(all.size(), kMost);
    return fmt::format("{}{}",
                       fmt::join(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), ", "),
                       n < all.size() ? ", ..." : "");
  };
  throw ValueError(fmt::format(
      "{}: the network knows {} classes ({}); {} has {} ({}). Hint: --data names the "
      "set that it was trained on",
      path, model.class_names.size(), few(model.class_names), data, names.size(), few(names)));
}

void check_scores(const Tensor& scores, const std::string& model) {
  if (!all(isfinite(scores)))
    throw ValueError(fmt::format(
        "{}: the scores are not finite: the weights of the network are too large", model));
}

StateDict load_weights(const std::filesystem::path& path) {
  StateDict state = load_safetensors(path).state;
  require_finite(state, path);
  return state;
}

}  // namespace capsfw::apps
