#pragma once
// Losses. Reduction: sum over classes or pixels, mean over the batch, unless stated. T are targets.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Options of margin_loss.
struct MarginOptions {
  double positive = 0.9;  ///< m⁺
  double negative = 0.1;  ///< m⁻
  double lambda = 0.5;    ///< weight of absent classes; text models use 0.25
};

/// mean_b Σ_k T_k max(0, m⁺ − ‖v_k‖)² + λ (1 − T_k) max(0, ‖v_k‖ − m⁻)²: lengths [B, J], T [B, J]
/// in {0, 1}, several ones allowed. No softmax on the lengths.   Sabour, Frosst, Hinton 2017, eq
/// (4).   ShapeError unless they agree.
Tensor margin_loss(const Tensor& lengths, const Tensor& targets, const MarginOptions& options = {});
/// The same for each sample: [B].
Tensor margin_loss_per_sample(const Tensor& lengths,
                              const Tensor& targets,
                              const MarginOptions& options = {});

/// mean_b Σ_{i≠t} max(0, m − (a_t − a_i))²: activations [B, J], labels i64 [B].
/// Hinton, Sabour, Frosst 2018, eq (3).
Tensor spread_loss(const Tensor& activations, const Tensor& labels, double margin);
/// The same for each sample: [B].
Tensor spread_loss_per_sample(const Tensor& activations, const Tensor& labels, double margin);
/// The margin of spread_loss at a training step: from `low` to `high`, linear in step / total, then
/// constant. Hinton, Sabour, Frosst 2018, section 4.1.   ValueError unless total is positive.
double spread_margin_linear(double step, double total, double low = 0.2, double high = 0.9);
/// 0.2 + 0.79 sigmoid(min(10, step/50000 − 4)): the authors' answer in the open review.
double spread_margin_sigmoid(double step);

/// mean_b (logsumexp(z_b) − z_{b, t_b}): logits [B, J], labels i64 [B].
Tensor cross_entropy(const Tensor& logits, const Tensor& labels);
/// The same for each sample: [B].
Tensor cross_entropy_per_sample(const Tensor& logits, const Tensor& labels);
/// Mean over all elements of max(z, 0) − z T + ln(1 + e^(−|z|)): logits and targets of one shape.
Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& targets);
/// mean_b Σ_pixels (x − y)²: [B, ...].
Tensor sum_squared_error(const Tensor& x, const Tensor& y);
/// Mean over all elements of (x − y)².
Tensor mse_loss(const Tensor& x, const Tensor& y);
/// weight · sum_squared_error(x, reconstruction). Sabour et al. 2017, section 4.1, take 0.0005 per
/// image; over the mean squared error of an image of n elements the same weight reads 0.0005 n:
/// 0.392 at 784 pixels.
Tensor reconstruction_loss(const Tensor& x, const Tensor& reconstruction, double weight = 0.0005);

/// Share of rows of scores [B, J] whose largest entry is at labels [B], i64; of equal scores the
/// first counts as larger. A row with a NaN is a miss; NaN for no rows. topk_accuracy with k = 1.
/// ShapeError unless they fit; ValueError for a class out of range.
double accuracy(const Tensor& scores, const Tensor& labels);

/// What two_digit_accuracy returns.
struct TwoDigitAccuracy {
  double exact = 0;      ///< share of rows whose two largest scores are the pair
  double confident = 0;  ///< the same, with the second largest score above the threshold as well
};

/// How often the two largest of scores [n, J] are the two classes of a pair, as a set: pairs i64
/// [n, 2] of different classes. Of equal scores the first counts as larger; a row with a NaN is a
/// miss; NaN for no rows. No gradient.   ShapeError unless they fit and J ≥ 2; ValueError for a
/// pair of equal classes or one out of range.   Su 2018, From K-Means to Capsule, experiments.
TwoDigitAccuracy two_digit_accuracy(const Tensor& scores,
                                    const Tensor& pairs,
                                    double threshold = 0.5);

}  // namespace capsfw
