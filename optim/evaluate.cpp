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

Score evaluate(ImageClassifier& net,
               const ImageSet& set,
               const BatchLoss& loss,
               const std::string& label) {
  const NoGradGuard no_grad;
  const bool was_training = net.training();
  net.eval();
  DataLoader loader(set, {.batch_size = 256});
  Progress bar(label, set.size(), "images");
  Score sum;
  std::int64_t done = 0;
  for (const Batch& b : loader) {
    if (interrupted()) break;
    const ClassifierOutput out = net(b.images);
    const auto n = static_cast<double>(b.size());
    sum.loss += n * loss(out, b).item();
    sum.accuracy += n * accuracy(out.lengths, b.labels);
    bar.update(done += b.size());
  }
  net.train(was_training);
  if (!std::isfinite(sum.loss))
    throw ValueError(
        fmt::format("{}: the loss is {}. Hint: a smaller --lr, or --clip 1", label, sum.loss));
  const auto n = static_cast<double>(std::max<std::int64_t>(done, 1));
  return {sum.loss / n, sum.accuracy / n};
}

}  // namespace capsfw
