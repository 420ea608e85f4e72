#include "common/classifier_loss.hpp"

#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/ops/index.hpp>

namespace capsfw::apps {

Tensor class_scores(const ClassifierOutput& out) {
  return out.logits.defined() ? out.logits : out.lengths;
}

Tensor sample_losses(const ImageClassifier& net,
                     const ClassifierOutput& out,
                     const Tensor& labels) {
  if (out.logits.defined()) return cross_entropy_per_sample(out.logits, labels);
  if (dynamic_cast<const MatrixCapsNet*>(&net) != nullptr)
    return spread_loss_per_sample(out.lengths, labels, 0.9);
  return margin_loss_per_sample(out.lengths, one_hot(labels, net.classes(), out.lengths.dtype()));
}

Tensor sample_losses(ImageClassifier& net, const Tensor& images, const Tensor& labels) {
  return sample_losses(net, net(images, {}, false), labels);
}

}  // namespace capsfw::apps
