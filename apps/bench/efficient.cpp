// Efficient-CapsNet, Mazzia, Salvetti, Chiaberge 2021: four small convolutions, one depthwise
// convolution to the primary capsules, and one step of self-attention in place of a routing loop.

#include "families.hpp"

namespace capsfw::bench {
namespace {

class EfficientNet : public Module {
 public:
  explicit EfficientNet(Rng& rng)
      : primary_(16, 8, {9, 9}, rng), decoder_(160, {512, 1024}, 784, rng) {
    constexpr struct {
      std::int64_t in, out, kernel, stride;
    } stages[] = {{1, 32, 5, 1}, {32, 64, 3, 1}, {64, 64, 3, 1}, {64, 128, 3, 2}};
    for (const auto& s : stages) {
      features_.add<Conv2d>(s.in, s.out, s.kernel, rng, Conv2dOptions{.stride = s.stride});
      features_.add<BatchNorm2d>(s.out,
                                 NormOptions{.eps = 1e-3, .momentum = 0.01, .relu_first = true});
    }
    child("features", features_);
    child("primary", primary_);
    child("decoder", decoder_);
    weight_ = param("weight", rng.normal({16, 10, 16, 8}, 0, 0.1));
    log_prior_ = param("log_prior", zeros({16, 10}));
  }

  CapsNetOutput operator()(const Tensor& x, const Tensor& targets) {
    const Tensor votes = votes_full(primary_(features_(x)), weight_);  // [B, I, J, D]
    // Σ_k ⟨û_i, û_k⟩ / √D = ⟨û_i, Σ_k û_k⟩ / √D.
    const Tensor attention = agreement(votes, sum(votes, {1})) * 0.25;
    CapsNetOutput out;
    out.poses = squash_exp(weighted_sum(softmax(attention, 2) + log_prior_, votes));
    out.lengths = lengths(out.poses);
    out.reconstruction = reshape(decoder_(mask_poses_by(out.poses, targets)), x.shape());
    return out;
  }

 private:
  Sequential features_;
  DepthwisePrimaryCapsules primary_;
  Decoder decoder_;
  Tensor weight_, log_prior_;
};

/// Per image, without the data gradient of the first layer.
double flops(bool train) {
  const double first = 2.0 * 24 * 24 * 32 * 25,
               rest = 2.0 * (22 * 22 * 64 * 32 * 9 + 20 * 20 * 64 * 64 * 9 + 9 * 9 * 128 * 64 * 9 +
                             128 * 81 + 16 * 8 * 160 + 160 * 512 + 512 * 1024 + 1024 * 784);
  return train ? 2 * first + 3 * rest : first + rest;
}

}  // namespace

Work make_efficient(Spec& spec) {
  const bool train = spec.word("mode", {"train", "infer"}) == "train";
  const std::int64_t b = spec.integer("B", 16);
  spec.finish();
  Rng rng(1);
  const auto net = std::make_shared<EfficientNet>(rng);
  const Batch batch = make_batch(b);
  Work work;
  work.items = static_cast<double>(b);
  work.flops = work.items * flops(train);
  work.parameters = net->parameter_count();
  const double images = 4.0 * static_cast<double>(batch.images.numel());
  if (train) {
    work.bytes = adam_bytes(work.parameters) + images;
    work.step = training_step(net, {.lr = 5e-4}, [net, batch] {
      const CapsNetOutput out = (*net)(batch.images, batch.targets);
      return margin_loss(out.lengths, batch.targets) +
             0.392 * mse_loss(batch.images, out.reconstruction);
    });
  } else {
    net->eval();
    work.bytes = 4.0 * static_cast<double>(work.parameters) + images;
    work.step = [net, batch] {
      const NoGradGuard no_grad;
      (*net)(batch.images, batch.targets);
    };
  }
  return work;
}

}  // namespace capsfw::bench
