// Matrix capsules on a map whose children are shared out among all positions: against a table of
// all pairs of a child and a position, in plain ops.

#include <cmath>
#include <numbers>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/conv_capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// C types of PxP capsules on a map HxW, J types above.
struct Map {
  std::int64_t batch = 2, types = 2, height = 4, width = 5, side = 2, parents = 3;
  PatchOptions patches;
  std::vector<double> lambdas = {0.3, 0.4, 0.5};
  double eps_var = 1e-2;

  std::int64_t children() const { return types * height * width; }
  std::int64_t in_patch() const { return types * patches.kernel.numel(); }

  /// Poses, activations, weight, beta_a, beta_u.
  TensorList draw() const {
    Rng rng(1);
    const auto normal = [&](const Shape& s) { return rng.normal(s, 0, 1, DType::f64); };
    return {normal({batch, types, height, width, side, side}),
            rng.uniform({batch, types, height, width}, 0.1, 0.95, DType::f64),
            normal({in_patch(), parents, side, side}), normal({parents}) * 0.5,
            normal({parents}) * 0.5};
  }
  /// Child (c, y, x) of the place i at the position (row, column); −1 in the padding.
  std::int64_t child(std::int64_t row, std::int64_t column, std::int64_t i) const {
    const Dims &k = patches.kernel, &s = patches.stride, &pad = patches.padding;
    const std::int64_t x = column * s[1] + i % k[1] - pad[1],
                       y = row * s[0] + i / k[1] % k[0] - pad[0], c = i / k.numel();
    const bool there = x >= 0 && x < width && y >= 0 && y < height;
    return there ? (c * height + y) * width + x : -1;
  }
};

/// Poses [B, N, J, P²], activations [B, N, J] and assignments [B, K, N, J] of K children and N
/// positions, numbered row by row.
TensorList by_table(const Map& m, const TensorList& in, const Dims& size) {
  const std::int64_t k = m.children(), n = size.numel(), d = m.side * m.side;
  const Tensor pose = reshape(in[0], {m.batch, k, 1, m.side, m.side}), &weight = in[2];
  const Tensor nothing = zeros({m.batch, m.parents, d}, DType::f64);
  std::vector<double> seen(static_cast<std::size_t>(k * n), 0.0);
  TensorList table(seen.size(), nothing);
  for (std::int64_t at = 0; at < n; ++at)
    for (std::int64_t i = 0; i < m.in_patch(); ++i) {
      const std::int64_t who = m.child(at / size[1], at % size[1], i);
      if (who < 0) continue;
      const auto cell = static_cast<std::size_t>(who * n + at);
      seen[cell] = 1;
      table[cell] = reshape(matmul(select(pose, 1, who), unsqueeze(select(weight, 0, i), 0)),
                            nothing.shape());
    }
  const Tensor votes = reshape(stack(table, 1), {m.batch, k, n, m.parents, d});
  const Tensor there = from_vector(seen, {1, k, n, 1}), a = reshape(in[1], {m.batch, k, 1, 1});
  const Tensor positions = maximum(sum(there, {2}, true), 1.0);
  Tensor r = broadcast_to(there / (positions * static_cast<double>(m.parents)),
                          {m.batch, k, n, m.parents});
  for (std::size_t t = 0;; ++t) {
    const Tensor data = r * a, total = sum(data, {1});  // [B, N, J]
    const Tensor share = unsqueeze(data / unsqueeze(total, 1), -1);
    const Tensor mean = sum(share * votes, {1});
    const Tensor squares = square(votes - unsqueeze(mean, 1));
    const Tensor variance = sum(share * squares, {1}) + m.eps_var;
    const Tensor cost = sum(unsqueeze(in[4], -1) + 0.5 * log(variance), {-1}) * total;
    const Tensor activation = sigmoid(m.lambdas[t] * (in[3] - cost));
    if (t + 1 == m.lambdas.size()) return {mean, activation, r};
    const Tensor density = exp(-0.5 * sum(squares / unsqueeze(variance, 1) +
                                              unsqueeze(log(variance * (2 * std::numbers::pi)), 1),
                                          {-1}));
    const Tensor claim = there * unsqueeze(activation, 1) * density, all = sum(claim, {2, 3}, true);
    r = claim / where(eq(all, 0.0), 1.0, all);
  }
}

/// The same of conv_caps_em, and R [B, N, I, J].
TensorList by_layer(const Map& m, const TensorList& in) {
  ConvEmOptions o{.competition = Competition::child};
  o.em.eps_var = m.eps_var;
  const ConvEmRouted r = conv_caps_em(in[0], in[1], in[2], in[3], in[4], m.lambdas, m.patches, o);
  const std::int64_t n = r.poses.size(2) * r.poses.size(3);
  return {reshape(permute(r.poses, {0, 2, 3, 1, 4, 5}), {m.batch, n, m.parents, m.side * m.side}),
          reshape(permute(r.activations, {0, 2, 3, 1}), {m.batch, n, m.parents}), r.assignments};
}

/// ∇ of Σ c · (poses, activations) by all inputs, c fixed.
TensorList gradients(const TensorList& out, const TensorList& in) {
  Rng rng(2);
  return grad(
      {out[0], out[1]}, in,
      {rng.normal(out[0].shape(), 0, 1, DType::f64), rng.normal(out[1].shape(), 0, 1, DType::f64)});
}

}  // namespace

TEST_CASE("E5 competition for a child: values and gradients are those of a table of all pairs") {
  struct Case {
    PatchOptions patches;
    Dims size;
  };
  const Case cases[] = {
      {{.kernel = {2, 3}, .stride = {1, 1}, .padding = {0, 0}}, {3, 3}},
      {{.kernel = {3, 3}, .stride = {2, 1}, .padding = {1, 0}}, {2, 3}},
      {{.kernel = {2, 2}, .stride = {2, 2}, .padding = {0, 0}}, {2, 2}}};  // leaves a column
  for (const Case& c : cases)
    for (const std::size_t iterations : {1U, 2U, 3U}) {
      CAPTURE(c.size.str());
      CAPTURE(iterations);
      Map m{.patches = c.patches};
      m.lambdas.resize(iterations);
      const TensorList in = m.draw();
      for (Tensor x : in) x.requires_grad_();
      const TensorList got = by_layer(m, in), wanted = by_table(m, in, c.size);
      CHECK(max_difference(got[0], wanted[0]) < 1e-11);
      CHECK(max_difference(got[1], wanted[1]) < 1e-11);
      for (std::int64_t at = 0; at < c.size.numel(); ++at)
        for (std::int64_t i = 0; i < m.in_patch(); ++i) {
          const std::int64_t who = m.child(at / c.size[1], at % c.size[1], i);
          const Tensor r = select(select(got[2], 1, at), 1, i);
          CHECK(max_difference(
                    r, who < 0 ? zeros_like(r) : select(select(wanted[2], 1, who), 1, at)) < 1e-11);
        }
      CHECK(worst_relative_difference(gradients(got, in), gradients(wanted, in)) < 1e-9);
    }
}
