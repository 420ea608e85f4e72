#include <capsfw/layers/conv_capsule_layer.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>

#include "detail/patches.hpp"

namespace capsfw {
namespace {

std::int64_t children_of(std::int64_t in, const PatchOptions& o) {
  const int rank = o.kernel.rank();
  const bool positive =
      std::all_of(o.kernel.begin(), o.kernel.end(), [](std::int64_t k) { return k >= 1; });
  if (in < 1 || rank < 1 || rank > 2 || !positive)
    throw ValueError(
        fmt::format("ConvCapsules: at least 1 capsule type below, and a kernel of one or two "
                    "numbers of at least 1; got {} and {}",
                    in, o.kernel.str()));
  return in * o.kernel.numel();
}

}  // namespace

ConvCapsules::ConvCapsules(std::int64_t in,
                           std::int64_t in_dim,
                           std::int64_t types,
                           std::int64_t dim,
                           const PatchOptions& patches,
                           Rng& rng,
                           DenseCapsulesOptions options)
    : patch(children_of(in, patches), in_dim, types, dim, rng, std::move(options)),
      in_(in),
      in_dim_(in_dim),
      patches_(patches) {
  child("patch", patch);
}

ConvRouted ConvCapsules::route(const Tensor& x,
                               const Tensor& activations,
                               const Tensor& exists,
                               const RoutingObserver& observe,
                               bool couplings) {
  const int rank = patches_.kernel.rank();
  if (x.dim() != rank + 3 || x.size(1) != in_ || x.size(-1) != in_dim_)
    throw ShapeError(fmt::format("ConvCapsules: x must be [B, {}, {}, {}] for a kernel {}; got {}",
                                 in_, rank == 1 ? "L" : "H, W", in_dim_, patches_.kernel.str(),
                                 x.shape().str()));
  Shape map = x.shape();
  map.erase(map.rank() - 1);
  for (const Tensor& t : {activations, exists})
    if (t.defined() && t.shape() != map)
      throw ShapeError(
          fmt::format("ConvCapsules: the activations and 'exists' must be {} for x {}; got {}",
                      map.str(), x.shape().str(), t.shape().str()));
  if (exists.defined() && exists.dtype() != DType::b8)
    throw DTypeError(
        fmt::format("ConvCapsules: 'exists' must be b8; got {}", name_of(exists.dtype())));
  const detail::PatchIndex index = detail::index_patches(
      in_, rank == 1 ? Dims{x.size(2)} : Dims{x.size(2), x.size(3)}, patches_);
  const std::int64_t b = x.size(0), n = index.positions, i = index.children;
  if (rank == 1 && !index.padded && !activations.defined() && !exists.defined() && !observe &&
      !patch.routing().fixes_children()) {
    // Children in the order (position, type), in which those of a patch are neighbours; a learned
    // prior is of children in the order (type, position).
    const std::int64_t k = patches_.kernel[0], s = patches_.stride.empty() ? 1 : patches_.stride[0];
    const Tensor u = reshape(permute(x, {0, 2, 1, 3}), {b, x.size(2) * in_, in_dim_});
    if (const auto r = patch.route_windows(u, k * in_, s * in_)) {
      const std::int64_t j = r->couplings.size(2);
      const auto by_type = [&] {
        const Tensor c = reshape(r->couplings, {b, n, k, in_, j});
        return reshape(permute(c, {0, 1, 3, 2, 4}), {b, n, i, j});
      };
      const Tensor poses = detail::to_map(r->poses, b, index.size);
      set_output_shape(poses.shape());
      return {poses, couplings ? by_type() : Tensor()};
    }
  }
  const auto taken = [&](const Tensor& t) {
    return t.defined() ? reshape(detail::take_patches(t, index), {b * n, i}) : Tensor();
  };
  // Outside the map is 0, that is, no child.
  const Tensor there = exists.defined() ? ne(taken(capsfw::to(exists, x.dtype())), 0.0)
                                        : detail::repeat_for_batch(index.mask(), b);
  const Routed r = patch.route(reshape(detail::take_patches(x, index), {b * n, i, in_dim_}),
                               taken(activations), there, observe);
  const Tensor poses = detail::to_map(r.poses, b, index.size);
  set_output_shape(poses.shape());
  return {poses, reshape(r.couplings, {b, n, i, r.couplings.size(2)}),
          r.activations.defined() ? detail::to_map(r.activations, b, index.size) : Tensor()};
}

void ConvCapsules::balance(const Tensor& x) {
  const Patches p = capsule_patches(x, patches_);
  patch.balance(reshape(p.values, {-1, p.values.size(2), in_dim_}), {},
                detail::repeat_for_batch(p.mask, x.size(0)));
}

}  // namespace capsfw
