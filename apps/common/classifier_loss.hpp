#pragma once
// Which scores and which loss go with which network, for programs that take any.

#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/optim/evaluate.hpp>

namespace capsfw::apps {

/// Class scores [B, J] whose largest is the answer: logits where there are any, which stay apart
/// where their sigmoids round to 1; else lengths.
Tensor class_scores(const ClassifierOutput& out);

/// The loss of each sample [B] that the network is usually trained with, for labels i64 [B]: cross
/// entropy of logits, spread loss with its last margin 0.9 for matrix capsules, else margin loss.
Tensor sample_losses(const ImageClassifier& net, const ClassifierOutput& out, const Tensor& labels);
/// The same of images, without decoding any.
Tensor sample_losses(ImageClassifier& net, const Tensor& images, const Tensor& labels);

}  // namespace capsfw::apps
