// Attacks saved classifiers with adversarial examples made by input gradients, and shows how their
// accuracy falls with the size of the change.

#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/chart.hpp"
#include "common/classifier_io.hpp"
#include "common/data_flags.hpp"
#include "common/grid.hpp"
#include "common/penalty_probe.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

struct Flags : DataFlags {
  std::string epsilons = "0.01,0.02,0.05,0.1,0.2", out = "out/robustness";
  std::vector<std::string> models;
  std::int64_t test = 1000;
  int steps = 10, batch = 100;
  std::uint64_t seed = 1;
};

constexpr std::int64_t kShown = 10;

/// A network with what became of it.
struct Victim {
  std::string name;
  std::unique_ptr<ImageClassifier> net;
  std::vector<double> fgsm, pgd;  // accuracies for 0 and every epsilon
};

/// "capsnet, input", or the name of the file; with the path for those that another has, too.
std::vector<std::string> names_of(const std::vector<LoadedClassifier>& loaded,
                                  const std::vector<std::string>& paths) {
  std::vector<std::string> names;
  for (std::size_t k = 0; k < paths.size(); ++k) {
    const LoadedClassifier& l = loaded[k];
    names.push_back(
        fmt::format("{}, {}", l.kind,
                    l.note.empty() ? std::filesystem::path(paths[k]).stem().string() : l.note));
  }
  const std::vector<std::string> once = names;
  for (std::size_t k = 0; k < paths.size(); ++k)
    if (std::count(once.begin(), once.end(), once[k]) > 1)
      names[k] = fmt::format("{}, {}", loaded[k].kind, paths[k]);
  return names;
}

/// Accuracy under an attack of all images, and the first few attacked ones.
struct Attacked {
  double accuracy = 0;
  Tensor shown;
};

Attacked attack(ImageClassifier& net,
                const Labelled& data,
                const AttackOptions& o,
                bool several_steps,
                const Flags& f,
                Progress& bar,
                std::int64_t& done) {
  Attacked out;
  Rng rng(f.seed);
  // [loop]
  for (std::int64_t at = 0; at < data.size() && !interrupted(); at += f.batch) {
    const Labelled part = data.range(at, std::min<std::int64_t>(f.batch, data.size() - at));
    const SampleFunction losses = [&](const Tensor& x) {
      return sample_losses(net, x, part.labels);
    };
    const Tensor x =
        several_steps ? pgd(losses, part.images, o, rng) : fgsm(losses, part.images, o);
    const NoGradGuard no_grad;
    out.accuracy += accuracy(class_scores(net(x, {}, false)), part.labels) *
                    static_cast<double>(part.size()) / static_cast<double>(data.size());
    if (!out.shown.defined()) out.shown = narrow(x, 0, 0, std::min(kShown, part.size()));
    bar.update(done += part.size());
  }
  // [loop]
  return out;
}

class Robustness {
 public:
  explicit Robustness(const Flags& f) : f_(f), epsilons_(parse_rates(f.epsilons)), dir_(f.out) {
    std::vector<LoadedClassifier> loaded;
    for (const std::string& path : f.models) {
      if (std::count(f.models.begin(), f.models.end(), path) > 1)
        throw UsageError(fmt::format("FILE: {} is given twice", path));
      loaded.push_back(load_classifier(path));
    }
    const std::vector<std::string> names = names_of(loaded, f.models);
    DataFlags source = f;
    if (source.own_data() && source.size.empty()) {  // as what was trained on it
      const Shape& image = loaded[0].net->image();
      source.size = fmt::format("{}x{}", image[1], image[2]);
      if (source.channels == 0 && image[0] != 2) source.channels = static_cast<int>(image[0]);
    }
    const ImageSet set = load_images(source, Split::test);
    for (std::size_t k = 0; k < loaded.size(); ++k) {
      LoadedClassifier& l = loaded[k];
      check_classes(f.models[k], l, f.title(), set.class_names());
      if (l.net->image() != set.image_shape())
        throw UsageError(fmt::format("{}: takes images {}; {} has {}", f.models[k],
                                     l.net->image().str(), f.title(), set.image_shape().str()));
      l.net->eval();
      l.net->freeze();  // attacks differentiate by the images alone
      victims_.push_back({names[k], std::move(l.net), {}, {}});
    }
    const ImageSet part = some_images(f, set, f.test, f.seed);
    data_ = {part.images(), part.labels()};
    names_ = set.class_names();
    std::filesystem::create_directories(dir_);
    // [open]
    log_.emplace(dir_ / "robustness.jsonl", JsonLogOptions{.fresh = true});
    // [open]
  }

  int run() {
    for (Victim& v : victims_) {
      if (interrupted()) break;
      measure(v);
    }
    if (interrupted()) return kInterruptedExit;
    table("FGSM", &Victim::fgsm);
    table(fmt::format("PGD, {} steps", f_.steps).c_str(), &Victim::pgd);
    draw();
    fmt::print("\nMade in {}: robustness.jsonl, robustness.png, examples.png\n", dir_.string());
    return 0;
  }

 private:
  void measure(Victim& v) {
    const auto attacks = static_cast<std::int64_t>(2 * epsilons_.size());
    Progress bar(v.name, attacks * data_.size(), "images");
    std::int64_t done = 0;
    const double clean = evaluate(*v.net, data_).accuracy;
    v.fgsm = v.pgd = {clean};
    // [write]
    const auto write = [&](const char* name, double epsilon, double accuracy) {
      log_->write({{"event", "attack"},
                   {"model", v.name},
                   {"parameters", v.net->parameter_count()},
                   {"attack", name},
                   {"epsilon", epsilon},
                   {"accuracy", accuracy}});
    };
    // [write]
    write("none", 0, clean);
    for (std::size_t k = 0; k < epsilons_.size() && !interrupted(); ++k) {
      const AttackOptions o{.epsilon = epsilons_[k], .steps = f_.steps};
      const Attacked one = attack(*v.net, data_, o, false, f_, bar, done),
                     many = attack(*v.net, data_, o, true, f_, bar, done);
      if (interrupted()) return;
      v.fgsm.push_back(one.accuracy);
      v.pgd.push_back(many.accuracy);
      write("fgsm", o.epsilon, one.accuracy);
      write("pgd", o.epsilon, many.accuracy);
      if (k == epsilons_.size() / 2) add_examples(v, many.shown);
    }
    bar.finish();
  }

  /// A row of attacked images with what the model takes them for.
  void add_examples(const Victim& v, const Tensor& x) {
    const NoGradGuard no_grad;
    const std::int64_t n = x.size(0);
    if (examples_.empty()) {
      examples_.push_back(narrow(data_.images, 0, 0, n));
      rows_.push_back("clean");
      for (const std::int64_t c : narrow(data_.labels, 0, 0, n).to_vector<std::int64_t>())
        captions_.push_back(names_[static_cast<std::size_t>(c)]);
    }
    examples_.push_back(x);
    rows_.push_back(v.name);
    for (const std::int64_t c :
         argmax(class_scores((*v.net)(x, {}, false)), 1).to_vector<std::int64_t>())
      captions_.push_back(names_[static_cast<std::size_t>(c)]);
  }

  void table(const char* attack, std::vector<double> Victim::*list) const {
    std::size_t width = 28;
    for (const Victim& v : victims_) width = std::max(width, v.name.size() + 1);
    fmt::print("\n{:<{}}{:>12}{:>9}", attack, width, "parameters", "clean");
    for (const double e : epsilons_) fmt::print("{:>9}", fmt::format("{:g}", e));
    for (const Victim& v : victims_) {
      fmt::print("\n{:<{}}{:>12}", v.name, width, v.net->parameter_count());
      for (const double a : v.*list) fmt::print("{:>9.2f}", 100 * a);
    }
    fmt::print("\n");
  }

  void draw() const {
    Chart chart("accuracy under attack");
    std::vector<double> xs{0};
    xs.insert(xs.end(), epsilons_.begin(), epsilons_.end());
    Panel &one = chart.panel("FGSM", {"epsilon", "%"}),
          &many = chart.panel(fmt::format("PGD, {} steps", f_.steps), {"epsilon", "%"});
    const auto percent = [](std::vector<double> v) {
      for (double& a : v) a *= 100;
      return v;
    };
    for (const Victim& v : victims_) {
      one.line(v.name, xs, percent(v.fgsm));
      many.line(v.name, xs, percent(v.pgd));
    }
    chart.save(dir_ / "robustness.png");
    const auto columns = static_cast<int>(examples_[0].size(0));
    save_png(
        dir_ / "examples.png",
        labelled_grid(drawable(cat(examples_)),
                      {.columns = columns,
                       .title = fmt::format("PGD with epsilon {:g}, and what they are taken for",
                                            epsilons_[epsilons_.size() / 2]),
                       .rows = rows_,
                       .captions = captions_}));
  }

  const Flags& f_;
  std::vector<double> epsilons_;
  std::filesystem::path dir_;
  std::vector<Victim> victims_;
  Labelled data_;
  std::vector<std::string> names_, rows_, captions_;
  TensorList examples_;
  std::optional<JsonLog> log_;
};

}  // namespace

// [main]
int main(int argc, char** argv) {
  Flags f;
  Args args("robustness", "Accuracy of saved classifiers under FGSM and PGD attacks.");
  f.add_source(args);
  args.add("--test N", f.test, "test images", {.min = 1})
      .add("--epsilons LIST", f.epsilons, "largest changes of a pixel",
           [](const std::string& text) { parse_rates(text); })
      .add("--steps N", f.steps, "steps of PGD", {.min = 1, .max = 10000})
      .add("--batch N", f.batch, "images at a time", {.min = 1})
      .add("--seed N", f.seed, "of the random starts, and of the images drawn from own data")
      .add("--out DIR", f.out, "folder for log and pictures")
      .positional("MODEL", f.models, "networks that our programs saved");
  args.example("robustness out/caps/model-none.safetensors out/caps/model-input.safetensors");
  return run_main(args, argc, argv, [&] {
    catch_interrupts();
    return Robustness(f).run();
  });
}
// [main]
