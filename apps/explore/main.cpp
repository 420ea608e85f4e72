// Looks into a capsule network: what its poses mean, where its routing sends what it found, what it
// makes of two images in one.

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <numeric>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/classifier_io.hpp"
#include "common/data_flags.hpp"
#include "common/digit_pairs.hpp"
#include "common/models.hpp"
#include "common/text.hpp"

#include "page.hpp"
#include "pictures.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

constexpr std::int64_t kPageImages = 20, kPairs = 8;

struct Flags {
  DataFlags data;
  std::string model = "mnist", out = "out/explore", label;
  std::int64_t image = 0;
  int count = 1;
};

/// Files made, and what there is no picture of and why.
class Results {
 public:
  explicit Results(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path add(const std::string& file, const std::string& what) {
    made_ += fmt::format("  {:<16} {}\n", file, what);
    return folder_ / file;
  }
  void left_out(const std::string& files, const std::string& why) {
    left_out_ += fmt::format("Left out: {}: {}\n", files, why);
  }
  void print() const { fmt::print("\nMade in {}:\n{}{}", folder_.string(), made_, left_out_); }

 private:
  std::filesystem::path folder_;
  std::string made_, left_out_;
};

/// The test images, which must be of the kind that the network was trained on.
ImageSet load_set(const Flags& f, const LoadedClassifier& model) {
  const ImageSet set = f.data.data.empty() ? load_digits() : load_images(f.data, Split::test);
  const std::string name = f.data.data.empty() ? "the digits of MNIST" : f.data.title();
  check_classes(f.model, model, name, set.class_names());
  if (set.image_shape() != model.net->image())
    throw ShapeError(
        fmt::format("{}: the network takes images {}; those of {} are {}. Hint: {}", f.model,
                    model.net->image().str(), name, set.image_shape().str(),
                    f.data.data.empty() ? "--data names its set" : "--size, --channels"));
  if (f.image > set.size() - f.count)
    throw UsageError(
        fmt::format("--image, --count: {} has {} test images, from 0 on; got {} from {}", name,
                    set.size(), f.count, f.image));
  return set;
}

/// A class by its name, or else by its number.
std::int64_t find_class(const std::string& text, const std::vector<std::string>& names) {
  const auto found = std::find(names.begin(), names.end(), text);
  std::size_t number = static_cast<std::size_t>(found - names.begin());
  if (found == names.end()) {
    const auto got = std::from_chars(text.data(), text.data() + text.size(), number);
    if (got.ec != std::errc() || got.ptr != text.data() + text.size() || number >= names.size())
      throw UsageError(fmt::format("--class: a name or a number from 0 to {}; got '{}'",
                                   names.size() - 1, text));
  }
  return static_cast<std::int64_t>(number);
}

Specimen look_at(LoadedClassifier& model,
                 const ImageSet& set,
                 std::int64_t number,
                 const Flags& f) {
  const Tensor image = contiguous(select(set.images(number, number + 1), 0, 0));
  Specimen s{.image = image,
             .title = fmt::format("image {} ('{}')", number,
                                  model.class_names[static_cast<std::size_t>(set.label(number))]),
             .trace = trace_routing(*model.net, image)};
  check_scores(s.trace.out.lengths, f.model);
  const auto order = argsort(s.trace.out.lengths, 1, true).to_vector<std::int64_t>();
  s.winner = f.label.empty() ? order[0] : find_class(f.label, model.class_names);
  s.other = order[order[0] == s.winner && order.size() > 1 ? 1 : 0];
  return s;
}

/// For the page: image N first, then as many of each class, as far as there are.
std::vector<std::int64_t> choose_images(const ImageSet& set, std::int64_t first) {
  const std::int64_t n = std::min(kPageImages, set.size()),
                     each = (n + set.classes() - 1) / set.classes();
  std::vector<std::int64_t> chosen, counts(static_cast<std::size_t>(set.classes())), rest;
  for (std::int64_t k = 0; k < set.size(); ++k) {
    const std::int64_t i = (first + k) % set.size();
    std::int64_t& count = counts[static_cast<std::size_t>(set.label(i))];
    (count < each && static_cast<std::int64_t>(chosen.size()) < n ? chosen : rest).push_back(i);
    ++count;
  }
  for (std::size_t k = 0; static_cast<std::int64_t>(chosen.size()) < n; ++k)
    chosen.push_back(rest[k]);
  std::stable_sort(chosen.begin() + 1, chosen.end(),
                   [&](std::int64_t a, std::int64_t b) { return set.label(a) < set.label(b); });
  return chosen;
}

/// Pairs from image `first` on, on images of the size that the network takes.
PairBatch make_pairs(const ImageSet& set, std::int64_t first) {
  constexpr std::int64_t kShift = 2;
  const OverlappedPairs pairs(set, {.max_shift = kShift});
  std::vector<std::int64_t> positions;
  for (std::int64_t k = 0; k < std::min(kPairs, set.size()); ++k)
    positions.push_back((first + k) % set.size());
  PairBatch batch = pairs.at(positions);
  for (Tensor* x : {&batch.images, &batch.first, &batch.second})
    *x = contiguous(
        narrow(narrow(*x, 2, kShift, set.image_shape()[1]), 3, kShift, set.image_shape()[2]));
  return batch;
}

void decoder_results(CapsNet& net,
                     const LoadedClassifier& model,
                     const ImageSet& set,
                     const Flags& f,
                     Results& results) {
  bool one_class = true;
  for (std::int64_t i = 1; i < set.size(); ++i)
    one_class = one_class && set.label(i) == set.label(0);
  if (!one_class)
    save_png(results.add("overlap.png", "two images in one, told apart by two capsules"),
             draw_overlap(net, make_pairs(set, f.image), model.class_names));
  else
    results.left_out("overlap.png", "the images are of a single class");
  const std::vector<std::int64_t> chosen = choose_images(set, f.image);
  const ExplorePage page =
      explore_page(net, model.class_names, set.subset(chosen), chosen, f.model, model.note);
  save_text(
      results.add("explore.html",
                  fmt::format("the decoder in a page, with {}-bit weights: open it in a browser",
                              page.bits)),
      page.html);
}

int explore(const Flags& f) {
  const NoGradGuard no_grad;
  LoadedClassifier model = load_classifier(find_model(f.model));
  model.net->eval();
  auto* capsnet = dynamic_cast<CapsNet*>(model.net.get());
  if (capsnet == nullptr && model.kind != "matrix-capsnet")
    throw ValueError(fmt::format(
        "{}: a network of kind '{}' has no capsules, so there is nothing to look at. Hint: "
        "train_capsnet --arch compact, paper or efficient trains one that has",
        f.model, model.kind));
  const ImageSet set = load_set(f, model);
  if (!f.label.empty()) find_class(f.label, model.class_names);  // before there is a folder
  std::filesystem::create_directories(f.out);
  Results results(f.out);
  for (int k = 0; k < f.count; ++k) {
    const Specimen s = look_at(model, set, f.image + k, f);
    const std::string end = k == 0 ? ".png" : fmt::format("-{}.png", f.image + k);
    const std::string of = f.count == 1 ? "" : " of " + s.title;
    if (capsnet != nullptr && capsnet->has_decoder())
      save_png(results.add("poses" + end, "every entry of a pose changed one by one" + of),
               draw_poses(*capsnet, s, model.class_names));
    save_png(results.add("couplings" + end, "where the routing sends the first capsules" + of),
             draw_couplings(s, model.class_names));
    if (s.trace.votes.defined())
      save_png(results.add("votes" + end, "the votes for two classes on a plane" + of),
               draw_votes(s, model.class_names));
  }
  if (capsnet == nullptr)
    results.left_out("votes.png, and iterations before the last one",
                     "matrix capsules are routed by a kernel that stores none of them");
  if (capsnet != nullptr && capsnet->has_decoder())
    decoder_results(*capsnet, model, set, f, results);
  else
    results.left_out("poses.png, overlap.png, explore.html",
                     "the network has no decoder. Hint: train_capsnet --decoder conv");
  results.print();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  f.data.data = "";
  Args args(
      "explore",
      "Looks into a capsule network that train_capsnet or train_matrix_capsules saved: pictures of "
      "its poses, its routing and its reconstructions of overlapping images, and a page in which "
      "its decoder runs. Without --data it looks at 100 digits of the MNIST test set.");
  args.section("Network and images")
      .add("--model NAME|FILE", f.model,
           "weights: mnist or mnist-efficient, which come along, or a file of a training program");
  f.data.add_source(args);
  args.add("--image N", f.image, "test image to look at, from 0 on", {.min = 0})
      .add("--count N", f.count, "images to look at, from --image on", {.min = 1, .max = 100})
      .add("--class NAME|N", f.label, "class to look at; by default the one of the largest score")
      .add("--out DIR", f.out, "folder of the results")
      .example("explore")
      .example("explore --image 7 --count 3")
      .example("explore --model out/quickstart/model.safetensors --data fashion-mnist");
  return run_main(args, argc, argv, [&] {
    args.refuse_idle(f.data.data.empty(),
                     "of --data; the digits that come along stay as they are. Hint: --data NAME",
                     {"--size", "--channels", "--fit", "--skip-broken"});
    return explore(f);
  });
}
