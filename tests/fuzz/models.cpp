// Targets: networks in files, which name sizes and kinds in text.

#include <stdexcept>

#include <capsfw/core/grad.hpp>

#include "common/classifier_io.hpp"
#include "common/text_model.hpp"
#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLargestInput = 4096;  // pixels that a network is tried on

}  // namespace

bool classifier(Bytes file) {
  return with_file(file, [&](const fs::path& path) {
    const apps::LoadedClassifier c = apps::load_classifier(path);
    const Shape& image = c.net->image();
    if (image.numel() > kLargestInput) return;
    const NoGradGuard no_grad;
    c.net->eval();
    const ClassifierOutput y = (*c.net)(zeros({1, image[0], image[1], image[2]}));
    if (y.lengths.shape() != Shape{1, static_cast<std::int64_t>(c.class_names.size())})
      throw std::runtime_error("a score for each class");
  });
}

bool textmodel(Bytes file) {
  const std::vector<Bytes> p = parts(file);
  if (p.size() < 2) return false;
  return with_folder(
      {{apps::kTextWeights, p[0]}, {apps::kTextVocabulary, p[1]}}, [&](const fs::path& folder) {
        apps::TextModel model = apps::load_text_model(folder);
        const NoGradGuard no_grad;
        const ClassifierOutput y = (*model.net)(ones({1, 1}, DType::i64));
        if (y.lengths.shape() != Shape{1, static_cast<std::int64_t>(model.class_names.size())})
          throw std::runtime_error("a score for each class");
      });
}

}  // namespace capsfw::fuzz
