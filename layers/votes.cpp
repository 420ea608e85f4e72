#include <capsfw/layers/votes.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>

namespace capsfw {
namespace {

/// P for a capsule of P² numbers; ValueError otherwise.
std::int64_t side_of(const std::string& who, const RoutingSize& s) {
  const auto side = static_cast<std::int64_t>(std::lround(std::sqrt(static_cast<double>(s.dim))));
  if (s.dim != s.child_dim || side * side != s.dim)
    throw ValueError(fmt::format(
        "{}: matrix votes need capsules of one square size below and above; got {} and {}", who,
        s.child_dim, s.dim));
  return side;
}

}  // namespace

VoteWeights vote_weights(std::string_view name) {
  if (name == "full") return VoteWeights::full;
  if (name == "shared") return VoteWeights::shared;
  if (name == "factorised") return VoteWeights::factorised;
  if (name == "matrix") return VoteWeights::matrix;
  throw ValueError(fmt::format("votes: full, shared, factorised or matrix; got '{}'", name));
}

VoteTransform::VoteTransform(std::string who, const RoutingSize& size, Rng& rng, VoteOptions o)
    : who_(std::move(who)), size_(size), options_(o) {
  const std::int64_t i = size.children, j = size.parents, d = size.dim, e = size.child_dim;
  const std::int64_t least = o.weights == VoteWeights::shared ? 0 : 1;  // any number of children
  if (i < least || e < 1 || j < 1 || d < 1 || o.inner_dim < 0)
    throw ValueError(
        fmt::format("{}: sizes must be at least 1; got lower = {}x{}, upper = {}x{}, inner = {}",
                    who_, i, e, j, d, o.inner_dim));
  if (o.frobenius && o.weights == VoteWeights::factorised)
    throw ValueError(fmt::format("{}: factorised votes have no matrix to normalise", who_));
  switch (o.weights) {
    case VoteWeights::full:
      weight = param("weight", init::normal({i, j, d, e}, o.init_std, rng));
      break;
    case VoteWeights::shared:
      weight = param("weight", init::normal({j, d, e}, o.init_std, rng));
      break;
    case VoteWeights::factorised: {
      // Entries of W_j W̃_i are sums of m products: each factor takes half of the scale.
      const std::int64_t m = o.inner_dim > 0 ? o.inner_dim : e;
      const double std = std::sqrt(o.init_std / std::sqrt(static_cast<double>(m)));
      weight = param("weight", init::normal({j, d, m}, std, rng));
      lower_weight = param("lower_weight", init::normal({i, m, e}, std, rng));
      break;
    }
    case VoteWeights::matrix: {
      const std::int64_t p = side_of(who_, size);
      weight = param("weight", init::normal({i, j, p, p}, o.init_std, rng));
      break;
    }
  }
  if (o.bias) bias = param("bias", zeros({j, d}));
}

void VoteTransform::check(const Tensor& u) const {
  const bool any_count = options_.weights == VoteWeights::shared;
  if (u.dim() != 3 || u.size(2) != size_.child_dim || (u.size(1) != size_.children && !any_count))
    throw ShapeError(fmt::format("{}: u must be [B, {}, {}]; got {}", who_,
                                 any_count ? "I" : fmt::to_string(size_.children), size_.child_dim,
                                 u.shape().str()));
}

VoteProduct VoteTransform::product(const Tensor& u) const {
  check(u);
  if (options_.weights == VoteWeights::matrix || bias.defined()) return {};
  return {lower_weight.defined() ? einsum("bie,ime->bim", u, lower_weight) : u,
          options_.frobenius ? frobenius_normalize(weight) : weight};
}

Tensor VoteTransform::operator()(const Tensor& u) const {
  check(u);
  const Tensor w = options_.frobenius ? frobenius_normalize(weight) : weight;
  Tensor v;
  switch (options_.weights) {
    case VoteWeights::full:
      v = votes_full(u, w);
      break;
    case VoteWeights::shared:
      v = votes_shared(u, w);
      break;
    case VoteWeights::factorised:
      v = votes_factorised(u, w, lower_weight);
      break;
    case VoteWeights::matrix:
      v = votes_matrix(reshape(u, {u.size(0), u.size(1), w.size(2), w.size(3)}), w);
      break;
  }
  return bias.defined() ? v + bias : v;
}

}  // namespace capsfw
