// Trains a network for images, keeps the weights that were best on held-out training images, and
// reads the test set once, at the end.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/net_flags.hpp"
#include "common/train_main.hpp"
#include "common/train_program.hpp"

using namespace capsfw;
using namespace capsfw::apps;

int main(int argc, char** argv) {
  TrainFlags f;
  NetFlags net_flags;
  double reconstruction = 0.0005;
  f.out = "out/train_capsnet";
  Args args(
      "train_capsnet",
      "Trains a capsule network on a public set or on images of your own, and tests it once.");
  f.add_data(args);
  net_flags.add_to(args);
  f.add_training(args);
  args.add("--reconstruction X", reconstruction,
           "of a decoder: weight of the sum of squared errors of an image (0.0005 is 0.392 of the "
           "mean at 784 pixels)",
           {.min = 0})
      .add("--seeds N", f.seeds, "runs, with seeds from --seed on: mean and deviation", {.min = 1})
      .add("--load FILE", f.load, "start from these weights")
      .example("train_capsnet --data mnist --arch paper --epochs 1")
      .example("train_capsnet --data mnist --arch efficient --epochs 20")
      .example("train_capsnet --data photos --size 32x48 --channels 3 --flip")
      .example("train_capsnet --capsules 32x8,10x16 --votes shared");
  return train_main(args, argc, argv, f.safety, f.out, [&] {
    net_flags.set_training(f);
    f.start(args);
    const HeldOut parts = load_training(f);
    const std::int64_t classes = parts.train.classes();
    const MakeNet make = [&](Rng& rng) {
      return net_flags.make(parts.train.image_shape(), classes, rng);
    };
    const CapsNetLossOptions options{.reconstruction = reconstruction};
    const BatchLoss loss = [&](const ClassifierOutput& out, const Batch& batch) {
      return capsnet_loss(out, batch.images, one_hot(batch.labels, classes), options);
    };
    const MakeTask task = [&](ImageClassifier& net) {
      net_flags.refuse_idle(net, reconstruction);
      return TrainTask{.loss = loss};
    };
    return train_program(make, parts, f, task, args,
                         fmt::format("{} network on {}", net_flags.arch, f.title()));
  });
}
