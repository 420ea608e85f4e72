#pragma once
// Small image classifiers of three kinds behind one face, for programs that compare them.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <capsfw/layers/mlp.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw::apps {

/// What shapes a classifier.
struct ClassifierOptions {
  std::string kind = "mlp";  ///< mlp, cnn or capsnet
  Shape image = {1, 28, 28};
  std::int64_t classes = 10;
  std::vector<std::int64_t> hidden = {64, 64};  ///< widths of an mlp
  std::string activation = "tanh";              ///< of an mlp
};

/// Images to class scores, with a loss of its own for each sample.
class Classifier : public Module {
 public:
  explicit Classifier(ClassifierOptions options) : options_(std::move(options)) {}
  /// [B, C, H, W] -> [B, classes].
  virtual Tensor scores(const Tensor& images) = 0;
  /// [B]: cross entropy, or the margin loss of a capsule network.
  virtual Tensor losses(const Tensor& scores, const Tensor& labels) const;
  /// The layers, if it is an mlp; else null.
  virtual const Mlp* mlp() const { return nullptr; }
  const ClassifierOptions& options() const { return options_; }

 private:
  ClassifierOptions options_;
};

/// mlp: as the options say. capsnet: a convolution, 8 types of primary capsules, 10 capsules of
/// size 8, no decoder: 108,000 parameters for 28x28 pixels. cnn: the same two convolutions and two
/// linear layers, as wide as makes the same number of parameters to 0.5 %.   UsageError for an
/// unknown kind.
std::unique_ptr<Classifier> make_classifier(const ClassifierOptions& options, Rng& rng);

/// Writes options and weights as one safetensors file, with a few words about its training.
void save_model(const std::filesystem::path& path,
                     const Classifier& model,
                     const std::string& note);

/// A classifier from a file, and the note it came with.
struct LoadedModel {
  std::unique_ptr<Classifier> model;
  std::string note;
};
/// Reads what save_model wrote, or a capsule network that train_capsnet saved. IoError if it
/// is neither.
LoadedModel load_model(const std::filesystem::path& path);

}  // namespace capsfw::apps
