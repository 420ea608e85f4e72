// Trains on pairs of digits on top of each other, and tests on pairs never seen: are both found?
// MultiMNIST of Sabour, Frosst, Hinton 2017, section 6.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/classifier_io.hpp"
#include "common/digit_pairs.hpp"
#include "common/grid.hpp"
#include "common/net_flags.hpp"
#include "common/text.hpp"
#include "common/train_loop.hpp"
#include "common/train_main.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags {
  TrainFlags train;
  NetFlags net;
  double reconstruction = 0.0005;
  std::int64_t per_image = 1;
};

/// The set on the canvas of pairs, each image at its centre.
ImageSet on_canvas(const ImageSet& set, std::int64_t shift) {
  if (set.size() == 0) return set;
  const Shape& image = set.image_shape();
  return affine_digits(set, {.height = image[1] + 2 * shift,
                             .width = image[2] + 2 * shift,
                             .degrees = 0,
                             .scale = 0,
                             .shear = 0,
                             .translate = false});
}

/// The pairs of a batch. A small shard may have images of one class only: these get the first
/// training image of another one.
PairBatch pairs_of(const Batch& batch, const ImageSet& train) {
  const auto labels = batch.labels.to_vector<std::int64_t>();
  const auto other = [&](std::int64_t label) { return label != labels[0]; };
  std::int64_t i = 0;
  while (i < train.size() && !other(train.label(i))) ++i;
  if (std::any_of(labels.begin(), labels.end(), other) || i == train.size())
    return overlap(batch.images, batch.labels);
  const PairBatch all = overlap(cat({batch.images, train.images(i, i + 1)}),
                                cat({batch.labels, from_vector<std::int64_t>({train.label(i)})}));
  const auto part = [&](const Tensor& t) { return narrow(t, 0, 0, batch.size()); };
  return {part(all.images), part(all.labels), part(all.first), part(all.second)};
}

/// Margin loss of both classes, and the reconstruction of each of the two images from its capsule.
/// Sabour et al. 2017, section 6.
TrainTask::Step step(ImageClassifier& net, const PairBatch& pairs, double reconstruction) {
  const ClassifierOutput out = net(pairs.images, {}, false);
  Tensor loss = margin_loss(out.lengths, multi_hot(pairs.labels, net.classes()));
  if (auto* capsnet = dynamic_cast<CapsNet*>(&net);
      capsnet != nullptr && net.has_decoder() && reconstruction > 0)
    for (const std::int64_t side : {0, 1}) {
      const Tensor chosen = one_hot(select(pairs.labels, 1, side), net.classes());
      loss = loss + reconstruction_loss(side == 0 ? pairs.first : pairs.second,
                                        capsnet->decode(out.poses, chosen), reconstruction);
    }
  return {loss, two_digit_accuracy(out.lengths, pairs.labels).exact};
}

/// The training part. ValueError where no pairs can be made of it.
HeldOut load_parts(const TrainFlags& f) {
  HeldOut parts = load_training(f);
  bool two = false;
  for (std::int64_t i = 1; i < parts.validation.size() && !two; ++i)
    two = parts.validation.label(i) != parts.validation.label(0);
  if (!two)
    throw ValueError(fmt::format("--val: pairs need two classes among the images held out; got {}",
                                 parts.validation.size()));
  if (f.batch < 2)
    throw ValueError(fmt::format("--batch: pairs are made of its images; got {}", f.batch));
  if (f.batch > parts.train.size())
    throw ValueError(
        fmt::format("--batch: there are {} training images; got {}", parts.train.size(), f.batch));
  if (f.safety.takers != nullptr && f.seeds == 1)
    throw ValueError("--spread: there is one network only. Hint: --seeds trains several");
  return parts;
}

class Experiment {
 public:
  Experiment(const Flags& flags, const Args& args)
      : flags_(flags),
        parts_(load_parts(flags.train)),
        held_out_(parts_.validation, {.max_shift = flags.train.shift, .seed = 1}),
        test_set_(load_test(flags.train, parts_.train)),
        test_(test_set_,
              {.max_shift = flags.train.shift, .per_image = flags.per_image, .seed = 2}) {
    parts_.train = on_canvas(parts_.train, flags.train.shift);
    parts_.validation = on_canvas(parts_.validation, flags.train.shift);
    // Whatever does not fit is found now, and leaves an earlier run in this folder as it is.
    const auto net = make_net(flags.train.seed);
    flags.net.refuse_idle(*net, flags.reconstruction);
    folder_ = flags.train.safety.open(flags.train.out, args, fingerprint(parts_, test_set_));
    fmt::print("{}\n{} training images, {} pairs held out, {} test pairs\n\n", net->summary(),
               parts_.train.size(), held_out_.size(), test_.size());
    report_.emplace(
        *folder_,
        fmt::format("{} network on two images in one: {}", flags.net.arch, flags.train.title()),
        args);
    add_data(*report_, parts_, test_set_);
    report_->fact("validation accuracy", "share of the pairs held out whose two classes are found");
    add_layers(*report_, *net);
    report_->write();
  }

  int run() {
    for (int k = 0; k < flags_.train.seeds && !interrupted(); ++k)
      run_one(flags_.train.seed + static_cast<std::uint64_t>(k));
    if (folder_->takes()) return 0;
    if (!exact_.empty()) finish();
    report_->finish();
    return end_of_run(folder_->path());
  }

 private:
  std::unique_ptr<ImageClassifier> make_net(std::uint64_t seed) const {
    Rng rng(seed);
    return flags_.net.make(parts_.train.image_shape(), parts_.train.classes(), rng);
  }

  void run_one(std::uint64_t seed) {
    TrainFlags flags = flags_.train;
    flags.seed = seed;
    const std::string part = fmt::format("seed-{}", seed);
    if (!folder_->take(part)) return;
    if (const auto known = folder_->results(part)) {
      report_->load(*known, "report");
      const auto numbers = known->at("outcome").to_vector<double>();
      return add(numbers.at(0), numbers.at(1));
    }
    const auto net = make_net(seed);
    const bool first = seed == flags_.train.seed;
    const std::string label = flags_.train.seeds > 1 ? fmt::format("seed {}: ", seed) : "";
    TrainTask task;
    task.part = part;
    task.label = label;
    task.tags = {{"seed", seed}};
    task.drop_last = true;  // a pair needs two classes
    task.step = [&](const Batch& batch) {
      return step(*net, pairs_of(batch, parts_.train), flags_.reconstruction);
    };
    task.validate = [&] {
      return Score{
          NAN,
          score_pairs(*net, held_out_, label + "pairs held out", flags_.train.safety.ranks).exact};
    };
    task.after_epoch = [&](const Run& run, const Answers&) {
      if (first && run.best_epoch() > 0)
        report_->headline(fmt::format("of the pairs held out, epoch {}", run.best_epoch()),
                          percent({run.best_score()}));
      report_->write();
    };
    const TrainResult result = train(*net, parts_, flags, task, *folder_);
    const std::string file =
        first ? "model.safetensors" : fmt::format("model-{}.safetensors", seed);
    save_classifier(folder_->path() / file, *net, parts_.train);
    if (interrupted()) return;
    const TwoDigitAccuracy found =
        score_pairs(*net, test_, label + "test pairs", flags_.train.safety.ranks);
    if (interrupted()) return;
    folder_->write({{"event", "test"},
                    {"seed", seed},
                    {"parameters", net->parameter_count()},
                    {"best_epoch", result.best_epoch},
                    {"val_exact", result.val_accuracy},
                    {"test_exact", found.exact},
                    {"test_confident", found.confident},
                    {"train_seconds", result.seconds},
                    {"peak_memory_mb", peak_memory_mb()}});
    fmt::print(
        "{}{:.2f} % of the test pairs, {:.2f} % with both scores above ½ (epoch {}, {:.0f} s "
        "of training)\n",
        label, 100 * found.exact, 100 * found.confident, result.best_epoch, result.seconds);
    add(found.exact, found.confident);
    if (first) draw(*net, result.history);
    StateDict results;
    results.set("outcome", from_vector<double>({found.exact, found.confident}));
    report_->save(results, "report");
    folder_->finish(part, results);
  }

  void draw(ImageClassifier& net, const History& history) {
    constexpr std::int64_t kPairs = 10;
    history.draw("two images in one", folder_->path() / "curves.png");
    add_pair_pictures(*report_, net, test_, parts_.train.class_names());
    auto* capsnet = dynamic_cast<CapsNet*>(&net);
    if (capsnet == nullptr || !net.has_decoder()) return;
    const PairBatch pairs = test_.range(0, std::min(kPairs, test_.size()));
    const Tensor picture = draw_overlap(*capsnet, pairs, parts_.train.class_names());
    save_png(folder_->path() / "overlap.png", picture);
  }

  void add(double exact, double confident) {
    exact_.push_back(exact);
    confident_.push_back(confident);
    report_->headline("of the test pairs", percent(exact_));
    report_->table({"Result", "Share of test pairs whose two classes have the two largest scores."},
                   {"seeds", "pairs", "both scores above ½"},
                   {{fmt::to_string(exact_.size()), percent(exact_), percent(confident_)}});
  }

  void finish() {
    double mean = 0;
    for (const double e : exact_) mean += e / static_cast<double>(exact_.size());
    folder_->write({{"event", "result"}, {"seeds", exact_.size()}, {"test_exact", mean}});
    fmt::print("\n{} of the test pairs, {} with both scores above ½; {} seeds\n\nMade in {}:\n",
               percent(exact_), percent(confident_), exact_.size(), folder_->path().string());
    fmt::print(
        "  report.html        all of it on one page, for a browser\n"
        "  metrics.jsonl      the runs, a JSON object per line\n"
        "  curves.png         loss and pairs found, first seed\n"
        "  model.safetensors  the weights\n");
    if (std::filesystem::exists(folder_->path() / "overlap.png"))
      fmt::print("  overlap.png        test pairs beside what two capsules remember\n");
  }

  const Flags& flags_;
  HeldOut parts_;
  OverlappedPairs held_out_;
  ImageSet test_set_;
  OverlappedPairs test_;
  std::unique_ptr<RunFolder> folder_;
  std::optional<Report> report_;
  std::vector<double> exact_, confident_;
};

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  f.train.data = "mnist";
  f.train.shift = 4;
  f.train.out = "out/overlapped_digits";
  Args args("overlapped_digits",
            "Trains a network on pairs of digits on top of each other (--shift: how far each of "
            "the two is from the centre), and tests it on pairs of digits never seen.");
  f.train.add_data(args);
  f.net.add_to(args);
  f.train.add_training(args);
  args.add("--reconstruction X", f.reconstruction,
           "of a decoder: weight of the sum of squared errors of each of the two images",
           {.min = 0})
      .add("--test-pairs N", f.per_image, "test pairs that each test image is the first of",
           {.min = 1, .max = 1000})
      .add("--seeds N", f.train.seeds, "runs, with seeds from --seed on", {.min = 1})
      .example("overlapped_digits --epochs 5")
      .example("overlapped_digits --arch cnn --seeds 3");
  return train_main(args, argc, argv, f.train.safety, f.train.out, [&] {
    f.net.set_training(f.train);
    f.train.start(args);
    return Experiment(f, args).run();
  });
}
