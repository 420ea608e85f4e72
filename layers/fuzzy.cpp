#include <capsfw/layers/fuzzy.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/overflow.hpp"

namespace capsfw {
namespace {

void check_votes(const Tensor& votes, const char* who) {
  if (votes.dim() != 4 || votes.size(1) < 1 || votes.size(2) < 1)
    throw ShapeError(fmt::format("{}: votes must be [B, I, J, D] with I and J at least 1; got {}",
                                 who, votes.shape().str()));
}

void check_iterations(int iterations, const char* who) {
  if (iterations < 1)
    throw ValueError(fmt::format("{}: at least 1 iteration; got {}", who, iterations));
}

void check_alphas(const std::vector<double>& alphas, const char* who) {
  if (alphas.empty())
    throw ValueError(fmt::format("{}: at least one alpha, one for each iteration", who));
  for (const double a : alphas)
    if (!(a > 0) || !std::isfinite(a))
      throw ValueError(fmt::format("{}: every alpha must be positive and finite; got {}", who, a));
}

void check_data(const Tensor& u, const Tensor& v, const char* who) {
  const bool ranks = (u.dim() == 3 || u.dim() == 2) && v.dim() == u.dim();
  if (!ranks || v.size(-1) != u.size(-1) || (u.dim() == 3 && v.size(0) != u.size(0)))
    throw ShapeError(fmt::format(
        "{}: data must be [B, N, D] and centres [B, k, D], or [N, D] and [k, D]; got {} and {}",
        who, u.shape().str(), v.shape().str()));
  if (u.size(-2) < 1 || v.size(-2) < 1)
    throw ValueError(fmt::format("{}: at least one point and one centre; got data {}, centres {}",
                                 who, u.shape().str(), v.shape().str()));
}

/// The two sums of a routing, over votes or, without copying them for every cluster, over data.
struct Field {
  Tensor points;
  bool votes;

  Tensor sums(const Tensor& c) const {
    return votes ? weighted_sum(c, points) : matmul(transpose(c), points);
  }
  Tensor agreements(const Tensor& s) const {
    return votes ? agreement(points, s) : matmul(points, transpose(s));
  }
};

/// Σ_ij of the last two axes.
Tensor total(const Tensor& x) { return sum(x, {-2, -1}); }

/// c ln c with 0 ln 0 = 0.
Tensor c_log_c(const Tensor& c) { return c * log(where(gt(c, 0.0), c, 1.0)); }

/// c ln c_old with 0 ln 0 = 0.
Tensor c_log_old(const Tensor& c, const Tensor& old) {
  return c * log(where(logical_and(eq(c, 0.0), eq(old, 0.0)), 1.0, old));
}

Tensor kl_value(const Tensor& agreements, const Tensor& c, const Tensor& w, const Tensor& c_old) {
  return total(c_log_c(c) - c_log_old(c, c_old)) - total(unsqueeze(w, -2) * c * agreements);
}

Tensor entropy_value(const Tensor& agreements, const Tensor& c, double alpha) {
  return alpha * total(c_log_c(c)) - total(c * agreements);
}

/// Where a descent stands: ⟨û, s⟩ rather than s, since nothing else is asked of it.
struct Start {
  Tensor logits;      // of the couplings
  Tensor agreements;  // ⟨û_{j|i}, s_j⟩
};

FuzzyClustering kl_descent(const Field& field, Start at, int iterations) {
  FuzzyClustering out;
  TensorList rows;
  Tensor c = softmax(at.logits, -1);
  for (int t = 0; t < iterations; ++t) {
    // From 1e18 on w is 1 to the last bit, also where the squares are infinite.
    const Tensor sums = field.sums(c), n2 = minimum(sum(square(sums), {-1}), 1e18),
                 w = n2 / (n2 + 1.0);
    const Tensor s = safe_normalize(sums), agreements = field.agreements(s);
    at.logits = at.logits + unsqueeze(w, -2) * agreements;
    const Tensor next = softmax(at.logits, -1);
    rows.push_back(stack({kl_value(at.agreements, c, w, c), kl_value(agreements, c, w, c),
                          kl_value(agreements, next, w, c)},
                         -1));
    out.centres = unsqueeze(w, -1) * s;
    at.agreements = agreements;
    c = next;
  }
  out.couplings = c;
  out.objectives = stack(rows, -2);
  return out;
}

FuzzyClustering entropy_descent(const Field& field, Start at, const std::vector<double>& alphas) {
  FuzzyClustering out;
  TensorList rows;
  Tensor c = softmax(at.logits, -1);
  for (const double alpha : alphas) {
    out.centres = safe_normalize(field.sums(c));
    const Tensor agreements = field.agreements(out.centres);
    const Tensor next = softmax(agreements / alpha, -1);
    rows.push_back(
        stack({entropy_value(at.agreements, c, alpha), entropy_value(agreements, c, alpha),
               entropy_value(agreements, next, alpha)},
              -1));
    at.agreements = agreements;
    c = next;
  }
  out.couplings = c;
  out.objectives = stack(rows, -2);
  return out;
}

/// Uniform couplings, s = 0.
Start nothing_known(const Tensor& votes) {
  const Tensor zero = zeros({votes.size(0), votes.size(1), votes.size(2)}, votes.dtype());
  return {zero, zero};
}

void check_couplings(const Tensor& votes, const Tensor& c, const Tensor& s, const char* who) {
  check_votes(votes, who);
  const std::int64_t b = votes.size(0), i = votes.size(1), j = votes.size(2), d = votes.size(3);
  if (c.shape() != Shape{b, i, j} || s.shape() != Shape{b, j, d})
    throw ShapeError(fmt::format("{}: votes [B, I, J, D], c [B, I, J], s [B, J, D]; got {}, {}, {}",
                                 who, votes.shape().str(), c.shape().str(), s.shape().str()));
}

}  // namespace

Tensor kl_objective(
    const Tensor& votes, const Tensor& c, const Tensor& s, const Tensor& w, const Tensor& c_old) {
  check_couplings(votes, c, s, "kl_objective");
  if (c_old.shape() != c.shape() || w.shape() != Shape{c.size(0), c.size(2)})
    throw ShapeError(fmt::format("kl_objective: c_old must be {} as c, and w {}; got {} and {}",
                                 c.shape().str(), Shape{c.size(0), c.size(2)}.str(),
                                 c_old.shape().str(), w.shape().str()));
  return kl_value(agreement(votes, s), c, w, c_old);
}

Tensor entropy_objective(const Tensor& votes, const Tensor& c, const Tensor& s, double alpha) {
  check_couplings(votes, c, s, "entropy_objective");
  return entropy_value(agreement(votes, s), c, alpha);
}

FuzzyClustering kl_trace(const Tensor& votes, int iterations) {
  check_votes(votes, "kl_trace");
  check_iterations(iterations, "kl_trace");
  return kl_descent({votes, true}, nothing_known(votes), iterations);
}

FuzzyClustering entropy_trace(const Tensor& votes, const std::vector<double>& alphas) {
  check_votes(votes, "entropy_trace");
  check_alphas(alphas, "entropy_trace");
  return entropy_descent({votes, true}, nothing_known(votes), alphas);
}

FuzzyClustering kl_clustering(const Tensor& u, const Tensor& centres, int iterations) {
  check_data(u, centres, "kl_clustering");
  check_iterations(iterations, "kl_clustering");
  const Field field{u, false};
  FuzzyClustering out = kl_descent(
      field, {field.agreements(squash(centres)), field.agreements(safe_normalize(centres))},
      iterations);
  detail::check_overflow("kl_clustering", {out.objectives}, {u, centres});
  return out;
}

FuzzyClustering entropy_clustering(const Tensor& u,
                                   const Tensor& centres,
                                   const std::vector<double>& alphas) {
  check_data(u, centres, "entropy_clustering");
  check_alphas(alphas, "entropy_clustering");
  const Field field{u, false};
  const Tensor agreements = field.agreements(safe_normalize(centres));
  FuzzyClustering out = entropy_descent(field, {agreements / alphas.front(), agreements}, alphas);
  detail::check_overflow("entropy_clustering", {out.objectives}, {u, centres});
  return out;
}

ConvergedFuzzy entropy_clustering_converged(const Tensor& u,
                                            const Tensor& centres,
                                            double alpha,
                                            const FixedPointOptions& fixed) {
  check_data(u, centres, "entropy_clustering_converged");
  check_alphas({alpha}, "entropy_clustering_converged");
  const auto couplings = [alpha](const Tensor& agreements) {
    return softmax(agreements / alpha, -1);
  };
  const FixedPoint found = fixed_point(
      [couplings](const TensorList& state, const TensorList& in) -> TensorList {
        const Field field{in[0], false};
        return {safe_normalize(field.sums(couplings(field.agreements(state[0]))))};
      },
      {safe_normalize(centres)}, {u}, fixed);
  const Tensor agreements = Field{u, false}.agreements(found.state[0]), c = couplings(agreements);
  return {found.state[0], c, entropy_value(agreements, c, alpha), found.iterations,
          found.converged};
}

Tensor dynamic_routing_potential(const Tensor& votes, int iterations, double squash_c) {
  check_votes(votes, "dynamic_routing_potential");
  check_iterations(iterations, "dynamic_routing_potential");
  if (!(squash_c > 0))
    throw ValueError(
        fmt::format("dynamic_routing_potential: squash_c must be positive; got {}", squash_c));
  Tensor b = nothing_known(votes).logits;
  TensorList values;
  for (int t = 1; t <= iterations; ++t) {
    const Tensor s = weighted_sum(softmax(b, -1), votes);
    values.push_back(routing_potential(s, squash_c));
    if (t < iterations) b = b + agreement(votes, squash(s, squash_c));
  }
  return stack(values, -1);
}

}  // namespace capsfw
