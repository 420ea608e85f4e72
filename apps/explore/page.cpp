#include "page.hpp"

#include <cmath>
#include <span>

#include <nlohmann/json.hpp>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "common/classifier_io.hpp"
#include "common/page.hpp"

namespace capsfw::apps {

extern const char* const kExplorePage;  // page.html, see capsfw_embed() in CMake

namespace {

using Json = nlohmann::ordered_json;

constexpr double kMostRounding = 5e-4;

template <class T>
std::string base64_of(const std::vector<T>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return base64({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

std::string base64_of(const Tensor& x) {
  return base64_of(cast_data(x, DType::f32).to_vector<float>());
}

/// The weights of the decoder, by their names in it.
std::vector<std::pair<std::string, Tensor>> decoder_weights(const CapsNet& net) {
  const std::string prefix = "decoder.";
  std::vector<std::pair<std::string, Tensor>> out;
  for (const auto& [name, value] : net.state_dict())
    if (name.starts_with(prefix)) out.emplace_back(name.substr(prefix.size()), value);
  return out;
}

/// As the page gets them: [N, C, H, W] of the class with the largest score.
Tensor reconstruct(CapsNet& net, const ClassifierOutput& out) {
  return net.decode(out.poses, one_hot(argmax(out.lengths, 1), net.classes()));
}

/// The largest change of a pixel when every weight of the decoder is rounded to 16 bits.
double rounding(CapsNet& net, const ClassifierOutput& out, const Tensor& exact) {
  std::vector<Tensor> kept;
  for (const auto& [name, value] : decoder_weights(net)) {
    auto numbers = value.to_vector<float>();
    kept.push_back(from_vector(numbers, value.shape()));
    for (float& x : numbers) x = half_value(half_bits(x));
    Tensor weight = value;
    weight.copy_(from_vector(numbers, value.shape()));
  }
  const double change = max(abs(reconstruct(net, out) - exact)).item();
  std::size_t k = 0;
  for (const auto& [name, value] : decoder_weights(net)) {
    Tensor weight = value;
    weight.copy_(kept[k++]);
  }
  return change;
}

std::string packed(const Tensor& weight, int bits) {
  const auto numbers = cast_data(weight, DType::f32).to_vector<float>();
  if (bits == 32) return base64_of(numbers);
  std::vector<std::uint16_t> halves;
  for (const float x : numbers) halves.push_back(half_bits(x));
  return base64_of(halves);
}

Json shape_of(const Tensor& x) {
  Json out = Json::array();
  for (int a = 0; a < x.dim(); ++a) out.push_back(x.size(a));
  return out;
}

}  // namespace

ExplorePage explore_page(CapsNet& net,
                         const std::vector<std::string>& class_names,
                         const ImageSet& images,
                         const std::vector<std::int64_t>& numbers,
                         const std::string& model,
                         const std::string& note) {
  const NoGradGuard no_grad;
  const ClassifierOutput out = net(images.images(), {}, false);
  check_scores(out.lengths, model);
  const Tensor exact = reconstruct(net, out);
  ExplorePage page{.rounding = rounding(net, out, exact)};
  page.bits = page.rounding <= kMostRounding ? 16 : 32;  // NaN: 32
  Json weights = Json::object();
  for (const auto& [name, value] : decoder_weights(net))
    weights[name] = {{"shape", shape_of(value)}, {"data", packed(value, page.bits)}};
  Json samples = Json::array();
  const auto size = static_cast<std::size_t>(net.image().numel());
  for (std::int64_t i = 0; i < images.size(); ++i)
    samples.push_back({{"number", numbers[static_cast<std::size_t>(i)]},
                       {"label", images.label(i)},
                       {"pixels", base64({images.pixels(i), size})},
                       {"poses", base64_of(contiguous(select(out.poses, 0, i)))},
                       {"scores", contiguous(select(out.lengths, 0, i)).to_vector<float>()}});
  const Json data = {
      {"model", model},
      {"note", note},
      {"image", {net.image()[0], net.image()[1], net.image()[2]}},
      {"classes", class_names},
      {"entries", out.poses.size(2)},
      {"decoder",
       net.options().decoder == DecoderKind::convolutional ? "convolutional" : "fully connected"},
      {"bits", page.bits},
      {"weights", weights},
      {"samples", samples},
      {"expected", base64_of(contiguous(select(exact, 0, 0)))}};
  page.html =
      page_with_data(kExplorePage, data.dump(-1, ' ', true, Json::error_handler_t::replace));
  return page;
}

}  // namespace capsfw::apps
