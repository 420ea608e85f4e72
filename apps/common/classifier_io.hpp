#pragma once
// Networks for images in files: weights, architecture and names of the classes in one.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/data/dataset.hpp>
#include <capsfw/layers/image_classifier.hpp>

namespace capsfw::apps {

/// A network read from a file.
struct LoadedClassifier {
  std::unique_ptr<ImageClassifier> net = {};
  std::vector<std::string> class_names = {};
  std::string kind = {};  ///< capsnet, convnet, matrix-capsnet or mlp
  std::string note = {};
  std::optional<double> border = {};  ///< brightness of the border of its training images
};

/// Writes a safetensors file whose metadata describe the network and, if it is known, how bright
/// the border of its training images was; the note says how it was trained, for people. ValueError
/// for a class of networks that is not in the table of classifier_io.cpp.
void save_classifier(const std::filesystem::path& path,
                     const ImageClassifier& net,
                     const std::vector<std::string>& class_names,
                     const std::string& note = "",
                     std::optional<double> border = std::nullopt);
/// With the names of the classes and the border of the training set.
void save_classifier(const std::filesystem::path& path,
                     const ImageClassifier& net,
                     const ImageSet& trained_on,
                     const std::string& note = "");

/// Mean of the outermost rows and columns of [N or nothing, C, H, W].
double border_brightness(const Tensor& images);

/// Reads what save_classifier wrote. IoError if it is no such file, is damaged or holds a NaN or an
/// infinity, or if weights and architecture differ.
LoadedClassifier load_classifier(const std::filesystem::path& path);

/// ValueError unless the network of the file `path` was trained on classes of these names, those of
/// `data`.
void check_classes(const std::string& path,
                   const LoadedClassifier& model,
                   const std::string& data,
                   const std::vector<std::string>& names);

/// ValueError where a score that the network `model` gives is no number: its weights are too large.
void check_scores(const Tensor& scores, const std::string& model);

/// The tensors of a file, to go on training from. IoError if one holds a NaN or an infinity.
StateDict load_weights(const std::filesystem::path& path);

}  // namespace capsfw::apps
