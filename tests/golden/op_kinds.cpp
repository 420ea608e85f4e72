#include <cmath>

#include <capsfw/layers/basic.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/linalg.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/pool.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "kinds.hpp"

namespace capsfw::golden {
namespace {

Named matmul_transposed(Case& c) {
  return {{"at_b", matmul(transpose(c["a"]), c["b"])}, {"c_dt", matmul(c["c"], transpose(c["d"]))}};
}

Named matvec_and_outer(Case& c) {
  return {{"mv", matmul(c["a"], c["x"])}, {"outer", unsqueeze(c["x"], 1) * unsqueeze(c["y"], 0)}};
}

Named convolve(Case& c) {
  return {{"y", conv2d(c["x"], c["w"], c["b"],
                       {.stride = c.dims("stride"), .padding = c.dims("padding")})}};
}

Named logsumexp_minus_inf(Case& c) {
  const Tensor x = masked_fill(c["x"], eq(c["mask"], 1.0), -INFINITY);
  return {{"lse", logsumexp(x, {-1})}, {"p", softmax(x)}};
}

Named norms(Case& c) {
  const Tensor x = c["x"];
  return {{"l2", norm(x, {-1})},
          {"fro", norm(x)},
          {"sq", sum(square(x), {-1})},
          {"l1", norm1(x, {-1})}};
}

Named elementwise(Case& c) {
  const Tensor x = c["x"];
  return {{"exp", exp(x)},
          {"tanh", tanh(x)},
          {"sigmoid", sigmoid(x)},
          {"softplus", softplus(x)},
          {"logsigmoid", logsigmoid(x)},
          {"square", square(x)},
          {"cube", pow(x, 3.0)},
          {"neg", -x},
          {"atan", atan(x)}};
}

Named elementwise_positive(Case& c) {
  const Tensor x = c["x"];
  return {{"log", log(x)},
          {"sqrt", sqrt(x)},
          {"rsqrt", rsqrt(x)},
          {"reciprocal", reciprocal(x)},
          {"pow", pow(x, c.number("exponent"))}};
}

Named saturated(Case& c) {
  const Tensor x = c["x"];
  return {{"sigmoid", sigmoid(x)},
          {"softplus", softplus(x)},
          {"logsigmoid", logsigmoid(x)},
          {"tanh", tanh(x)}};
}

Named broadcast_arithmetic(Case& c) {
  const Tensor a = c["a"], b = c["b"];
  return {{"add", a + b},
          {"sub", a - c["c"]},
          {"mul", b * c["c"]},
          {"div", a / (1.0 + b * b)},
          {"scalar", a * c["s"]}};
}

Named reductions(Case& c) {
  const Tensor x = c["x"];
  return {{"sum", sum(x)},
          {"sum1", sum(x, {1})},
          {"mean02", mean(x, {0, 2})},
          {"keep", sum(square(x), {-1}, true)},
          {"var", var(x, {1}, 0)},
          {"prod", prod(x, 2)}};
}

Named shape_ops(Case& c) {
  const Tensor x = c["x"], y = c["y"];
  return {{"permute", square(permute(x, {2, 0, 1}))},
          {"reshape", reshape(x, {-1, 4}) * 2.0},
          {"slice", square(slice(slice(x, 1, 1, x.size(1)), 2, 0, x.size(2), 2))},
          {"cat", square(cat({x, y}, 1))},
          {"stack", stack({select(x, 1, 0), select(y, 1, 0)}, 1)},
          {"pad", square(pad(x, {1, 2, 0, 1}))},
          {"expand", broadcast_to(narrow(x, 1, 0, 1), x.shape()) * x}};
}

Named einsum_routing(Case& c) {
  return {{"s", einsum("bij,bijd->bjd", c["c"], c["u"])},
          {"b", einsum("bijd,bjd->bij", c["u"], c["v"])}};
}

Named cholesky_logdet(Case& c) {
  const Tensor s = c["S"];
  const std::int64_t n = s.size(0);
  const Tensor a = matmul(s, transpose(s)) + eye(n, s.dtype()) * static_cast<double>(n);
  const Tensor l = cholesky(a), w = triangular_solve(l, unsqueeze(c["x"], 1));
  return {{"logdet", 2.0 * sum(log(diagonal(l)))}, {"quad", sum(square(w))}};
}

Named batch_norm_layer(Case& c, bool training) {
  BatchNorm2d layer(c["gamma"].numel(),
                    {.eps = c.number("eps"), .momentum = c.number("momentum", 0.1)});
  c.load(layer,
         {{"weight", "gamma"}, {"bias", "beta"}, {"running_mean", "rm"}, {"running_var", "rv"}});
  layer.train(training);
  Named out = {{"y", layer(c["x"])}};
  for (const auto& [name, statistic] : layer.named_buffers()) out[name] = statistic;
  return out;
}

Named layer_norm_layer(Case& c) {
  LayerNorm layer(c["gamma"].numel(), {.eps = c.number("eps")});
  c.load(layer, {{"weight", "gamma"}, {"bias", "beta"}});
  return {{"y", layer(c["x"])}};
}

/// Cases with the one output y.
template <auto F>
Named y(Case& c) {
  return {{"y", F(c)}};
}
int axis(const Case& c) { return c.integer("dim"); }

const Kind kKinds[] = {
    {"ops.matmul", y<[](Case& c) { return matmul(c["a"], c["b"]); }>},
    {"ops.matmul_transposed", matmul_transposed},
    {"ops.matvec_and_outer", matvec_and_outer},
    {"ops.bmm*", y<[](Case& c) { return matmul(c["a"], c["b"]); }>},
    {"ops.linear", y<[](Case& c) { return linear(c["x"], c["W"], c["b"]); }>},
    {"ops.conv2d_*", convolve},
    {"ops.max_pool2d*", y<[](Case& c) {
       return max_pool2d(c["x"], {2, 2});
     }>},
    {"ops.avg_pool2d", y<[](Case& c) {
       return avg_pool2d(c["x"], {2, 2});
     }>},
    {"ops.global_avg_pool", y<[](Case& c) {
       return mean(c["x"], {2, 3});
     }>},
    {"ops.softmax", y<[](Case& c) { return softmax(c["x"], axis(c)); }>},
    {"ops.log_softmax", y<[](Case& c) { return log_softmax(c["x"], axis(c)); }>},
    {"ops.logsumexp", y<[](Case& c) { return logsumexp(c["x"], {axis(c)}); }>},
    {"ops.softmax_large",
     [](Case& c) -> Named {
       return {{"p", softmax(c["x"])}, {"lse", logsumexp(c["x"], {-1})}};
     }},
    {"ops.logsumexp_minus_inf", logsumexp_minus_inf},
    {"ops.norms", norms},
    {"ops.max_axis*", y<[](Case& c) { return max(c["x"], {axis(c)}); }>},
    {"ops.min_axis*", y<[](Case& c) { return min(c["x"], {axis(c)}); }>},
    {"ops.maximum_minimum",
     [](Case& c) -> Named {
       return {{"max", maximum(c["a"], c["b"])}, {"min", minimum(c["a"], c["b"])}};
     }},
    {"ops.relu_abs_sign",
     [](Case& c) -> Named {
       return {{"relu", relu(c["x"])}, {"abs", abs(c["x"])}};
     }},
    {"ops.clamp", y<[](Case& c) { return clamp(c["x"], c.number("lo"), c.number("hi")); }>},
    {"ops.elementwise", elementwise},
    {"ops.elementwise_positive", elementwise_positive},
    {"ops.sigmoid_softplus_saturated", saturated},
    {"ops.broadcast_arithmetic", broadcast_arithmetic},
    {"ops.reductions", reductions},
    {"ops.shape_ops", shape_ops},
    {"ops.gather", y<[](Case& c) { return square(gather(c["x"], axis(c), c["idx"])); }>},
    {"ops.embedding", y<[](Case& c) { return square(embedding(c["table"], c["ids"])); }>},
    {"ops.index_add",
     y<[](Case& c) { return index_add(c.integer("rows"), 0, c["idx"], square(c["x"])); }>},
    {"ops.einsum_routing", einsum_routing},
    {"ops.cholesky_logdet", cholesky_logdet},
    {"ops.batch_norm_train", [](Case& c) { return batch_norm_layer(c, true); }},
    {"ops.batch_norm_eval", [](Case& c) { return batch_norm_layer(c, false); }},
    {"ops.layer_norm", layer_norm_layer},
};

}  // namespace

std::span<const Kind> op_kinds() { return kKinds; }

}  // namespace capsfw::golden
