// Names the class of an image, with the score of every class.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/classifier_io.hpp"
#include "common/models.hpp"
#include "common/text.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  std::string model = "mnist-efficient", invert = "auto", fit = "crop";
};

/// The image as the network saw its training data: in their size and, where its border is bright
/// and theirs was dark or the other way round, inverted (ink on paper, while MNIST is bright on
/// black). Colours are never inverted unasked.
Tensor prepare(const std::string& path, const LoadedClassifier& model, const Flags& f) {
  const Shape& image = model.net->image();
  if (image[0] != 1 && image[0] != 3)
    throw ValueError(
        fmt::format("{}: takes images with {} channels; a picture has 1 or 3", f.model, image[0]));
  const Tensor raw = load_image(path, {.channels = static_cast<int>(image[0]), .background = 0});
  const Tensor x =
      fit_image(raw, image[1], image[2], f.fit == "stretch" ? Fit::stretch : Fit::crop);
  const bool differs = (border_brightness(x) > 0.5) != (model.border.value_or(0) > 0.5);
  const bool invert = f.invert == "yes" || (f.invert == "auto" && image[0] == 1 && differs);
  return unsqueeze(invert ? 1.0 - x : x, 0);
}

void predict(const LoadedClassifier& model, const std::string& path, const Flags& f) {
  const ClassifierOutput out = (*model.net)(prepare(path, model, f), {}, false);
  check_scores(out.lengths, path);
  fmt::print("{}: {}", path, ranked_scores(model.class_names, out.lengths.to_vector<double>()));
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  std::vector<std::string> images;
  Args args("predict",
            "Names the class of PNG or JPEG images with a network that one of the training "
            "programs saved.");
  args.add("--model NAME|FILE", f.model,
           "weights: mnist-efficient or mnist, which come along, or a file of a training program")
      .choice("--invert", f.invert, {"auto", "yes", "no"},
              "bright becomes dark; auto: a grey image whose border is bright where those of the "
              "training images were dark, or the other way round")
      .choice("--fit", f.fit, {"crop", "stretch"},
              "images of other proportions: cut the surplus evenly, or change the proportions")
      .positional("IMAGE", images, "pictures of any size");
  args.example("predict digit.png")
      .example("predict --model out/quickstart/model.safetensors shoe.png");
  return run_main(args, argc, argv, [&] {
    const NoGradGuard no_grad;
    LoadedClassifier loaded = load_classifier(find_model(f.model));
    loaded.net->eval();
    for (const std::string& path : images) predict(loaded, path, f);
    return 0;
  });
}
