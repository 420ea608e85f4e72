#include <capsfw/layers/mlp_net.hpp>

#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

std::vector<std::int64_t> sizes(const MlpNetOptions& o) {
  std::vector<std::int64_t> all{o.image.numel()};
  all.insert(all.end(), o.hidden.begin(), o.hidden.end());
  all.push_back(o.classes);
  return all;
}

}  // namespace

MlpNet::MlpNet(const MlpNetOptions& options, Rng& rng)
    : ImageClassifier("MlpNet", options.image, options.classes),
      options_(options),
      mlp_(sizes(options), rng, {.activation = options.activation}) {
  child("mlp", mlp_);
}

ClassifierOutput MlpNet::classify(const Tensor& x, const Tensor& /*labels*/, bool /*decode*/) {
  const Tensor logits = mlp_(x);
  return {.lengths = sigmoid(logits), .logits = logits};
}

}  // namespace capsfw
