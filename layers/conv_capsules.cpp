#include <capsfw/layers/conv_capsules.hpp>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>

#include "detail/em_fused.hpp"
#include "detail/em_loop.hpp"
#include "detail/patches.hpp"

namespace capsfw {
namespace {

/// {H, W} or {L} of x [B, C, map..., ...] with `extra` axes behind the map.
Dims map_of(const char* who, const Tensor& x, const PatchOptions& o, int extra) {
  const int rank = o.kernel.rank();
  if (x.dim() < 2 + rank || (extra >= 0 && x.dim() != 2 + rank + extra))
    throw ShapeError(fmt::format("{}: a kernel {} takes capsules [B, C, {}{}]; got {}", who,
                                 o.kernel.str(), rank == 1 ? "L" : "H, W",
                                 extra < 0    ? ", ..."
                                 : extra == 0 ? ""
                                              : ", E",
                                 x.shape().str()));
  return rank == 1 ? Dims{x.size(2)} : Dims{x.size(2), x.size(3)};
}

/// Poses [B, C, H, W, P, P] and activations [B, C, H, W].
void check_matrix_capsules(const char* who, const Tensor& pose, const Tensor& activation) {
  if (pose.dim() != 6 || pose.size(4) != pose.size(5))
    throw ShapeError(
        fmt::format("{}: poses must be [B, C, H, W, P, P]; got {}", who, pose.shape().str()));
  const Shape expected{pose.size(0), pose.size(1), pose.size(2), pose.size(3)};
  if (!activation.defined() || activation.shape() != expected)
    throw ShapeError(fmt::format("{}: activations must be {} for poses {}; got {}", who,
                                 expected.str(), pose.shape().str(),
                                 activation.defined() ? activation.shape().str() : "none"));
}

void check_matrix_weight(const char* who, const Tensor& weight, std::int64_t rows, std::int64_t p) {
  if (weight.dim() != 4 || weight.size(0) != rows || weight.size(2) != p || weight.size(3) != p)
    throw ShapeError(fmt::format("{}: the weight must be [{}, J, {}, {}]; got {}", who, rows, p, p,
                                 weight.shape().str()));
}

}  // namespace

Patches capsule_patches(const Tensor& x, const PatchOptions& options) {
  const Dims map = map_of("capsule_patches", x, options, -1);
  const detail::PatchIndex index = detail::index_patches(x.size(1), map, options);
  return {detail::take_patches(x, index), index.mask(), index.size};
}

Tensor conv_caps(const Tensor& x,
                 const Tensor& weight,
                 const PatchOptions& options,
                 const PatchRouting& route) {
  const Dims map = map_of("conv_caps", x, options, 1);
  const detail::PatchIndex index = detail::index_patches(x.size(1), map, options);
  const std::int64_t b = x.size(0), n = index.positions, i = index.children;
  const Tensor u = reshape(detail::take_patches(x, index), {b * n, i, x.size(-1)});
  const Tensor votes = weight.dim() == 3 ? votes_shared(u, weight) : votes_full(u, weight);
  return detail::to_map(route(votes, detail::repeat_for_batch(index.mask(), b)), b, index.size);
}

Tensor conv_caps_dynamic(const Tensor& x,
                         const Tensor& weight,
                         const PatchOptions& options,
                         const DynamicRoutingOptions& routing) {
  return conv_caps(x, weight, options, [&](const Tensor& votes, const Tensor& mask) {
    RoutingInputs inputs;
    if (mask.defined()) inputs.activation = to(mask, votes.dtype());
    return dynamic_routing(votes, routing, inputs).poses;
  });
}

Competition competition(std::string_view name) {
  if (name == "patch") return Competition::patch;
  if (name == "child") return Competition::child;
  throw ValueError(fmt::format("competition: patch or child; got '{}'", name));
}

ConvEmRouted conv_caps_em(const Tensor& pose,
                          const Tensor& activation,
                          const Tensor& weight,
                          const Tensor& beta_a,
                          const Tensor& beta_u,
                          const std::vector<double>& lambdas,
                          const PatchOptions& options,
                          const ConvEmOptions& o) {
  constexpr const char* kWho = "conv_caps_em";
  check_matrix_capsules(kWho, pose, activation);
  const Dims map = map_of(kWho, activation, options, 0);
  const detail::PatchIndex index = detail::index_patches(pose.size(1), map, options);
  const std::int64_t b = pose.size(0), n = index.positions, i = index.children, p = pose.size(5);
  check_matrix_weight(kWho, weight, i, p);
  if (o.em.init.mean.defined() || o.em.mask.defined())
    throw ValueError("conv_caps_em: takes no initial Gaussians and no mask");
  const std::int64_t j = weight.size(1), children = pose.size(1) * pose.size(2) * pose.size(3);
  detail::check_em(kWho, {b * n, i, j, p * p}, nullptr, beta_a, beta_u, lambdas, o.em);
  EmRouted r;
  if (o.competition == Competition::patch && !detail::plain_only(o.em)) {
    const detail::EmInputs inputs{.poses = reshape(pose, {b, children, p * p}),
                                  .weight = reshape(weight, {i, j, p * p}),
                                  .child = reshape(from_vector(index.child), {n, i}),
                                  .a_in = reshape(activation, {b, children}),
                                  .beta_a = beta_a,
                                  .beta_u = beta_u,
                                  .lambdas = from_vector(lambdas)};
    detail::EmSettings settings(o.em);
    settings.assignments = o.assignments;
    r = detail::record_em(inputs, settings);
  } else {
    const Tensor votes =
        votes_matrix(reshape(detail::take_patches(pose, index), {b * n, i, p, p}), weight);
    const Tensor a = reshape(detail::take_patches(activation, index), {b * n, i});
    EmOptions em = o.em;
    em.mask = detail::repeat_for_batch(index.mask(), b);
    r = detail::run_em(votes, a, beta_a, beta_u, lambdas, em,
                       o.competition == Competition::patch
                           ? detail::compete_over_parents(j, votes.dtype())
                           : detail::compete_for_children(index, b, j, votes.dtype()));
  }
  const Shape matrices{b * n, j, p, p};
  return {detail::to_map(reshape(r.poses, matrices), b, index.size),
          detail::to_map(r.activations, b, index.size),
          o.assignments ? reshape(r.assignments, {b, n, i, j}) : Tensor(),
          detail::to_map(reshape(r.variance, matrices), b, index.size)};
}

Tensor coordinate_addition(const Tensor& votes, const Dims& at) {
  if (votes.dim() != 7)
    throw ShapeError(fmt::format("coordinate_addition: votes must be [B, C, H, W, J, P, P]; got {}",
                                 votes.shape().str()));
  const std::int64_t h = votes.size(2), w = votes.size(3), rows = votes.size(5),
                     columns = votes.size(6), pose = rows * columns;
  const Dims places = at.empty() ? Dims{columns - 1, 2 * columns - 1} : at;
  if (places.rank() != 2 || places[0] < 0 || places[1] < 0 || places[0] >= pose ||
      places[1] >= pose || places[0] == places[1])
    throw ShapeError(
        fmt::format("coordinate_addition: two different places in a pose of {} elements; got {}",
                    pose, places.str()));
  std::vector<double> offset(static_cast<std::size_t>(h * w * pose), 0.0);
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x) {
      const std::int64_t begin = (y * w + x) * pose;
      offset[static_cast<std::size_t>(begin + places[0])] =
          (static_cast<double>(y) + 0.5) / static_cast<double>(h);
      offset[static_cast<std::size_t>(begin + places[1])] =
          (static_cast<double>(x) + 0.5) / static_cast<double>(w);
    }
  return votes + cast_data(from_vector(offset, {h, w, 1, rows, columns}), votes.dtype());
}

EmRouted class_caps_em(const Tensor& pose,
                       const Tensor& activation,
                       const Tensor& weight,
                       const Tensor& beta_a,
                       const Tensor& beta_u,
                       const std::vector<double>& lambdas,
                       const ClassEmOptions& o) {
  constexpr const char* kWho = "class_caps_em";
  check_matrix_capsules(kWho, pose, activation);
  check_matrix_weight(kWho, weight, pose.size(1), pose.size(5));
  const std::int64_t b = pose.size(0), c = pose.size(1), h = pose.size(2), w = pose.size(3),
                     j = weight.size(1), p = pose.size(4), i = c * h * w;
  if (detail::plain_only(o.em)) {
    Tensor votes = einsum("bchwpq,cjqr->bchwjpr", pose, weight);
    if (o.coordinates) votes = coordinate_addition(votes, o.coordinate_places);
    return em_routing(reshape(votes, {b, i, j, p * p}), reshape(activation, {b, i}), beta_a, beta_u,
                      lambdas, o.em);
  }
  detail::check_em(kWho, {b, i, j, p * p}, nullptr, beta_a, beta_u, lambdas, o.em);
  std::vector<std::int64_t> child, type;
  for (std::int64_t k = 0; k < i; ++k) child.push_back(k), type.push_back(k / (h * w));
  detail::EmInputs inputs{.poses = reshape(pose, {b, i, p * p}),
                          .weight = reshape(weight, {c, j, p * p}),
                          .child = from_vector(child, {1, i}),
                          .row = from_vector(type),
                          .a_in = reshape(activation, {b, i}),
                          .beta_a = beta_a,
                          .beta_u = beta_u,
                          .mask = o.em.mask,
                          .lambdas = from_vector(lambdas)};
  if (o.coordinates)
    inputs.offset = reshape(
        coordinate_addition(zeros({1, c, h, w, 1, p, p}, pose.dtype()), o.coordinate_places),
        {i, p * p});
  return detail::record_em(inputs, detail::EmSettings(o.em));
}

}  // namespace capsfw
