// Names the class of an image, with the score of every class.

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/classifier_io.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

/// The image as the network saw its training data: resized, and inverted if its border is bright
/// (ink on paper, while MNIST and Fashion-MNIST are bright on black).
Tensor prepare(const std::string& path, const Shape& image, const std::string& invert) {
  const Tensor raw = load_image(path, {.channels = static_cast<int>(image[0]), .background = 0});
  Tensor x = resize_image(raw, image[1], image[2]);
  const Tensor border = cat({flatten(select(x, 1, 0)), flatten(select(x, 1, -1)),
                             flatten(select(x, 2, 0)), flatten(select(x, 2, -1))});
  if (invert == "yes" || (invert == "auto" && mean(border).item() > 0.5)) x = 1.0 - x;
  return unsqueeze(x, 0);
}

void predict(ImageClassifier& net,
             const std::vector<std::string>& names,
             const std::string& path,
             const std::string& invert) {
  const ClassifierOutput out = net(prepare(path, net.image(), invert), {}, false);
  if (!all(isfinite(out.lengths)))
    throw ValueError(fmt::format(
        "{}: the scores are not finite: the weights of the network are too large", path));
  const auto lengths = out.lengths.to_vector<double>();
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  fmt::print("{}: {}\n", path, names[order[0]]);
  for (std::size_t k : order)
    fmt::print("  {:<14} {:.3f} {}\n", names[k], lengths[k],
               std::string(static_cast<std::size_t>(40 * lengths[k] + 0.5), '#'));
}

}  // namespace

int main(int argc, char** argv) {
  std::string model = "out/quickstart/model.safetensors", invert = "auto";
  std::vector<std::string> images;
  Args args("predict",
            "Names the class of PNG or JPEG images with a network that one of the training "
            "programs saved.");
  args.add("--model FILE", model, "weights")
      .choice("--invert", invert, {"auto", "yes", "no"},
              "bright background becomes black, as in the training images")
      .positional("IMAGE", images, "pictures of any size");
  args.example("predict --model out/quickstart/model.safetensors shoe.png");
  return run_main(args, argc, argv, [&] {
    const NoGradGuard no_grad;
    LoadedClassifier loaded = load_classifier(model);
    loaded.net->eval();
    for (const std::string& path : images) predict(*loaded.net, loaded.class_names, path, invert);
    return 0;
  });
}
