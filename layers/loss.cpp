#include <capsfw/layers/loss.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/classes.hpp"

namespace capsfw {
namespace {

void check_same(const Tensor& x, const Tensor& y, std::string_view who) {
  if (x.shape() != y.shape())
    throw ShapeError(fmt::format("{}: shapes must be equal; got {} and {}", who, x.shape().str(),
                                 y.shape().str()));
}

void check_labels(const Tensor& scores, const Tensor& labels, std::string_view who) {
  if (scores.dim() != 2 || labels.dim() != 1 || labels.size(0) != scores.size(0) ||
      labels.dtype() != DType::i64)
    throw ShapeError(fmt::format("{}: scores [B, J] and labels i64 [B]; got {} and {} {}", who,
                                 scores.shape().str(), name_of(labels.dtype()),
                                 labels.shape().str()));
}

/// scores[b, labels[b]] as [B, 1].
Tensor at_label(const Tensor& scores, const Tensor& labels) {
  return gather(scores, 1, unsqueeze(labels, 1));
}

Tensor squared_error_per_sample(const Tensor& x, const Tensor& y, std::string_view who) {
  check_same(x, y, who);
  if (x.dim() == 0) throw ShapeError(fmt::format("{}: takes a batch [B, ...]; got a number", who));
  const Tensor d = square(x - y);
  return x.dim() == 1 ? d : sum(flatten(d, 1), {1});
}

/// w x, 0 where w is 0 and x infinite.
Tensor weighted(const Tensor& w, const Tensor& x) {
  const Tensor y = w * x;
  return any(eq(x.detach(), INFINITY)) ? where(eq(w.detach(), 0.0), 0.0, y) : y;
}

}  // namespace

Tensor margin_loss_per_sample(const Tensor& lengths,
                              const Tensor& targets,
                              const MarginOptions& o) {
  check_same(lengths, targets, "margin_loss");
  if (lengths.dim() != 2)
    throw ShapeError(
        fmt::format("margin_loss: lengths must be [B, J]; got {}", lengths.shape().str()));
  const Tensor present = square(relu(o.positive - lengths)),
               absent = square(relu(lengths - o.negative));
  return sum(weighted(targets, present) + weighted(1.0 - targets, absent) * o.lambda, {1});
}

Tensor margin_loss(const Tensor& lengths, const Tensor& targets, const MarginOptions& options) {
  return mean(margin_loss_per_sample(lengths, targets, options));
}

Tensor spread_loss_per_sample(const Tensor& activations, const Tensor& labels, double margin) {
  check_labels(activations, labels, "spread_loss");
  const Tensor wrong = 1.0 - one_hot(labels, activations.size(1), activations.dtype());
  return sum(wrong * square(relu(margin - (at_label(activations, labels) - activations))), {1});
}

Tensor spread_loss(const Tensor& activations, const Tensor& labels, double margin) {
  return mean(spread_loss_per_sample(activations, labels, margin));
}

double spread_margin_linear(double step, double total, double low, double high) {
  if (!(total > 0))
    throw ValueError(fmt::format("spread_margin_linear: total must be positive; got {}", total));
  return low + (high - low) * std::clamp(step / total, 0.0, 1.0);
}

double spread_margin_sigmoid(double step) {
  return 0.2 + 0.79 / (1 + std::exp(-std::min(10.0, step / 50000.0 - 4.0)));
}

Tensor cross_entropy(const Tensor& logits, const Tensor& labels) {
  return mean(cross_entropy_per_sample(logits, labels));
}

Tensor cross_entropy_per_sample(const Tensor& logits, const Tensor& labels) {
  check_labels(logits, labels, "cross_entropy");
  return logsumexp(logits, {1}) - squeeze(at_label(logits, labels), 1);
}

Tensor binary_cross_entropy_with_logits(const Tensor& logits, const Tensor& targets) {
  check_same(logits, targets, "binary_cross_entropy_with_logits");
  return mean(softplus(logits) - logits * targets);
}

Tensor sum_squared_error(const Tensor& x, const Tensor& y) {
  return mean(squared_error_per_sample(x, y, "sum_squared_error"));
}

Tensor mse_loss(const Tensor& x, const Tensor& y) {
  check_same(x, y, "mse_loss");
  return mean(square(x - y));
}

Tensor reconstruction_loss(const Tensor& x, const Tensor& reconstruction, double weight) {
  return mean(squared_error_per_sample(x, reconstruction, "reconstruction_loss")) * weight;
}

double accuracy(const Tensor& scores, const Tensor& labels) {
  check_labels(scores, labels, "accuracy");
  detail::check_classes(labels, scores.size(1), "accuracy");
  const Tensor s = scores.detach();
  Tensor hit = eq(argmax(s, 1), labels);
  if (is_floating(s.dtype())) hit = logical_and(hit, logical_not(isnan(max(s, {1}))));
  return mean(to(hit, DType::f64)).item();
}

TwoDigitAccuracy two_digit_accuracy(const Tensor& scores, const Tensor& pairs, double threshold) {
  const char* who = "two_digit_accuracy";
  if (scores.dim() != 2 || scores.size(1) < 2 || pairs.dtype() != DType::i64 ||
      pairs.shape() != Shape{scores.size(0), 2})
    throw ShapeError(
        fmt::format("{}: scores [n, J] with J >= 2 and pairs i64 [n, 2]; got {} and {} {}", who,
                    scores.shape().str(), name_of(pairs.dtype()), pairs.shape().str()));
  detail::check_classes(pairs, scores.size(1), who);
  const Tensor a = narrow(pairs, 1, 0, 1), b = narrow(pairs, 1, 1, 1);
  if (any(eq(a, b)))
    throw ValueError(fmt::format("{}: the two classes of a pair must be different", who));
  const Sorted top = topk(scores.detach(), 2);
  const Tensor first = narrow(top.indices, 1, 0, 1), second = narrow(top.indices, 1, 1, 1);
  const Tensor found = logical_or(logical_and(eq(first, a), eq(second, b)),
                                  logical_and(eq(first, b), eq(second, a)));
  const Tensor hit = logical_and(found, logical_not(isnan(narrow(top.values, 1, 0, 1))));
  const Tensor sure = logical_and(hit, gt(narrow(top.values, 1, 1, 1), threshold));
  return {.exact = mean(to(hit, DType::f64)).item(),
          .confident = mean(to(sure, DType::f64)).item()};
}

}  // namespace capsfw
