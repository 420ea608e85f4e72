#pragma once
// What is measured along a training run with gradient penalties.

#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/inequality.hpp>
#include <capsfw/optim/json_log.hpp>
#include <capsfw/optim/ranks.hpp>

#include "common/classifier_loss.hpp"

namespace capsfw::apps {

/// Images with their classes, as tensors.
struct Labelled {
  Tensor images;  ///< [N, C, H, W]
  Tensor labels;  ///< i64 [N]
  std::int64_t size() const { return labels.size(0); }
  Labelled range(std::int64_t begin, std::int64_t count) const;
  Labelled first(std::int64_t count) const { return range(0, count); }
};

/// Of sample_losses and class_scores. `ranks` hear that this one is at work.
Score evaluate(ImageClassifier& model, const Labelled& data, Ranks* ranks = nullptr);

/// The three penalties of the loss.
struct Penalties {
  double input = 0, batch = 0, sample = 0;
};
/// Over all images at once for the batch form, in slices for the others.
Penalties measure_penalties(ImageClassifier& model, const Labelled& data, Ranks* ranks = nullptr);

/// Means over the images of the terms of one layer.
struct LayerTerms {
  double h, w, j;  ///< ‖h‖, ‖W‖, ‖∇ₓh‖
  double lhs_w, rhs_w, lhs_b, rhs_b;
};

/// One measurement. `layers`, `worst` and the sides of (f) are there for an MlpNet only; they are
/// computed in f64.
struct Probe {
  double step = 0;
  Score train, val;
  Penalties penalties;
  std::vector<LayerTerms> layers;
  double lhs = 0, rhs = 0;
  Tightness worst;

  /// The terms layer by layer, for people.
  std::string table() const;
  void add_to(JsonFields& fields) const;
};
/// Measurements along a run, for its checkpoints.
struct ProbeList {
  std::vector<Probe> list;
  void save(StateDict& state, const std::string& prefix) const;
  void load(const StateDict& state, const std::string& prefix);
};

Probe probe(ImageClassifier& model,
            const Labelled& data,
            SpectralMethod method,
            Ranks* ranks = nullptr);

/// Ratios of both sides and norms over the steps, as PNG.
void draw_layers(const std::vector<Probe>& run,
                 const std::string& title,
                 const std::filesystem::path& path);

/// Relative error ‖a − b‖ / ‖b‖ of penalty gradients by differences against exact ones.
struct DifferenceError {
  double step = 0;
  bool central = false;
  double input = 0, param = 0;
};
/// For steps from 1 to 10⁻⁴, one-sided and central.
std::vector<DifferenceError> measure_differences(ImageClassifier& model, const Labelled& data);

/// "64,32" as widths, "0.1,0.5" as positive rates. ValueError naming the part that is wrong.
std::vector<std::int64_t> parse_widths(const std::string& text);
std::vector<double> parse_rates(const std::string& text);

}  // namespace capsfw::apps
