#include "param_use.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "agreement.hpp"

namespace capsfw::detail {
namespace {

constexpr std::string_view kEinsum = "einsum ";  // and its equation

bool is_einsum(const Node& node) { return node.name().starts_with(kEinsum); }

/// The axes of an einsum's operands and result, as its node is named.
struct Equation {
  explicit Equation(const Node& node) {
    const std::string text = node.name().substr(kEinsum.size());
    const std::size_t comma = text.find(','), arrow = text.find("->");
    operand = {text.substr(0, comma), text.substr(comma + 1, arrow - comma - 1)};
    result = text.substr(arrow + 2);
  }
  std::array<std::string, 2> operand;
  std::string result;
};

Shape with_batch(std::int64_t batch, const Shape& shape) {
  Shape out = shape;
  out.insert(0, batch);
  return out;
}

}  // namespace

Tensor squares(const Tensor& x, std::int64_t n) {
  return sum(square(reshape(x, {n, x.numel() / std::max<std::int64_t>(n, 1)})), {1});
}

bool is_weight(const Node& node, std::size_t i) {
  const std::string& op = node.name();
  const Shape& shape = node.inputs()[i].shape;
  if (op == "matmul") return i == 1 && shape.rank() == 2;
  if (op == "linear" || op == "conv2d" || op == "batch_norm_running") return i >= 1;
  if (routes_product(node)) return i == 1;
  if (is_einsum(node)) {
    const Equation equation(node);
    return equation.operand[i].find(equation.result.substr(0, 1)) == std::string::npos;
  }
  return false;
}

Tensor PerSample::gradient() const {
  if (!use_.samples) refuse();
  const std::string& op = node_.name();
  if ((op == "matmul" || op == "linear") && use_.input == 1 && node_.inputs()[1].shape.rank() == 2)
    return product();
  if (op == "linear" && use_.input == 2 && !use_.view.transposed)
    return sum(by_sample(delta_), {1});
  if (op == "conv2d" && param_.conv != nullptr) return convolution();
  if (routes_product(node_) && use_.input == 1 && !use_.view.transposed) return votes();
  if (is_einsum(node_) && !use_.view.transposed) return contraction();
  if (op == "batch_norm_running" && use_.input < 3 && !use_.view.transposed) return scale();
  if ((op == "add" || op == "sub" || op == "mul") && !use_.view.transposed) return elementwise();
  refuse();
}

std::optional<Tensor> PerSample::square_norms() const {
  if (!use_.samples) return std::nullopt;
  const std::string& op = node_.name();
  const Shape& x = node_.inputs()[0].shape;
  if ((op == "matmul" || op == "linear") && use_.input == 1 && x.rank() == 2 && x[0] == batch_ &&
      node_.inputs()[1].shape.rank() == 2)
    return squares(node_.input(0), batch_) * squares(delta_, batch_);
  if (use_.input == 1 && !use_.view.transposed && owns_children()) {
    const Tensor u = children();
    const std::int64_t i = u.size(1);
    return sum(reshape(squares(u, batch_ * i) * squares(delta_, batch_ * i), {batch_, i}), {1});
  }
  return std::nullopt;
}

void PerSample::refuse() const {
  throw GradError(fmt::format(
      "per_sample: parameter '{}' {} is used by {}, for which the gradient of one sample is not "
      "known here. Hint: param_gradient_penalty_per_sample of a function takes any model, sample "
      "by sample",
      param_.name, param_.value.shape().str(), node_.where()));
}

Tensor PerSample::by_sample(const Tensor& x) const {
  if (x.dim() < 1 || batch_ == 0 || x.size(0) % batch_ != 0) refuse();
  Shape shape = x.shape();
  shape[0] = x.size(0) / batch_;
  return reshape(x, with_batch(batch_, shape));
}

Tensor PerSample::product() const {
  const Tensor x = node_.input(0);
  if (x.dim() < 2) refuse();
  const Tensor xs = by_sample(flatten(x, 0, -2)), ds = by_sample(flatten(delta_, 0, -2));
  const Tensor g = use_.view.transposed != (node_.name() == "linear") ? matmul(transpose(ds), xs)
                                                                      : matmul(transpose(xs), ds);
  return reshape(g, with_batch(batch_, param_.value.shape()));
}

Tensor PerSample::contraction() const {
  const Equation equation(node_);
  std::string mine = equation.operand[0], other = equation.operand[1], result = equation.result;
  if (use_.input == 1) std::swap(mine, other);
  const std::string sample = other.substr(0, 1);
  if (sample.empty() || !result.starts_with(sample) || mine.find(sample) != std::string::npos)
    refuse();
  Tensor x = node_.input(1 - use_.input), d = delta_;
  if (x.size(0) != batch_) {  // several rows of a sample
    std::string free = "a";
    while ((mine + other + result).find(free) != std::string::npos) ++free[0];
    x = by_sample(x), d = by_sample(d);
    other.insert(1, free), result.insert(1, free);
  }
  for (const char axis : mine)  // summed before it met the samples
    if (other.find(axis) == std::string::npos && result.find(axis) == std::string::npos) refuse();
  const Tensor g = einsum(result + "," + other + "->" + sample + mine, d, x);
  return reshape(g, with_batch(batch_, param_.value.shape()));
}

Tensor PerSample::convolution() const {
  if (use_.input == 2) return sum(delta_, {2, 3});
  // Samples as groups of channels: each group has its own weight.
  const Tensor x = node_.input(0);
  ConvOptions options = param_.conv->geometry();
  options.groups *= batch_;
  const Tensor g =
      conv2d_weight(reshape(x, {1, batch_ * x.size(1), x.size(2), x.size(3)}),
                    reshape(delta_, {1, batch_ * delta_.size(1), delta_.size(2), delta_.size(3)}),
                    {param_.value.size(2), param_.value.size(3)}, options);
  return reshape(g, with_batch(batch_, param_.value.shape()));
}

Tensor PerSample::children() const {
  return routes_product(node_) ? children_of(node_) : node_.input(0);
}

bool PerSample::owns_children() const {
  const std::string& op = node_.name();
  const bool full = routes_product(node_)
                        ? node_.inputs()[1].shape.rank() == 4
                        : op == "einsum bie,ijde->bijd" || op == "einsum bie,ime->bim";
  return full && delta_.size(0) == batch_;
}

Tensor PerSample::votes() const {
  const Tensor u = children();
  const bool full = node_.inputs()[1].shape.rank() == 4;
  const Tensor g =
      einsum(full ? "bkijd,bkie->bijde" : "bkijd,bkie->bjde", by_sample(delta_), by_sample(u));
  return reshape(g, with_batch(batch_, param_.value.shape()));
}

Tensor PerSample::scale() const {
  const Tensor x = node_.input(0);
  Tensor g = delta_;
  Shape each = Dims::filled(x.dim(), 1);
  each[1] = x.size(1);
  if (use_.input == 1) g = g * (x - reshape(node_.input(3), each)) * reshape(node_.input(4), each);
  each[0] = batch_;
  if (g.size(0) != batch_) refuse();
  return reshape(sum_to(g, each), {batch_, x.size(1)});
}

Tensor PerSample::elementwise() const {
  const Shape& shape = node_.inputs()[static_cast<std::size_t>(use_.input)].shape;
  Tensor g = delta_;
  if (node_.name() == "mul") g = g * node_.input(1 - use_.input);
  if (node_.name() == "sub" && use_.input == 1) g = neg(g);
  if (g.size(0) != batch_) g = by_sample(g);
  Shape target = Dims::filled(g.dim(), 1);  // `shape` at the end, the batch in front
  if (shape.rank() > g.dim() || (shape.rank() == g.dim() && shape[0] != 1)) refuse();
  for (int i = 1; i <= shape.rank(); ++i) target[g.dim() - i] = shape[shape.rank() - i];
  target[0] = batch_;
  return reshape(sum_to(g, target), with_batch(batch_, param_.value.shape()));
}

}  // namespace capsfw::detail
