// Targets: networks in files, which name sizes and kinds in text.

#include <stdexcept>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>

#include "common/classifier_io.hpp"
#include "common/text_model.hpp"
#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLargestInput = 4096;  // pixels that a network is tried on

/// Tries a network. Weights may be as large as a file wants them, and options of a routing are
/// judged by the op that they are for: both are a ValueError.
template <class Net>
void try_out(Net& net, const Tensor& input, std::size_t classes) {
  const NoGradGuard no_grad;
  net.eval();
  try {
    if (net(input).lengths.shape() != Shape{1, static_cast<std::int64_t>(classes)})
      throw std::runtime_error("a score for each class");
  } catch (const ValueError&) {
  }
}

}  // namespace

bool classifier(Bytes file) {
  return with_file(file, [&](const fs::path& path) {
    const apps::LoadedClassifier c = apps::load_classifier(path);
    const Shape& image = c.net->image();
    if (image.numel() > kLargestInput) return;
    try_out(*c.net, zeros({1, image[0], image[1], image[2]}), c.class_names.size());
  });
}

bool textmodel(Bytes file) {
  const std::vector<Bytes> p = parts(file);
  if (p.size() < 2) return false;
  return with_folder({{apps::kTextWeights, p[0]}, {apps::kTextVocabulary, p[1]}},
                     [&](const fs::path& folder) {
                       apps::TextModel model = apps::load_text_model(folder);
                       try_out(*model.net, ones({1, 1}, DType::i64), model.class_names.size());
                     });
}

}  // namespace capsfw::fuzz
