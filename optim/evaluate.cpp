#include <capsfw/optim/evaluate.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/optim/progress.hpp>

namespace capsfw {

Score evaluate(ImageClassifier& net,
               const ImageSet& set,
               const BatchLoss& loss,
               const std::string& label,
               Ranks* ranks) {
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  const Tensor labels = set.labels();
  Progress bar(label, set.size(), "images");
  const auto sums_of = [&](std::int64_t turn) {
    const std::int64_t begin = turn * kEvaluationBatch,
                       n = std::min(kEvaluationBatch, set.size() - begin);
    const Batch batch{set.images(begin, begin + n), narrow(labels, 0, begin, n)};
    const ClassifierOutput out = net(batch.images);
    bar.update(begin + n);
    const auto samples = static_cast<double>(n);
    return from_vector<double>({samples, samples * loss(out, batch).item(),
                                samples * accuracy(out.lengths, batch.labels)});
  };
  Score sum;
  double done = 0;
  const std::int64_t turns = (set.size() + kEvaluationBatch - 1) / kEvaluationBatch;
  for (const Tensor& t : in_turns(ranks, turns, sums_of)) {
    const auto v = t.to_vector<double>();
    done += v[0];
    sum.loss += v[1];
    sum.accuracy += v[2];
  }
  if (!std::isfinite(sum.loss))
    throw ValueError(
        fmt::format("{}: the loss is {}. Hint: a smaller --lr, or --clip 1", label, sum.loss));
  const double n = std::max(done, 1.0);
  return {sum.loss / n, sum.accuracy / n};
}

}  // namespace capsfw
