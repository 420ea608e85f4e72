#include "common/digit_pairs.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/optim/progress.hpp>

#include "common/canvas.hpp"
#include "common/grid.hpp"
#include "common/report_sections.hpp"

namespace capsfw::apps {

namespace {

using Part = std::pair<Tensor, Tensor>;  // images, labels

TwoDigitAccuracy score(ImageClassifier& net,
                       std::int64_t size,
                       const std::function<Part(std::int64_t, std::int64_t)>& part,
                       const std::string& label,
                       Ranks* ranks) {
  constexpr std::int64_t kBatch = 128;
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  Progress bar(label, size, "pairs");
  const auto sums_of = [&](std::int64_t turn) {
    const std::int64_t begin = turn * kBatch, end = std::min(begin + kBatch, size);
    const auto [images, pairs] = part(begin, end);
    const TwoDigitAccuracy found = two_digit_accuracy(net(images, {}, false).lengths, pairs);
    bar.update(end);
    const auto n = static_cast<double>(end - begin);
    // Counts: equal scores of different batches stay equal.
    return from_vector<double>({n, std::round(n * found.exact), std::round(n * found.confident)});
  };
  TwoDigitAccuracy sum;
  double done = 0;
  for (const Tensor& t : in_turns(ranks, (size + kBatch - 1) / kBatch, sums_of)) {
    const auto v = t.to_vector<double>();
    done += v[0];
    sum.exact += v[1];
    sum.confident += v[2];
  }
  const double n = std::max(done, 1.0);
  return {sum.exact / n, sum.confident / n};
}

/// One grey image in a colour, [1, H, W] -> [3, H, W].
Tensor tinted(const Tensor& grey, Rgb color) {
  return grey * from_vector<float>({color.r, color.g, color.b}, {3, 1, 1});
}

Tensor grey(const Tensor& image) { return image.size(0) == 1 ? image : mean(image, {0}, true); }

/// Both on black, in blue and in orange: what they share is nearly white.
Tensor in_two_colours(const Tensor& a, const Tensor& b) {
  return tinted(grey(a), rgb(0x2D9CFF)) + tinted(grey(b), rgb(0xFF8A1E));
}

}  // namespace

TwoDigitAccuracy score_pairs(ImageClassifier& net,
                             const DigitPairs& pairs,
                             const std::string& label,
                             Ranks* ranks) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    return Part{pairs.images(begin, end), pairs.labels(begin, end)};
  };
  return score(net, pairs.size(), part, label, ranks);
}

TwoDigitAccuracy score_pairs(ImageClassifier& net,
                             const OverlappedPairs& pairs,
                             const std::string& label,
                             Ranks* ranks) {
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    const PairBatch batch = pairs.range(begin, end);
    return Part{batch.images, batch.labels};
  };
  return score(net, pairs.size(), part, label, ranks);
}

std::vector<Picture> overlap_pictures(CapsNet& net,
                                      const PairBatch& pairs,
                                      const std::vector<std::string>& names) {
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  const ClassifierOutput out = net(pairs.images, {}, false);
  const Tensor order = argsort(out.lengths, 1, true);
  const auto ranking = order.to_vector<std::int64_t>(),
             labels = pairs.labels.to_vector<std::int64_t>();
  const auto scores = out.lengths.to_vector<double>();
  const std::int64_t n = pairs.size(), classes = net.classes();
  const auto name = [&](std::int64_t k) { return names[static_cast<std::size_t>(k)]; };
  std::vector<Picture> items;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i), row = at * static_cast<std::size_t>(classes);
    std::int64_t a = ranking[row], b = ranking[row + 1];
    // Each in the colour of the image that it is of.
    if (a == labels[2 * at + 1] || b == labels[2 * at]) std::swap(a, b);
    const Tensor pose = narrow(out.poses, 0, i, 1);
    const auto reconstruct = [&](std::int64_t k) {
      return select(net.decode(pose, one_hot(from_vector<std::int64_t>({k}), classes)), 0, 0);
    };
    const auto found = [&](std::int64_t k) {
      return fmt::format("{} {:.2f}", name(k), scores[row + static_cast<std::size_t>(k)]);
    };
    const Tensor ra = reconstruct(a), rb = reconstruct(b);
    items.push_back({{grey(select(pairs.images, 0, i)) * ones({3, 1, 1}),
                      in_two_colours(select(pairs.first, 0, i), select(pairs.second, 0, i)),
                      in_two_colours(ra, zeros_like(rb)), in_two_colours(zeros_like(ra), rb),
                      in_two_colours(ra, rb)},
                     {fmt::format("{} and {}", name(labels[2 * at]), name(labels[2 * at + 1])),
                      found(a), found(b)}});
  }
  return items;
}

Tensor draw_overlap(CapsNet& net, const PairBatch& pairs, const std::vector<std::string>& names) {
  const std::vector<Picture> items = overlap_pictures(net, pairs, names);
  const std::vector<std::string> words{"input", "its two images", "one capsule", "the other",
                                       "both"};
  TensorList rows;
  std::vector<std::string> captions;
  for (std::size_t row = 0; row < words.size(); ++row)
    for (const Picture& item : items) {
      rows.push_back(item.images[row]);
      captions.push_back(row == 0 || row > item.text.size() ? "" : item.text[row - 1]);
    }
  const Tensor images = stack(rows);
  return labelled_grid(
      images, {.columns = static_cast<int>(items.size()),
               .scale = scale_to(images, 76),
               .title = "two images in one, and what the capsules of the two largest scores "
                        "reconstruct",
               .rows = words,
               .captions = captions});
}

std::vector<PairMistake> worst_pair_mistakes(const Tensor& scores, const Tensor& labels) {
  const auto ranking = argsort(scores, 1, true).to_vector<std::int64_t>(),
             right = labels.to_vector<std::int64_t>();
  const auto values = cast_data(scores, DType::f64).to_vector<double>();
  const auto classes = static_cast<std::size_t>(scores.size(1));
  std::vector<PairMistake> out;
  for (std::size_t i = 0; 2 * i < right.size(); ++i) {
    const std::array<std::int64_t, 2> said{ranking[i * classes], ranking[i * classes + 1]},
        is{right[2 * i], right[2 * i + 1]};
    const auto score = [&](std::int64_t k) {
      return values[i * classes + static_cast<std::size_t>(k)];
    };
    std::int64_t wrong = -1, missed = -1;
    for (const std::int64_t k : said)
      if (k != is[0] && k != is[1] && wrong < 0) wrong = k;
    for (const std::int64_t k : is)
      if (k != said[0] && k != said[1] && (missed < 0 || score(k) < score(missed))) missed = k;
    if (wrong >= 0)
      out.push_back({static_cast<std::int64_t>(i), said, is, score(wrong), score(missed)});
  }
  std::stable_sort(out.begin(), out.end(), [](const PairMistake& a, const PairMistake& b) {
    return a.wrong_score - a.missed_score > b.wrong_score - b.missed_score;
  });
  return out;
}

void add_pair_pictures(Report& report,
                       ImageClassifier& net,
                       const OverlappedPairs& pairs,
                       const std::vector<std::string>& names) {
  constexpr std::int64_t kBatch = 100, kLooked = 1000, kReconstructed = 10;
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  const std::int64_t looked = std::min(kLooked, pairs.size());
  TensorList scores, labels;
  for (std::int64_t i = 0; i < looked; i += kBatch) {
    const PairBatch batch = pairs.range(i, std::min(i + kBatch, looked));
    scores.push_back(net(batch.images, {}, false).lengths);
    labels.push_back(batch.labels);
  }
  const std::vector<PairMistake> mistakes = worst_pair_mistakes(cat(scores), cat(labels));
  const auto both = [&](const std::array<std::int64_t, 2>& k) {
    return fmt::format("{} and {}", names[static_cast<std::size_t>(k[0])],
                       names[static_cast<std::size_t>(k[1])]);
  };
  std::vector<Picture> items;
  for (const PairMistake& m : mistakes) {
    if (items.size() == kMistakesShown) break;
    const PairBatch pair = pairs.at({m.sample});
    items.push_back({{select(pair.images, 0, 0),
                      in_two_colours(select(pair.first, 0, 0), select(pair.second, 0, 0))},
                     {both(m.said), "is " + both(m.right),
                      fmt::format("{:.2f} / {:.2f}", m.wrong_score, m.missed_score)}});
  }
  report.pictures(
      {"Worst mistakes",
       fmt::format("{} of {} wrong answers to the first {} test pairs. Above the pair, below its "
                   "two images in two colours; what was said, what is right, and the scores of a "
                   "class that is not there and of one that was missed; the widest gaps first.",
                   items.size(), mistakes.size(), looked)},
      items);
  auto* capsnet = dynamic_cast<CapsNet*>(&net);
  if (capsnet == nullptr || !net.has_decoder()) return;
  report.pictures(
      {"Reconstructions",
       "Test pairs: the input, its two images in two colours, what the capsules of the "
       "two largest scores reconstruct, one by one, and both of these together; the "
       "classes of the pair, and these two with their scores."},
      overlap_pictures(*capsnet, pairs.range(0, std::min(kReconstructed, looked)), names));
}

}  // namespace capsfw::apps
