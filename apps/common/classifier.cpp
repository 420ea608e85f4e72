#include "common/classifier.hpp"

#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/data/safetensors.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/unary.hpp>

#include "common/args.hpp"
#include "common/classifier_io.hpp"

namespace capsfw::apps {
namespace {

using Json = nlohmann::json;
constexpr const char* kFormat = "capsfw-classifier-1";

class MlpClassifier : public Classifier {
 public:
  MlpClassifier(const ClassifierOptions& o, Rng& rng)
      : Classifier(o), net_(sizes(o), rng, {.activation = o.activation}) {
    child("net", net_);
  }
  Tensor scores(const Tensor& x) override { return net_(x); }
  const Mlp* mlp() const override { return &net_; }

 private:
  static std::vector<std::int64_t> sizes(const ClassifierOptions& o) {
    std::vector<std::int64_t> all{o.image.numel()};
    all.insert(all.end(), o.hidden.begin(), o.hidden.end());
    all.push_back(o.classes);
    return all;
  }
  Mlp net_;
};

class CapsuleClassifier : public Classifier {
 public:
  CapsuleClassifier(const ClassifierOptions& o, std::unique_ptr<ImageClassifier> net)
      : Classifier(o), net_(std::move(net)) {
    child("net", *net_);
  }
  CapsuleClassifier(const ClassifierOptions& o, Rng& rng)
      : CapsuleClassifier(o, std::make_unique<CapsNet>(small(o), rng)) {}
  Tensor scores(const Tensor& x) override { return (*net_)(x, {}, false).lengths; }
  Tensor losses(const Tensor& scores, const Tensor& labels) const override {
    return margin_loss_per_sample(scores, one_hot(labels, scores.size(1), scores.dtype()));
  }

 private:
  static CapsNetOptions small(const ClassifierOptions& o) {
    CapsNetOptions c;
    c.image = o.image;
    c.convs = {{16, 5, 2}};
    c.primary = {8, 8};
    c.primary_kernel = 5;
    c.capsules = {{o.classes, 8}};
    c.decoder = DecoderKind::none;
    return c;
  }
  std::unique_ptr<ImageClassifier> net_;
};

class CnnClassifier : public Classifier {
 public:
  CnnClassifier(const ClassifierOptions& o, Rng& rng)
      : Classifier(o),
        conv1_(o.image[0], 16, 5, rng, {.stride = 2}),
        conv2_(16, 64, 5, rng, {.stride = 2}),
        places_(place(o.image[1]) * place(o.image[2])),
        fc1_(64 * places_, width(o, places_), rng),
        fc2_(width(o, places_), o.classes, rng) {
    child("conv1", conv1_);
    child("conv2", conv2_);
    child("fc1", fc1_);
    child("fc2", fc2_);
  }
  Tensor scores(const Tensor& x) override {
    return fc2_(relu(fc1_(flatten(relu(conv2_(relu(conv1_(x)))), 1))));
  }

 private:
  static std::int64_t place(std::int64_t n) {
    const std::int64_t after = ((n - 5) / 2 + 1 - 5) / 2 + 1;
    if (n < 13) throw ShapeError(fmt::format("cnn: images of at least 13 pixels; got {}", n));
    return after;
  }
  /// Linear layers with as many weights as the capsules on the same maps have.
  static std::int64_t width(const ClassifierOptions& o, std::int64_t places) {
    const double weights = static_cast<double>(8 * places * o.classes * 8 * 8);
    return std::llround(weights / static_cast<double>(64 * places + o.classes + 1));
  }
  Conv2d conv1_, conv2_;
  std::int64_t places_;
  Linear fc1_, fc2_;
};

Json to_json(const ClassifierOptions& o) {
  return {{"kind", o.kind},
          {"image", {o.image[0], o.image[1], o.image[2]}},
          {"classes", o.classes},
          {"hidden", o.hidden},
          {"activation", o.activation}};
}

ClassifierOptions from_json(const Json& j) {
  ClassifierOptions o;
  o.kind = j.at("kind");
  o.image = Shape(j.at("image").get<std::vector<std::int64_t>>());
  o.classes = j.at("classes");
  o.hidden = j.at("hidden").get<std::vector<std::int64_t>>();
  o.activation = j.at("activation");
  if (o.image.rank() != 3) throw ShapeError("the image must be [C, H, W]");
  return o;
}

}  // namespace

Tensor Classifier::losses(const Tensor& scores, const Tensor& labels) const {
  return cross_entropy_per_sample(scores, labels);
}

std::unique_ptr<Classifier> make_classifier(const ClassifierOptions& o, Rng& rng) {
  if (o.kind == "mlp") return std::make_unique<MlpClassifier>(o, rng);
  if (o.kind == "cnn") return std::make_unique<CnnClassifier>(o, rng);
  if (o.kind == "capsnet") return std::make_unique<CapsuleClassifier>(o, rng);
  throw UsageError(fmt::format("classifier: one of mlp, cnn, capsnet; got '{}'", o.kind));
}

void save_model(const std::filesystem::path& path,
                     const Classifier& model,
                     const std::string& note) {
  save_safetensors(
      path, model.state_dict(),
      {{"format", kFormat}, {"options", to_json(model.options()).dump()}, {"note", note}});
}

LoadedModel load_model(const std::filesystem::path& path) {
  const SafetensorsFile file = load_safetensors(path);
  const auto format = file.metadata.find("format");
  if (format == file.metadata.end() || format->second != kFormat) {
    LoadedClassifier saved = load_classifier(path);  // or its error, which names the format
    ClassifierOptions o;
    o.kind = "capsnet";
    o.image = saved.net->image();
    o.classes = saved.net->classes();
    return {std::make_unique<CapsuleClassifier>(o, std::move(saved.net)), ""};
  }
  LoadedModel out;
  try {
    Rng rng;
    out.model = make_classifier(from_json(Json::parse(file.metadata.at("options"))), rng);
    if (const auto note = file.metadata.find("note"); note != file.metadata.end())
      out.note = note->second;
  } catch (const std::exception& e) {
    throw IoError(
        fmt::format("{}: damaged description of the network: {}", path.string(), e.what()));
  }
  out.model->load_state_dict(file.state);
  return out;
}

}  // namespace capsfw::apps
