#pragma once
// Private: what one op adds to the gradients of single samples.

#include <cstdint>
#include <optional>
#include <string>

#include <capsfw/core/node.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/layers/conv.hpp>

namespace capsfw::detail {

/// A parameter, as it is or under another shape.
struct View {
  std::size_t param = 0;
  bool transposed = false;
};

/// An op that reads a parameter.
struct Use {
  const Node* node = nullptr;
  int input = 0;
  View view = {};
  bool samples = false;  // the op's result has the samples in front
};

/// What there is to say about a parameter.
struct Param {
  std::string name;
  Tensor value;
  const Conv2d* conv = nullptr;  // that it is a weight or bias of
};

/// Squared lengths of rows [n, ...] -> [n].
Tensor squares(const Tensor& x, std::int64_t n);

/// Whether all samples share input `i` of an op whose result has them in front: it is a weight, and
/// rows of what makes a weight of parameters (`v * g`, `a b`) are no samples, however many there
/// are.
bool is_weight(const Node& node, std::size_t i);

/// Computes gradients of one use from the gradient `delta` of the op's result.
class PerSample {
 public:
  PerSample(std::int64_t batch, const Param& param, const Use& use, const Tensor& delta)
      : batch_(batch), param_(param), use_(use), node_(*use.node), delta_(delta) {}

  /// ∇_p f_b [B, p.shape...]. GradError, which names parameter and op, where it is not known.
  Tensor gradient() const;
  /// ‖∇_p f_b‖² [B] where it can be had without the gradient itself.
  std::optional<Tensor> square_norms() const;

 private:
  [[noreturn]] void refuse() const;
  /// [rows, ...] as [B, rows / B, ...]: samples are the slowest axis.
  Tensor by_sample(const Tensor& x) const;
  Tensor children() const;
  /// Votes with a weight for each child: W [I, ...] (votes_full, or the lower part of
  /// votes_factorised), one row for each sample.
  bool owns_children() const;

  Tensor product() const;  ///< of y = x wᵀ or x w
  /// Of an einsum whose other operand and whose result have the samples in front.
  Tensor contraction() const;
  Tensor convolution() const;
  /// Of votes that the op does not store: `delta` is their gradient [B, I, J, D].
  Tensor votes() const;
  /// Of gamma (input 1) or beta (2) of a batch norm with running statistics.
  Tensor scale() const;
  Tensor elementwise() const;

  std::int64_t batch_;
  const Param& param_;
  const Use& use_;
  const Node& node_;
  const Tensor& delta_;
};

}  // namespace capsfw::detail
