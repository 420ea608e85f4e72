#include "common/digit_pairs.hpp"

#include <algorithm>
#include <vector>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/train/interrupt.hpp>
#include <capsfw/train/progress.hpp>

namespace capsfw::apps {

DigitPairs::DigitPairs(const ImageSet& set, bool horizontal, std::uint64_t seed)
    : horizontal_(horizontal) {
  Rng rng(seed);
  const auto order = rng.permutation(set.size()).to_vector<std::int64_t>();
  std::vector<std::int64_t> first, second;
  for (std::int64_t i = 0; i < set.size(); ++i) {
    const std::int64_t j = order[static_cast<std::size_t>(i)];
    if (set.label(i) == set.label(j)) continue;
    first.push_back(i);
    second.push_back(j);
  }
  first_ = set.subset(first);
  second_ = set.subset(second);
}

Tensor DigitPairs::images(std::int64_t begin, std::int64_t end) const {
  return cat({first_.images(begin, end), second_.images(begin, end)}, horizontal_ ? 3 : 2);
}

Tensor DigitPairs::labels(std::int64_t begin, std::int64_t end) const {
  return stack({first_.range(begin, end).labels(), second_.range(begin, end).labels()}, 1);
}

TwoDigitAccuracy DigitPairs::score(ImageClassifier& net, const std::string& label) const {
  constexpr std::int64_t kBatch = 128;
  const NoGradGuard no_grad;
  const bool was_training = net.training();
  net.eval();
  Progress bar(label, size(), "pairs");
  TensorList scores;
  std::int64_t done = 0;
  while (done < size() && !interrupted()) {
    const std::int64_t end = std::min(done + kBatch, size());
    scores.push_back(net(images(done, end), {}, false).lengths);
    bar.update(done = end);
  }
  net.train(was_training);
  if (scores.empty()) return {};
  return two_digit_accuracy(cat(scores), labels(0, done));
}

}  // namespace capsfw::apps
