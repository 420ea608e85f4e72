#include <capsfw/layers/capsules.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

std::int64_t channels_of(std::int64_t types, std::int64_t dim) {
  if (types < 1 || dim < 1)
    throw ValueError(
        fmt::format("PrimaryCapsules: sizes must be at least 1; got {} types of {}", types, dim));
  return types * dim;
}

}  // namespace

PrimaryCapsules::PrimaryCapsules(std::int64_t in,
                                 std::int64_t types,
                                 std::int64_t dim,
                                 std::int64_t kernel,
                                 Rng& rng,
                                 PrimaryCapsulesOptions o)
    : conv(in, channels_of(types, dim), kernel, rng, {.stride = o.stride}),
      dim_(dim),
      squash_c_(o.squash_c) {
  child("conv", conv);
}

Tensor PrimaryCapsules::forward(const Tensor& x) {
  const Tensor z = conv(x);  // [B, types·dim, H, W]
  const std::int64_t types = z.size(1) / dim_;
  const Tensor grouped =
      permute(reshape(z, {z.size(0), types, dim_, z.size(2), z.size(3)}), {0, 1, 3, 4, 2});
  return squash(reshape(grouped, {z.size(0), types * z.size(2) * z.size(3), dim_}), squash_c_);
}

VoteWeights vote_weights(std::string_view name) {
  if (name == "full") return VoteWeights::full;
  if (name == "shared") return VoteWeights::shared;
  if (name == "factorised") return VoteWeights::factorised;
  throw ValueError(fmt::format("votes: full, shared or factorised; got '{}'", name));
}

DenseCapsules::DenseCapsules(std::int64_t lower,
                             std::int64_t lower_dim,
                             std::int64_t upper,
                             std::int64_t upper_dim,
                             Rng& rng,
                             DenseCapsulesOptions o)
    : lower_(lower), lower_dim_(lower_dim), upper_(upper), options_(o), rng_(rng.split()) {
  if (lower < 1 || lower_dim < 1 || upper < 1 || upper_dim < 1 || o.inner_dim < 0)
    throw ValueError(fmt::format(
        "DenseCapsules: sizes must be at least 1; got lower = {}x{}, upper = {}x{}, inner = {}",
        lower, lower_dim, upper, upper_dim, o.inner_dim));
  if (!(o.keep > 0 && o.keep <= 1))
    throw ValueError(fmt::format("DenseCapsules: keep must lie in (0, 1]; got {}", o.keep));
  const std::int64_t j = upper + (o.noise_class ? 1 : 0),
                     m = o.inner_dim > 0 ? o.inner_dim : lower_dim;
  switch (o.votes) {
    case VoteWeights::full:
      weight = param("weight", init::normal({lower, j, upper_dim, lower_dim}, o.init_std, rng));
      break;
    case VoteWeights::shared:
      weight = param("weight", init::normal({j, upper_dim, lower_dim}, o.init_std, rng));
      break;
    case VoteWeights::factorised: {
      // Entries of W_j W̃_i are sums of m products: each factor takes half of the scale.
      const double std = std::sqrt(o.init_std / std::sqrt(static_cast<double>(m)));
      weight = param("weight", init::normal({j, upper_dim, m}, std, rng));
      lower_weight = param("lower_weight", init::normal({lower, m, lower_dim}, std, rng));
      break;
    }
  }
  if (o.vote_bias) vote_bias = param("vote_bias", zeros({j, upper_dim}));
  if (o.prior) prior = param("prior", zeros({lower, j}));
}

Tensor DenseCapsules::votes(const Tensor& u) const {
  const bool any_count = options_.votes == VoteWeights::shared && !prior.defined();
  if (u.dim() != 3 || u.size(2) != lower_dim_ || (u.size(1) != lower_ && !any_count))
    throw ShapeError(fmt::format("DenseCapsules '{}': u must be [B, {}, {}]; got {}", name(),
                                 lower_, lower_dim_, u.shape().str()));
  Tensor v = options_.votes == VoteWeights::full     ? votes_full(u, weight)
             : options_.votes == VoteWeights::shared ? votes_shared(u, weight)
                                                     : votes_factorised(u, weight, lower_weight);
  return vote_bias.defined() ? v + vote_bias : v;
}

Tensor DenseCapsules::draw_mask(std::int64_t batch, DType dtype) {
  const std::int64_t j = weight.size(options_.votes == VoteWeights::full ? 1 : 0);
  const auto kept =
      static_cast<std::int64_t>(std::max(1.0, std::round(options_.keep * static_cast<double>(j))));
  Tensor mask = zeros({batch, j}, dtype);
  visit_float(dtype, "DenseCapsules", [&]<class T>() {
    T* p = mask.mutable_data<T>();
    for (std::int64_t b = 0; b < batch; ++b) {
      const auto order = rng_.permutation(j).to_vector<std::int64_t>();
      for (std::int64_t k = 0; k < kept; ++k) p[b * j + order[static_cast<std::size_t>(k)]] = T(1);
    }
  });
  return mask;
}

Routed DenseCapsules::route(const Tensor& u) {
  RoutingInputs inputs{.prior = prior, .mask = {}, .activation = {}};
  if (training() && options_.keep < 1) inputs.mask = draw_mask(u.size(0), u.dtype());
  Routed out = dynamic_routing(votes(u), options_.routing, inputs);
  if (options_.noise_class) out.poses = narrow(out.poses, 1, 0, upper_);
  return out;
}

Tensor lengths(const Tensor& poses) { return safe_norm(poses, {-1}); }

Tensor mask_poses_by(const Tensor& poses, const Tensor& factors) {
  return flatten(poses * unsqueeze(factors, -1), 1, 2);
}

Tensor mask_poses(const Tensor& poses, const Tensor& labels) {
  if (poses.dim() != 3 || labels.dim() != 1 || labels.size(0) != poses.size(0))
    throw ShapeError(fmt::format("mask_poses: poses [B, J, D] and labels [B]; got {} and {}",
                                 poses.shape().str(), labels.shape().str()));
  return mask_poses_by(poses, one_hot(labels, poses.size(1), poses.dtype()));
}

}  // namespace capsfw
