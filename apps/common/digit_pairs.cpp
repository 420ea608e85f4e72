#include "common/digit_pairs.hpp"

#include <algorithm>

#include <capsfw/core/grad.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/progress.hpp>

namespace capsfw::apps {

TwoDigitAccuracy score_pairs(ImageClassifier& net,
                             const DigitPairs& pairs,
                             const std::string& label) {
  constexpr std::int64_t kBatch = 128;
  const NoGradGuard no_grad;
  const bool was_training = net.training();
  net.eval();
  Progress bar(label, pairs.size(), "pairs");
  TensorList scores;
  std::int64_t done = 0;
  while (done < pairs.size() && !interrupted()) {
    const std::int64_t end = std::min(done + kBatch, pairs.size());
    scores.push_back(net(pairs.images(done, end), {}, false).lengths);
    bar.update(done = end);
  }
  net.train(was_training);
  if (scores.empty()) return {};
  return two_digit_accuracy(cat(scores), pairs.labels(0, done));
}

}  // namespace capsfw::apps
