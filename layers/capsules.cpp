#include <capsfw/layers/capsules.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
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
  if (!(squash_c_ > 0))
    throw ValueError(fmt::format("PrimaryCapsules: squash_c must be positive; got {}", squash_c_));
  child("conv", conv);
}

Tensor PrimaryCapsules::forward(const Tensor& x) {
  const Tensor z = conv(x);  // [B, types·dim, H, W]
  const std::int64_t types = z.size(1) / dim_;
  const Tensor grouped =
      permute(reshape(z, {z.size(0), types, dim_, z.size(2), z.size(3)}), {0, 1, 3, 4, 2});
  return squash(reshape(grouped, {z.size(0), types * z.size(2) * z.size(3), dim_}), squash_c_);
}

DenseCapsules::DenseCapsules(std::int64_t lower,
                             std::int64_t lower_dim,
                             std::int64_t upper,
                             std::int64_t upper_dim,
                             Rng& rng,
                             DenseCapsulesOptions o)
    : votes("DenseCapsules",
            {.children = lower,
             .parents = upper + (o.noise_class ? 1 : 0),
             .dim = upper_dim,
             .child_dim = lower_dim},
            rng,
            {.weights = o.votes,
             .inner_dim = o.inner_dim,
             .bias = o.vote_bias,
             .frobenius = o.frobenius,
             .init_std = o.init_std}),
      upper_(upper),
      options_(std::move(o)),
      rng_(rng.split()) {
  if (upper < 1)
    throw ValueError(fmt::format(
        "DenseCapsules: at least 1 upper capsule beside the noise class; got {}", upper));
  if (!(options_.keep > 0 && options_.keep <= 1))
    throw ValueError(fmt::format("DenseCapsules: keep must lie in (0, 1]; got {}", options_.keep));
  child("votes", votes);
  routing_ = options_.routing.make(votes.size(), rng);
  child("routing", *routing_);
  generator("rng", rng_);
}

Routed DenseCapsules::route(const Tensor& u,
                            const Tensor& activations,
                            const Tensor& exists,
                            const RoutingObserver& observe) {
  const VoteProduct product = votes.product(u);
  Votes v{.votes = {}, .poses = u, .activations = activations, .exists = exists};
  v.kept = draw_kept(u.size(0));
  std::optional<Routed> direct;  // without making the votes
  if (product.weight.defined() && !observe) direct = routing_->route_product(product, v);
  if (!direct) v.votes = product.weight.defined() ? product.votes() : votes(u);
  return finish(direct ? *direct : (*routing_)(v, observe));
}

std::optional<Routed> DenseCapsules::route_windows(const Tensor& u,
                                                   std::int64_t rows,
                                                   std::int64_t step) {
  if (options_.votes != VoteWeights::shared) return std::nullopt;
  const VoteWindows windows{votes.product(u), rows, step};
  if (!windows.product.weight.defined()) return std::nullopt;
  Votes rest;
  const Rng before = rng_;
  rest.kept = draw_kept(u.size(0) * windows.count());
  const std::optional<Routed> out = routing_->route_windows(windows, rest);
  if (out) return finish(*out);
  rng_ = before;  // route() draws again
  return std::nullopt;
}

void DenseCapsules::balance(const Tensor& u, const Tensor& activations, const Tensor& exists) {
  const NoGradGuard no_grad;
  routing_->balance(
      [&] {
        return Votes{.votes = votes(u), .poses = u, .activations = activations, .exists = exists};
      },
      votes.weight);
}

Tensor DenseCapsules::draw_kept(std::int64_t batch) {
  if (!training() || options_.keep == 1) return {};
  return detail::draw_kept(batch, votes.size().parents, options_.keep, rng_);
}

Routed DenseCapsules::finish(Routed out) {
  if (options_.noise_class) {
    out.poses = narrow(out.poses, 1, 0, upper_);
    if (out.activations.defined()) out.activations = narrow(out.activations, 1, 0, upper_);
  }
  set_output_shape(out.poses.shape());
  return out;
}

namespace detail {

Tensor draw_kept(std::int64_t batch, std::int64_t parents, double keep, Rng& rng) {
  const auto kept =
      static_cast<std::int64_t>(std::max(1.0, std::round(keep * static_cast<double>(parents))));
  Tensor mask = zeros({batch, parents}, DType::b8);
  bool* p = mask.mutable_data<bool>();
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto order = rng.permutation(parents).to_vector<std::int64_t>();
    for (std::int64_t k = 0; k < kept; ++k)
      p[b * parents + order[static_cast<std::size_t>(k)]] = true;
  }
  return mask;
}

}  // namespace detail

Tensor lengths(const Tensor& poses) { return safe_norm(poses, {-1}); }

Tensor mask_poses_by(const Tensor& poses, const Tensor& factors) {
  if (poses.dim() != 3 || factors.dim() != 2 || factors.size(1) != poses.size(1) ||
      (factors.size(0) != poses.size(0) && factors.size(0) != 1))
    throw ShapeError(
        fmt::format("mask_poses_by: poses [B, J, D] and factors [B, J] or [1, J]; got {} and {}",
                    poses.shape().str(), factors.shape().str()));
  return flatten(poses * unsqueeze(factors, -1), 1, 2);
}

Tensor mask_poses(const Tensor& poses, const Tensor& labels) {
  if (poses.dim() != 3 || labels.dim() != 1 || labels.size(0) != poses.size(0))
    throw ShapeError(fmt::format("mask_poses: poses [B, J, D] and labels [B]; got {} and {}",
                                 poses.shape().str(), labels.shape().str()));
  return mask_poses_by(poses, one_hot(labels, poses.size(1), poses.dtype()));
}

}  // namespace capsfw
