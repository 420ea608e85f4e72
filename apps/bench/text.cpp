// Capsules for text, Zhao et al. 2018, as the authors' code has them: n-gram convolution of stride
// 2 over frozen embeddings, 16 primary capsules of size 16 at every position, convolutional
// capsules with a window of 3, dense capsules with shared weights. Model A has n = 3, model B the
// mean of n = 3, 4, 5.

#include <capsfw/layers/text_capsules.hpp>

#include "families.hpp"

namespace capsfw::bench {
namespace {

constexpr std::int64_t kWords = 20'000, kWordSize = 300;

/// Of one text and one branch, forward. The window shares its transformation: once per position.
double flops(std::int64_t length, std::int64_t n, std::int64_t classes, bool train) {
  const std::int64_t p = (length - n) / 2 + 1, q = p - 2;
  const double grams = 2.0 * static_cast<double>(p * 32 * kWordSize * n),
               rest =
                   2.0 * static_cast<double>(p * (32 * 256 + 256 * 256) + q * 256 * classes * 16) +
                   static_cast<double>(q) * routing_flops(48, 16, 16, 3) +
                   routing_flops(q * 16, classes, 16, 3);
  return train ? 2 * grams + 3 * rest : grams + rest;
}

}  // namespace

Work make_text(Spec& spec) {
  const bool train = spec.word("mode", {"train", "infer"}) == "train",
             one = spec.word("model", {"A", "B"}) == "A";
  const std::int64_t b = spec.integer("B", 25), length = spec.integer("L", 50, 9),
                     classes = spec.integer("classes", 9);
  spec.finish();
  Rng rng(1);
  const std::vector<std::int64_t> sizes =
      one ? std::vector<std::int64_t>{3} : std::vector<std::int64_t>{3, 4, 5};
  const DynamicRoutingOptions routing{.iterations = 3, .squash_c = 0.5};
  const TextCapsNetOptions options{
      .ngrams = sizes, .stride = 2, .types = 16, .squash_c = 0.5, .routing = routing};
  const auto net =
      std::make_shared<TextCapsNet>(randn({kWords, kWordSize}, rng), classes, options, rng);
  const Tensor ids = rng.integers({b, length}, kWords),
               targets = one_hot(rng.integers({b}, classes), classes);
  Work work;
  work.items = static_cast<double>(b);
  for (const std::int64_t n : sizes) work.flops += work.items * flops(length, n, classes, train);
  work.parameters = net->parameter_count();
  const double words = 4.0 * static_cast<double>(b * length * kWordSize);
  if (train) {
    work.bytes = adam_bytes(work.parameters) + words;
    work.step = training_step(net, {.lr = 1e-3}, [net, ids, targets] {
      return margin_loss((*net)(ids).lengths, targets, {.lambda = 0.25});
    });
  } else {
    net->eval();
    work.bytes = 4.0 * static_cast<double>(work.parameters) + words;
    work.step = [net, ids] {
      const NoGradGuard no_grad;
      (*net)(ids);
    };
  }
  return work;
}

}  // namespace capsfw::bench
