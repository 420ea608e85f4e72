#include <capsfw/ops/capsule.hpp>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>

#include "../core/strided.hpp"

namespace capsfw {
namespace {

/// Sizes of the three tensors of a routing sum, checked once.
struct RoutingSizes {
  std::int64_t b, i, j, d;
};

void check_shapes(
    bool ok, std::string_view op, std::string_view rule, const Tensor& x, const Tensor& y) {
  if (!ok)
    throw ShapeError(
        fmt::format("{}: takes {}; got {} and {}", op, rule, x.shape().str(), y.shape().str()));
  check_same_type(x, y, op);
}

RoutingSizes sizes_of(const Tensor& votes) {
  return {votes.size(0), votes.size(1), votes.size(2), votes.size(3)};
}

}  // namespace

Tensor votes_full(const Tensor& u, const Tensor& weight) {
  check_shapes(u.dim() == 3 && weight.dim() == 4 && u.size(1) == weight.size(0) &&
                   u.size(2) == weight.size(3),
               "votes_full", "u [B, I, E] and weight [I, J, D, E]", u, weight);
  return einsum("bie,ijde->bijd", u, weight);
}

Tensor votes_shared(const Tensor& u, const Tensor& weight) {
  check_shapes(u.dim() == 3 && weight.dim() == 3 && u.size(2) == weight.size(2), "votes_shared",
               "u [B, I, E] and weight [J, D, E]", u, weight);
  return einsum("bie,jde->bijd", u, weight);
}

Tensor votes_factorised(const Tensor& u, const Tensor& weight, const Tensor& lower) {
  check_shapes(
      u.dim() == 3 && lower.dim() == 3 && u.size(1) == lower.size(0) && u.size(2) == lower.size(2),
      "votes_factorised", "u [B, I, E] and lower weight [I, M, E]", u, lower);
  check_shapes(weight.dim() == 3 && weight.size(2) == lower.size(1), "votes_factorised",
               "weight [J, D, M] and lower weight [I, M, E]", weight, lower);
  return votes_shared(einsum("bie,ime->bim", u, lower), weight);
}

Tensor votes_matrix(const Tensor& pose, const Tensor& weight) {
  check_shapes(pose.dim() == 4 && weight.dim() == 4 && pose.size(1) == weight.size(0) &&
                   pose.size(3) == weight.size(2),
               "votes_matrix", "pose [B, I, P, P] and weight [I, J, P, P]", pose, weight);
  return flatten(einsum("bipq,ijqr->bijpr", pose, weight), 3, 4);
}

Tensor frobenius_normalize(const Tensor& weight) {
  if (weight.dim() < 2)
    throw ShapeError(
        fmt::format("frobenius_normalize: takes matrices; got {}", weight.shape().str()));
  return reshape(safe_normalize(flatten(weight, -2, -1)), weight.shape());
}

Tensor weighted_sum(const Tensor& c0, const Tensor& votes0) {
  check_shapes(votes0.dim() == 4 && c0.dim() == 3 && c0.size(0) == votes0.size(0) &&
                   c0.size(1) == votes0.size(1) && c0.size(2) == votes0.size(2),
               "weighted_sum", "c [B, I, J] and votes [B, I, J, D]", c0, votes0);
  const Tensor c = contiguous_data(c0.detach()), votes = contiguous_data(votes0.detach());
  const RoutingSizes n = sizes_of(votes);
  Tensor s = zeros({n.b, n.j, n.d}, c.dtype(), "weighted_sum");
  visit_float(c, "weighted_sum", [&]<class T>() {
    const T *cs = c.data<T>(), *us = votes.data<T>();
    T* ss = s.mutable_data<T>();
    parallel_for(n.b, n.i * n.j * n.d / 8 + 1, [=](std::int64_t b0, std::int64_t b1) {
      detail::simd([=] {
        for (std::int64_t b = b0; b < b1; ++b)
          for (std::int64_t i = 0; i < n.i; ++i)
            for (std::int64_t j = 0; j < n.j; ++j) {
              const T w = cs[(b * n.i + i) * n.j + j];
              const T* __restrict u = us + ((b * n.i + i) * n.j + j) * n.d;
              T* __restrict out = ss + (b * n.j + j) * n.d;
              for (std::int64_t d = 0; d < n.d; ++d) out[d] += w * u[d];
            }
      });
    });
  });
  return record("weighted_sum", {c0, votes0}, s, Save::inputs,
                [](const Saved& saved, const Tensor& gs) {
                  return TensorList{saved.needs(0) ? agreement(saved.input(1), gs) : Tensor(),
                                    saved.needs(1) ? outer_votes(saved.input(0), gs) : Tensor()};
                });
}

Tensor agreement(const Tensor& votes0, const Tensor& v0) {
  check_shapes(votes0.dim() == 4 && v0.dim() == 3 && v0.size(0) == votes0.size(0) &&
                   v0.size(1) == votes0.size(2) && v0.size(2) == votes0.size(3),
               "agreement", "votes [B, I, J, D] and v [B, J, D]", votes0, v0);
  const Tensor votes = contiguous_data(votes0.detach()), v = contiguous_data(v0.detach());
  const RoutingSizes n = sizes_of(votes);
  Tensor a = empty({n.b, n.i, n.j}, v.dtype(), "agreement");
  visit_float(v, "agreement", [&]<class T>() {
    const T *us = votes.data<T>(), *vs = v.data<T>();
    T* as = a.mutable_data<T>();
    parallel_for(n.b * n.i, n.j * n.d / 4 + 1, [=](std::int64_t r0, std::int64_t r1) {
      detail::simd([=] {
        for (std::int64_t r = r0; r < r1; ++r)
          for (std::int64_t j = 0; j < n.j; ++j) {
            const T* __restrict u = us + (r * n.j + j) * n.d;
            const T* __restrict w = vs + (r / n.i * n.j + j) * n.d;
            T lanes[16] = {};
            std::int64_t d = 0;
            for (; d + 16 <= n.d; d += 16)
              for (int k = 0; k < 16; ++k) lanes[k] += u[d + k] * w[d + k];
            T dot = T(0);
            for (; d < n.d; ++d) dot += u[d] * w[d];
            for (T l : lanes) dot += l;
            as[r * n.j + j] = dot;
          }
      });
    });
  });
  return record("agreement", {votes0, v0}, a, Save::inputs,
                [](const Saved& saved, const Tensor& ga) {
                  return TensorList{saved.needs(0) ? outer_votes(ga, saved.input(1)) : Tensor(),
                                    saved.needs(1) ? weighted_sum(ga, saved.input(0)) : Tensor()};
                });
}

Tensor outer_votes(const Tensor& c0, const Tensor& v0) {
  check_shapes(
      c0.dim() == 3 && v0.dim() == 3 && c0.size(0) == v0.size(0) && c0.size(2) == v0.size(1),
      "outer_votes", "c [B, I, J] and v [B, J, D]", c0, v0);
  const Tensor c = contiguous_data(c0.detach()), v = contiguous_data(v0.detach());
  const RoutingSizes n{c.size(0), c.size(1), c.size(2), v.size(2)};
  Tensor y = empty({n.b, n.i, n.j, n.d}, c.dtype(), "outer_votes");
  visit_float(c, "outer_votes", [&]<class T>() {
    const T *cs = c.data<T>(), *vs = v.data<T>();
    T* ys = y.mutable_data<T>();
    parallel_for(n.b * n.i, n.j * n.d / 4 + 1, [=](std::int64_t r0, std::int64_t r1) {
      detail::simd([=] {
        for (std::int64_t r = r0; r < r1; ++r)
          for (std::int64_t j = 0; j < n.j; ++j) {
            const T w = cs[r * n.j + j];
            const T* __restrict p = vs + (r / n.i * n.j + j) * n.d;
            T* __restrict q = ys + (r * n.j + j) * n.d;
            for (std::int64_t d = 0; d < n.d; ++d) q[d] = w * p[d];
          }
      });
    });
  });
  return record("outer_votes", {c0, v0}, y, Save::inputs, [](const Saved& saved, const Tensor& gy) {
    return TensorList{saved.needs(0) ? agreement(gy, saved.input(1)) : Tensor(),
                      saved.needs(1) ? weighted_sum(saved.input(0), gy) : Tensor()};
  });
}

}  // namespace capsfw
