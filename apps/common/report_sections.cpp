#include "common/report_sections.hpp"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <typeinfo>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/data/checkpoint.hpp>
#include <capsfw/layers/metrics.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

namespace capsfw::apps {
namespace {

constexpr std::int64_t kReconstructions = 20;

/// "Conv2d" of a capsfw::Conv2d.
std::string class_name(const Module& module) {
  int failed = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(typeid(module).name(), nullptr, nullptr, &failed), &std::free);
  if (failed != 0) return "";
  const std::string text = name.get();
  return text.substr(text.rfind(':') + 1);
}

/// The module with a path of names, "decoder.conv1"; nullptr if there is none.
const Module* find(const Module& root, const std::string& path) {
  const std::size_t dot = path.find('.');
  for (const auto& [name, module] : root.children())
    if (name == path.substr(0, dot))
      return dot == std::string::npos ? module : find(*module, path.substr(dot + 1));
  return nullptr;
}

}  // namespace

std::vector<Mistake> worst_mistakes(const Tensor& scores, const Tensor& labels) {
  const auto values = cast_data(scores, DType::f64).to_vector<double>();
  const auto said = argmax(scores, 1).to_vector<std::int64_t>(),
             right = labels.to_vector<std::int64_t>();
  std::vector<Mistake> out;
  for (std::size_t i = 0; i < said.size(); ++i) {
    const double* row = values.data() + static_cast<std::int64_t>(i) * scores.size(1);
    if (said[i] != right[i])
      out.push_back({static_cast<std::int64_t>(i), said[i], right[i], row[said[i]], row[right[i]]});
  }
  std::stable_sort(out.begin(), out.end(), [](const Mistake& a, const Mistake& b) {
    return a.score - a.right_score > b.score - b.right_score;
  });
  return out;
}

Score Answers::of(ImageClassifier& net,
                  const BatchLoss& loss,
                  const std::string& label,
                  Ranks* ranks) {
  const Score score = evaluate(net, set_, watching(loss), label, ranks);
  if (ranks != nullptr) scores_ = gather_turns(*ranks, scores_);
  return score;
}

BatchLoss Answers::watching(BatchLoss loss) {
  scores_.clear();
  return [this, loss = std::move(loss)](const ClassifierOutput& out, const Batch& batch) {
    scores_.push_back(out.lengths.detach());
    return loss(out, batch);
  };
}

void Answers::add_to(Report& report, const std::string& where, const std::string& group) const {
  std::int64_t seen = 0;
  for (const Tensor& batch : scores_) seen += batch.size(0);
  if (seen == 0 || seen != set_.size()) return;
  const std::vector<std::string>& names = set_.class_names();
  const Tensor scores = cat(scores_), labels = set_.labels();
  report.confusion(
      {"Confusion matrix", where + ". Rows: class; columns: what it was taken for.", group},
      confusion_matrix(argmax(scores, 1), labels, set_.classes()), names);
  const std::vector<Mistake> mistakes = worst_mistakes(scores, labels);
  std::vector<Picture> items;
  for (const Mistake& m : mistakes) {
    if (items.size() == kMistakesShown) break;
    items.push_back(
        {{select(set_.images(m.sample, m.sample + 1), 0, 0)},
         {names[static_cast<std::size_t>(m.said)], "is " + names[static_cast<std::size_t>(m.right)],
          fmt::format("{:.2f} / {:.2f}", m.score, m.right_score)}});
  }
  report.pictures(
      {"Worst mistakes",
       fmt::format("{}: {} of {} wrong answers to {} images. What was said, what is right, and "
                   "both scores; the widest gaps first.",
                   where, items.size(), mistakes.size(), seen),
       group},
      items);
}

void add_layers(Report& report, Classifier& net, const std::string& group) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(net.summary());
  std::string line;
  std::getline(lines, line);  // the head
  while (std::getline(lines, line)) {
    // A name, a shape that may have spaces or be empty, a count.
    const std::size_t name = line.find(' '), count = line.rfind(' ') + 1;
    std::string shape;
    if (const std::size_t open = line.find('['); open != std::string::npos)
      shape = line.substr(open, line.find(']') + 1 - open);
    const Module* module = find(net, line.substr(0, name));
    rows.push_back({line.substr(0, name), module != nullptr ? class_name(*module) : "",
                    shape == "[B]" ? "" : shape, line.substr(count)});
  }
  report.table({"Layers", "B is the number of samples in a batch.", group, true},
               {"layer", "kind", "output", "parameters"}, rows);
}

void add_reconstructions(Report& report,
                         ImageClassifier& net,
                         const ImageSet& set,
                         const std::string& group) {
  const std::int64_t n = std::min(kReconstructions, set.size());
  if (!net.has_decoder() || n == 0) return;
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  const Tensor x = set.images(0, n);
  const ClassifierOutput out = net(x);
  const auto said = argmax(out.lengths, 1).to_vector<std::int64_t>();
  std::vector<Picture> items;
  for (std::int64_t i = 0; i < n; ++i)
    items.push_back(
        {{select(x, 0, i), select(out.reconstruction, 0, i)},
         {set.class_names()[static_cast<std::size_t>(said[static_cast<std::size_t>(i)])]}});
  report.pictures({"Reconstructions",
                   "Above the image, below what the decoder makes of its longest capsule.", group},
                  items);
}

void add_data(Report& report, const HeldOut& parts, const ImageSet& test) {
  report.fact("images", fmt::format("{} to train on, {} held out, {} to test on; {}, {} classes",
                                    parts.train.size(), parts.validation.size(), test.size(),
                                    parts.train.image_shape().str(), parts.train.classes()));
  report.fact("fingerprint", fingerprint(parts.train));
}

}  // namespace capsfw::apps
