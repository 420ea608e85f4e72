#pragma once
// Problems for EM routing: votes with all that a variant needs.

#include <doctest/doctest.h>

#include <string>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/replay.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

namespace capsfw::testing {

inline constexpr EmVariant kVariants[] = {EmVariant::v1, EmVariant::v2,     EmVariant::v3,
                                          EmVariant::v4, EmVariant::hinton, EmVariant::eq12};

/// Standard normal f64.
inline Tensor normal(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  return randn(shape, rng, DType::f64);
}

inline Tensor uniform(const Shape& shape, double low, double high, std::uint64_t seed) {
  Rng rng(seed);
  return rng.uniform(shape, low, high, DType::f64);
}

struct EmProblem {
  Tensor votes, a_in, beta_a, beta_u;
  std::vector<double> lambdas;
  EmOptions options = {};

  EmProblem(std::uint64_t seed, const Shape& votes_shape, EmVariant variant, int iterations)
      : votes(normal(votes_shape, seed)) {
    options.variant = variant;
    const std::int64_t j = votes_shape[2];
    if (uses_activation()) a_in = uniform({votes_shape[0], votes_shape[1]}, 0.1, 0.95, seed + 1000);
    if (variant != EmVariant::v1) {
      beta_a = normal({j}, seed + 2000) * 0.5;
      beta_u = normal({j}, seed + 3000) * 0.5;
    }
    for (int t = 0; t < iterations; ++t) lambdas.push_back(0.3 + 0.1 * t);
  }

  bool uses_activation() const {
    return options.variant == EmVariant::v3 || options.variant == EmVariant::v4 ||
           options.variant == EmVariant::hinton;
  }
  std::string name() const {
    return "variant " + std::to_string(static_cast<int>(options.variant)) + ", votes " +
           votes.shape().str();
  }
  EmRouted route(const EmOptions& o) const {
    return em_routing(votes, a_in, beta_a, beta_u, lambdas, o);
  }
  EmRouted route() const { return route(options); }

  /// The differentiable tensors, and the routing as a function of them.
  TensorList inputs() const {
    TensorList out{votes};
    for (const Tensor& t : {a_in, beta_a, beta_u})
      if (t.defined()) out.push_back(t);
    return out;
  }
  Function function() const {
    return [p = *this](const TensorList& in) -> TensorList {
      EmProblem q = p;
      std::size_t k = 0;
      for (Tensor* t : {&q.votes, &q.a_in, &q.beta_a, &q.beta_u})
        if (t->defined()) *t = in[k++];
      const EmRouted r = q.route();
      return {r.poses, r.activations, r.assignments, r.variance};
    };
  }
  /// Of Σ of all outputs.
  TensorList gradients() const {
    TensorList in;
    for (const Tensor& t : inputs()) in.push_back(t.detach().requires_grad_());
    const TensorList out = function()(in);
    Tensor total = sum(out[0]) + sum(out[1]) + sum(out[2]) + sum(out[3]);
    return grad({total}, in, {}, {.allow_unused = false});
  }

  EmProblem in(DType dtype) const {
    EmProblem q = *this;
    for (Tensor* t : {&q.votes, &q.a_in, &q.beta_a, &q.beta_u})
      if (t->defined()) *t = cast_data(*t, dtype);
    return q;
  }
  EmProblem sample(std::int64_t b) const {
    EmProblem q = *this;
    q.votes = narrow(votes, 0, b, 1);
    if (a_in.defined()) q.a_in = narrow(a_in, 0, b, 1);
    return q;
  }
  EmProblem children(const std::vector<std::int64_t>& which) const {
    EmProblem q = *this;
    q.votes = index_select(votes, 1, from_vector(which));
    if (a_in.defined()) q.a_in = index_select(a_in, 1, from_vector(which));
    return q;
  }
  EmProblem parents(const std::vector<std::int64_t>& which) const {
    EmProblem q = *this;
    q.votes = index_select(votes, 2, from_vector(which));
    if (beta_a.defined()) {
      q.beta_a = index_select(beta_a, 0, from_vector(which));
      q.beta_u = index_select(beta_u, 0, from_vector(which));
    }
    return q;
  }
  /// All children but 1 and 4.
  Tensor some_children() const {
    std::vector<bool> mask;
    for (std::int64_t k = 0; k < votes.size(0) * votes.size(1); ++k)
      mask.push_back(k % votes.size(1) != 1 && k % votes.size(1) != 4);
    return from_vector(mask, {votes.size(0), votes.size(1)});
  }
};

/// `count` problems of random shape for every variant, three iterations.
inline std::vector<EmProblem> em_problems(std::uint64_t count) {
  std::vector<EmProblem> out;
  for (const EmVariant v : kVariants)
    for (std::uint64_t k = 0; k < count; ++k) {
      Rng rng(77 + k);
      const Shape shape{1 + rng.below(3), 3 + rng.below(8), 2 + rng.below(4), 1 + rng.below(6)};
      out.emplace_back(100 + k, shape, v, 3);
    }
  return out;
}

inline std::vector<EmProblem> em_problems(std::uint64_t count, EmVariant variant) {
  std::vector<EmProblem> out;
  for (const EmProblem& p : em_problems(count))
    if (p.options.variant == variant) out.push_back(p);
  return out;
}

}  // namespace capsfw::testing
