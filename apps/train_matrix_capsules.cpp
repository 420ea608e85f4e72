// Trains matrix capsules with EM routing, keeps the weights that were best on held-out training
// images, and reads the test set once, at the end.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/text.hpp"
#include "common/train_main.hpp"
#include "common/train_program.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

/// Measured over 150 and 300 steps on MNIST with 2 and 3 iterations: with the variances of empty
/// parts of the image near 0 (eps_var 0.1 and below) next to nothing is learned in that time; 4 is
/// slower than 1, and a λ of 0.01 or 0.05 slower than 0.03.
constexpr const char* kRouting = "em:iterations=2,eps_var=1,lambda=0.03";

struct Flags {
  TrainFlags train;
  std::string arch = "small", routing = kRouting, competition = "patch";
  int iterations = 2, pose = 4;
  bool no_batch_norm = false, no_coordinates = false;
  double margin = 0.2, lambda = 1, growth = 0.5;
};

RoutingSpec em_spec(const std::string& text) {
  RoutingSpec spec(text);
  if (spec.name() != "em")
    throw ValueError(fmt::format("must be em with its options, em:NAME=VALUE,...; got '{}'", text));
  return spec;
}

MatrixCapsNetOptions options(const Flags& f, const Args& args, const ImageSet& set) {
  MatrixCapsNetOptions o = f.arch == "paper"
                               ? MatrixCapsNetOptions::paper(set.image_shape(), set.classes())
                               : MatrixCapsNetOptions::small(set.image_shape(), set.classes());
  RoutingSpec spec = em_spec(f.routing);
  if (args.given("--routing-iterations"))
    spec = spec.with("iterations", fmt::to_string(f.iterations));
  o.routing = options_of<EmRoutingOptions>(spec);
  o.competition = competition(f.competition);
  o.pose = f.pose;
  o.conv.batch_norm = !f.no_batch_norm;
  o.coordinates = !f.no_coordinates;
  return o;
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  f.train.data = "mnist";
  f.train.lr = 1e-2;
  f.train.batch = 32;
  f.train.out = "out/train_matrix_capsules";
  Args args(
      "train_matrix_capsules",
      "Trains matrix capsules with EM routing on a public set or own images; tests them once.");
  f.train.add_data(args);
  args.section("Network")
      .choice("--arch", f.arch, {"small", "paper"},
              "channels and capsule types: small 64, 8, 16, 16; paper (Hinton et al. 2018) 32 each")
      .add("--pose N", f.pose, "side of the pose matrices", {.min = 1, .max = 16})
      .add("--routing em:OPTIONS", f.routing,
           "options of EM routing, as em:iterations=3,variant=v3",
           [](const std::string& text) { em_spec(text); })
      .add("--routing-iterations N", f.iterations, "the same as iterations=N in --routing",
           {.min = 1, .max = 100})
      .choice("--competition", f.competition, {"patch", "child"},
              "parents that share a child compete in one patch, or over all patches with the child")
      .add("--no-batch-norm", f.no_batch_norm, "no batch norm behind the convolution")
      .add("--no-coordinates", f.no_coordinates, "no coordinate addition in the class capsules");
  f.train.add_training(args);
  args.add("--margin X", f.margin, "margin of the spread loss at the start; it grows to 0.9",
           {.min = 0, .max = 0.9})
      .add("--lambda X", f.lambda, "share of lambda at the start; it grows to 1",
           {.above = 0, .max = 1})
      .add("--growth X", f.growth, "share of the run in which margin and lambda grow",
           {.above = 0, .max = 1})
      .add("--seeds N", f.train.seeds, "runs, with seeds from --seed on: mean and deviation",
           {.min = 1})
      .add("--load FILE", f.train.load, "start from these weights")
      .example("train_matrix_capsules --epochs 5 --routing-iterations 3")
      .example("train_matrix_capsules --data smallnorb --size 32x32 --epochs 10")
      .example("train_matrix_capsules --routing em:iterations=2,data_per_parent=0");
  return train_main(args, argc, argv, f.train.safety, f.train.out, [&] {
    f.train.start(args);
    const HeldOut parts = load_training(f.train);
    const MakeNet make = [&](Rng& rng) {
      return std::make_unique<MatrixCapsNet>(options(f, args, parts.train), rng);
    };
    double margin = 0.9;  // of the step; while nothing is trained, the last one
    const MakeTask task_of = [&](ImageClassifier& any) {
      auto& net = dynamic_cast<MatrixCapsNet&>(any);
      TrainTask task;
      task.loss = [&](const ClassifierOutput& out, const Batch& batch) {
        return spread_loss(out.lengths, batch.labels, net.training() ? margin : 0.9);
      };
      task.before_step = [&](std::int64_t step, std::int64_t total) {
        const auto at = static_cast<double>(step), end = f.growth * static_cast<double>(total);
        margin = spread_margin_linear(at, end, f.margin);
        net.set_lambda_scale(lambda_growth(at, end, f.lambda));
      };
      return task;
    };
    return train_program(make, parts, f.train, task_of, args,
                         fmt::format("matrix capsules on {}", f.train.title()));
  });
}
