#include <capsfw/optim/evaluate.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/optim/interrupt.hpp>
#include <capsfw/optim/progress.hpp>

namespace capsfw {

namespace {

/// The batches of one rank: every size-th one.
ImageSet turn_of(const ImageSet& set, const Ranks& ranks) {
  std::vector<std::int64_t> positions;
  for (std::int64_t i = 0; i < set.size(); ++i)
    if (i / kEvaluationBatch % ranks.size() == ranks.rank()) positions.push_back(i);
  return set.subset(positions);
}

}  // namespace

Score evaluate(ImageClassifier& net,
               const ImageSet& set,
               const BatchLoss& loss,
               const std::string& label,
               Ranks* ranks) {
  const NoGradGuard no_grad;
  const ModeGuard mode(net);
  net.eval();
  const ImageSet mine = ranks != nullptr ? turn_of(set, *ranks) : set;
  Progress bar(label, mine.size(), "images");
  TensorList sums;  // of each batch: samples, loss, accuracy
  if (mine.size() > 0) {
    DataLoader loader(mine, {.batch_size = kEvaluationBatch});
    std::int64_t done = 0;
    for (const Batch& b : loader) {
      // Of several ranks one may leave by itself, since all meet behind the loop.
      if (ranks != nullptr ? interrupt_pending() : interrupted()) break;
      if (ranks != nullptr) ranks->progress();
      const ClassifierOutput out = net(b.images);
      const auto n = static_cast<double>(b.size());
      sums.push_back(
          from_vector<double>({n, n * loss(out, b).item(), n * accuracy(out.lengths, b.labels)}));
      bar.update(done += b.size());
    }
  }
  if (ranks != nullptr) sums = gather_turns(*ranks, sums);
  Score sum;
  double done = 0;
  for (const Tensor& t : sums) {
    const auto v = t.to_vector<double>();
    done += v[0];
    sum.loss += v[1];
    sum.accuracy += v[2];
  }
  if (!std::isfinite(sum.loss))
    throw ValueError(
        fmt::format("{}: the loss is {}. Hint: a smaller --lr, or --clip 1", label, sum.loss));
  // Another rank has been interrupted: so are all.
  if (done < static_cast<double>(set.size())) request_interrupt();
  const double n = std::max(done, 1.0);
  return {sum.loss / n, sum.accuracy / n};
}

}  // namespace capsfw
