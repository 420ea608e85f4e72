#include "common/digit_pairs.hpp"

#include <algorithm>
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

Tensor draw_overlap(CapsNet& net, const PairBatch& pairs, const std::vector<std::string>& names) {
  const NoGradGuard no_grad;
  const ClassifierOutput out = net(pairs.images, {}, false);
  const Tensor order = argsort(out.lengths, 1, true);
  const auto ranking = order.to_vector<std::int64_t>(),
             labels = pairs.labels.to_vector<std::int64_t>();
  const auto scores = out.lengths.to_vector<double>();
  const std::int64_t n = pairs.size(), classes = net.classes();
  TensorList seen, apart, first, second, together;
  std::vector<std::string> captions(static_cast<std::size_t>(5 * n));
  for (std::int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<std::size_t>(i);
    std::int64_t a = ranking[at * static_cast<std::size_t>(classes)],
                 b = ranking[at * static_cast<std::size_t>(classes) + 1];
    // Each in the colour of the image that it is of.
    if (a == labels[2 * at + 1] || b == labels[2 * at]) std::swap(a, b);
    const Tensor pose = narrow(out.poses, 0, i, 1);
    const auto reconstruct = [&](std::int64_t k) {
      return select(net.decode(pose, one_hot(from_vector<std::int64_t>({k}), classes)), 0, 0);
    };
    const Tensor one = select(pairs.first, 0, i), two = select(pairs.second, 0, i);
    const Tensor ra = reconstruct(a), rb = reconstruct(b);
    seen.push_back(grey(select(pairs.images, 0, i)) * ones({3, 1, 1}));
    apart.push_back(in_two_colours(one, two));
    first.push_back(in_two_colours(ra, zeros_like(rb)));
    second.push_back(in_two_colours(zeros_like(ra), rb));
    together.push_back(in_two_colours(ra, rb));
    const auto caption = [&](std::int64_t row) -> std::string& {
      return captions[static_cast<std::size_t>(row * n + i)];
    };
    const auto found = [&](std::int64_t k) {
      return fmt::format(
          "{} {:.2f}", names[static_cast<std::size_t>(k)],
          scores[at * static_cast<std::size_t>(classes) + static_cast<std::size_t>(k)]);
    };
    caption(1) = fmt::format("{} and {}", names[static_cast<std::size_t>(labels[2 * at])],
                             names[static_cast<std::size_t>(labels[2 * at + 1])]);
    caption(2) = found(a);
    caption(3) = found(b);
  }
  TensorList all;
  for (const TensorList* list : {&seen, &apart, &first, &second, &together})
    all.insert(all.end(), list->begin(), list->end());
  const Tensor images = stack(all);
  return labelled_grid(
      images, {.columns = static_cast<int>(n),
               .scale = scale_to(images, 76),
               .title = "two images in one, and what the capsules of the two largest scores "
                        "reconstruct",
               .rows = {"input", "its two images", "one capsule", "the other", "both"},
               .captions = captions});
}

}  // namespace capsfw::apps
