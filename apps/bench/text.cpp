// Capsules for text, Zhao et al. 2018, as the authors' code has them: n-gram convolution of stride
// 2 over frozen embeddings, 16 primary capsules of size 16 at every position, convolutional
// capsules with a window of 3, dense capsules with shared weights. Model A has n = 3, model B the
// mean of n = 3, 4, 5.

#include "families.hpp"

namespace capsfw::bench {
namespace {

constexpr std::int64_t kWords = 20'000, kWordSize = 300;

class Branch : public Module {
 public:
  Branch(std::int64_t n, std::int64_t classes, Rng& rng) : primary_(32, 256, rng) {
    grams_ = param("grams", rng.normal({32, kWordSize, 1, n}, 0, 0.05));
    bias_ = param("bias", zeros({32}));
    child("primary", primary_);
    window_ = param("window", rng.normal({16, 16, 16}, 0, 0.1));
    classes_ = param("classes", rng.normal({classes, 16, 16}, 0, 0.1));
  }

  /// Words [B, 300, 1, L] -> class capsules [B, classes, 16].
  Tensor operator()(const Tensor& words) {
    const std::int64_t b = words.size(0);
    const Tensor grams = relu(conv2d(words, grams_, bias_, {.stride = {1, 2}}));  // [B, 32, 1, P]
    const Tensor at = primary_(transpose(squeeze(grams, 2)));                     // [B, P, 256]
    const Tensor u = squash(reshape(at, {b, at.size(1), 16, 16}), 0.5);
    const Tensor v =
        conv_caps_dynamic(permute(u, {0, 2, 1, 3}), window_, {.kernel = {3}}, routing_);
    const Tensor flat = reshape(permute(v, {0, 2, 1, 3}), {b, v.size(1) * v.size(2), 16});
    return dynamic_routing(votes_shared(flat, classes_), routing_).poses;
  }

 private:
  DynamicRoutingOptions routing_{.iterations = 3, .squash_c = 0.5};
  Linear primary_;
  Tensor grams_, bias_, window_, classes_;
};

class TextNet : public Module {
 public:
  TextNet(const std::vector<std::int64_t>& sizes, std::int64_t classes, Rng& rng) {
    words_ = buffer("words", randn({kWords, kWordSize}, rng));  // not trained
    for (const std::int64_t n : sizes) {
      branches_.push_back(std::make_unique<Branch>(n, classes, rng));
      child("grams" + std::to_string(n), *branches_.back());
    }
  }

  /// Ids [B, L] -> lengths [B, classes].
  Tensor operator()(const Tensor& ids) {
    const Tensor words = unsqueeze(contiguous(transpose(embedding(words_, ids))), 2);
    Tensor poses;
    for (const auto& branch : branches_)
      poses = poses.defined() ? poses + (*branch)(words) : (*branch)(words);
    return lengths(poses / static_cast<double>(branches_.size()));
  }

 private:
  Tensor words_;
  std::vector<std::unique_ptr<Branch>> branches_;
};

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
  const auto net = std::make_shared<TextNet>(sizes, classes, rng);
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
      return margin_loss((*net)(ids), targets, {.lambda = 0.25});
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
