// Ops one by one, a few of every family, at sizes that capsule networks have.

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "families.hpp"

namespace capsfw::bench {
namespace {

using Make = std::function<Work(Spec&, Rng&)>;

/// A size divided by the key `scale`, at least 1.
std::int64_t sized(Spec& spec, std::int64_t n) {
  return std::max<std::int64_t>(1, n / spec.integer("scale", 1));
}

double bytes_of(const TensorList& tensors) {
  double total = 0;
  for (const Tensor& t : tensors)
    total += static_cast<double>(t.numel()) * static_cast<double>(size_of(t.dtype()));
  return total;
}

/// An op with its inputs and its result moved once.
Work plain(const std::function<Tensor()>& op, const TensorList& inputs, double flops = 0) {
  const NoGradGuard no_grad;
  Work work;
  work.bytes = bytes_of(inputs) + bytes_of({op()});
  work.flops = flops;
  work.step = [op] {
    const NoGradGuard mode;
    op();
  };
  return work;
}

Make unary(Tensor (*f)(const Tensor&)) {
  return [f](Spec& spec, Rng& rng) {
    const Tensor x = randn({sized(spec, 10'000'000)}, rng);
    return plain([f, x] { return f(x); }, {x});
  };
}

/// An op on noise of some shape, whose first length (the batch) is scaled.
Make on(Shape shape, const std::function<Tensor(const Tensor&)>& f) {
  return [shape, f](Spec& spec, Rng& rng) {
    Shape s = shape;
    s[0] = sized(spec, s[0]);
    const Tensor x = randn(s, rng);
    return plain([f, x] { return f(x); }, {x});
  };
}

Work product(Spec& spec, Rng& rng) {
  const std::int64_t n = spec.integer("n", sized(spec, 2048)), m = spec.integer("m", n),
                     k = spec.integer("k", n);
  const Tensor a = randn({m, k}, rng), b = randn({k, n}, rng);
  return plain([=] { return matmul(a, b); }, {a, b}, 2.0 * static_cast<double>(m * n * k));
}

/// convfwd, convbwd (all three gradients), convbwd_x, convbwd_w (with that of the bias).
Make convolution(bool forward, bool input, bool weight) {
  return [=](Spec& spec, Rng& rng) {
    const bool first = spec.word("layer", {"2", "1"}) == "1";
    const std::int64_t b = spec.integer("B", sized(spec, 128)), c = first ? 1 : 256,
                       stride = first ? 1 : 2, side = first ? 28 : 20;
    const ConvOptions geometry{.stride = {stride, stride}};
    const Tensor x = randn({b, c, side, side}, rng), w = randn({256, c, 9, 9}, rng) * 0.01,
                 bias = zeros({256});
    const Tensor y = conv2d(x, w, bias, geometry), g = randn(y.shape(), rng);
    Work work;
    work.items = static_cast<double>(b);
    work.flops = 2.0 * static_cast<double>(y.numel() * c * 81) * (input && weight ? 2 : 1);
    work.bytes = bytes_of({x, w, y}) * (input && weight ? 2 : 1);
    work.step = [=] {
      const NoGradGuard mode;
      if (forward) conv2d(x, w, bias, geometry);
      if (input) conv2d_input(g, w, {side, side}, geometry);
      if (weight) {
        conv2d_weight(x, g, {9, 9}, geometry);
        sum(g, {0, 2, 3});
      }
    };
    return work;
  };
}

/// u [B, 1152, 8] and W [1152, 10, 16, 8]: the votes of CapsNet.
Work votes(Spec& spec, Rng& rng) {
  const std::int64_t b = sized(spec, 128);
  const Tensor u = randn({b, 1152, 8}, rng), w = randn({1152, 10, 16, 8}, rng);
  return plain([=] { return votes_full(u, w); }, {u, w},
               2.0 * static_cast<double>(b * 1152 * 160 * 8));
}

/// The two sums of a routing on votes [B, 1152, 10, 16].
Make sums(bool weighted) {
  return [weighted](Spec& spec, Rng& rng) {
    const std::int64_t b = sized(spec, 128);
    const Tensor u = randn({b, 1152, 10, 16}, rng);
    const Tensor other = weighted ? randn({b, 1152, 10}, rng) : randn({b, 10, 16}, rng);
    return plain([=] { return weighted ? weighted_sum(other, u) : agreement(u, other); },
                 {u, other}, 2.0 * static_cast<double>(u.numel()));
  };
}

Work batch_normalisation(Spec& spec, Rng& rng) {
  const Tensor x = randn({sized(spec, 128), 64, 20, 20}, rng), one = ones({64}), zero = zeros({64}),
               mean = zeros({64}), variance = ones({64});
  return plain([=] { return batch_norm(x, one, zero, mean, variance, true); }, {x});
}

Work adam_update(Spec& spec, Rng& rng) {
  const std::int64_t n = sized(spec, 8'215'568);
  Tensor p = randn({n}, rng).requires_grad_();
  p.set_grad(randn({n}, rng));
  const auto optimizer = std::make_shared<Adam>(TensorList{p});
  Work work;
  work.bytes = 28.0 * static_cast<double>(n);
  work.step = [optimizer] { optimizer->step(); };
  return work;
}

/// A thousand additions of eight numbers: what an op costs besides its arithmetic.
Make thousand(bool recorded) {
  return [recorded](Spec&, Rng& rng) {
    const Tensor x = randn({8}, rng).requires_grad_(recorded);
    Work work;
    work.items = 1000;
    work.step = [=] {
      Tensor y = x;
      for (int i = 0; i < 1000; ++i) y = recorded ? y + x : x + x;
      if (recorded) grad({sum(y)}, {x});
    };
    return work;
  };
}

const std::map<std::string, Make>& ops() {
  static const std::map<std::string, Make> all = {
      {"mm", product},
      {"convfwd", convolution(true, false, false)},
      {"convbwd", convolution(false, true, true)},
      {"convbwd_x", convolution(false, true, false)},
      {"convbwd_w", convolution(false, false, true)},
      {"votes", votes},
      {"weighted_sum", sums(true)},
      {"agreement", sums(false)},
      {"squash", on({128, 1152, 8}, [](const Tensor& x) { return squash(x); })},
      {"softmax_last", on({128 * 1152, 10}, [](const Tensor& x) { return softmax(x, 1); })},
      {"softmax_mid", on({128, 10, 1152}, [](const Tensor& x) { return softmax(x, 1); })},
      {"logsumexp", on({128 * 1152, 10}, [](const Tensor& x) { return logsumexp(x, {1}); })},
      {"exp", unary(exp)},
      {"log1p", unary([](const Tensor& x) { return log1p(square(x)); })},
      {"sigmoid", unary(sigmoid)},
      {"tanh", unary(tanh)},
      {"relu", unary(relu)},
      {"add", unary([](const Tensor& x) { return x + x; })},
      {"add_row", on({65536, 160},
                     [](const Tensor& x) { return x + narrow(x, 0, 0, 1); })},
      {"sum", unary([](const Tensor& x) { return sum(x); })},
      {"sum_axis", on({128, 10, 1152, 16}, [](const Tensor& x) { return sum(x, {2}); })},
      {"sum_last16", on({128, 10, 1152, 16}, [](const Tensor& x) { return sum(x, {3}); })},
      {"max_axis", on({128, 10, 1152, 16}, [](const Tensor& x) { return max(x, {2}); })},
      {"transpose", on({128, 256, 400}, [](const Tensor& x) { return contiguous(transpose(x)); })},
      {"cat", on({128, 1152, 16}, [](const Tensor& x) { return cat({x, x}, 2); })},
      {"sort", on({1024, 1152}, [](const Tensor& x) { return sort(x).values; })},
      {"maxpool", on({128, 64, 24, 24}, [](const Tensor& x) { return max_pool2d(x, {2, 2}); })},
      {"avgpool", on({128, 64, 24, 24}, [](const Tensor& x) { return avg_pool2d(x, {2, 2}); })},
      {"unfold", on({128, 32, 20, 20}, [](const Tensor& x) { return unfold(x, {3, 3}); })},
      {"batchnorm", batch_normalisation},
      {"layernorm", on({8192, 1024}, [](const Tensor& x) { return layer_norm(x); })},
      {"bmm", on({512, 64, 64}, [](const Tensor& x) { return matmul(x, x); })},
      {"einsum", on({512, 64, 64}, [](const Tensor& x) { return einsum("bij,bkj->bik", x, x); })},
      {"gather",
       [](Spec& spec, Rng& rng) {
         const std::int64_t b = sized(spec, 4096);
         const Tensor x = randn({b, 1024}, rng), index = rng.integers({b, 256}, 1024);
         return plain([=] { return gather(x, 1, index); }, {index});
       }},
      {"embedding",
       [](Spec& spec, Rng& rng) {
         const Tensor table = randn({sized(spec, 20'000), 300}, rng),
                      ids = rng.integers({sized(spec, 8192)}, table.size(0));
         return plain([=] { return embedding(table, ids); }, {ids});
       }},
      {"cholesky",
       [](Spec& spec, Rng& rng) {
         const Tensor x = randn({sized(spec, 4096), 16, 16}, rng);
         const Tensor a = matmul(x, transpose(x)) + 16.0 * eye(16);
         return plain([=] { return cholesky(a); }, {a});
       }},
      {"adam", adam_update},
      {"dispatch", thousand(false)},
      {"dispatch_grad", thousand(true)}};
  return all;
}

}  // namespace

Work make_primitive(Spec& spec) {
  std::vector<std::string> names;
  for (const auto& [name, make] : ops()) names.push_back(name);
  const std::string op = spec.word("op", names);
  static_cast<void>(spec.integer("scale", 1));
  Rng rng(1);
  Work work = ops().at(op)(spec, rng);
  spec.finish();
  return work;
}

}  // namespace capsfw::bench
