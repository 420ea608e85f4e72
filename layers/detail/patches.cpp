#include "patches.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

namespace capsfw::detail {
namespace {

/// Rows and columns of one axis of the geometry; sequences have a single row.
Dims two_dimensional(const Dims& d, int rank, std::int64_t otherwise) {
  if (d.empty())
    return rank == 1 ? Dims{otherwise == 0 ? 0 : 1, otherwise} : Dims{otherwise, otherwise};
  return rank == 1 ? Dims{otherwise == 0 ? 0 : 1, d[0]} : d;
}

void check_geometry(const PatchOptions& o, const Dims& map) {
  const int rank = o.kernel.rank();
  const auto fits = [&](const Dims& d) { return d.empty() || d.rank() == rank; };
  if (rank < 1 || rank > 2 || !fits(o.stride) || !fits(o.padding))
    throw ShapeError(fmt::format(
        "capsule_patches: kernel, stride and padding have one number (sequences) or two "
        "(maps); got {}, {} and {}",
        o.kernel.str(), o.stride.str(), o.padding.str()));
  for (int k = 0; k < rank; ++k) {
    const std::int64_t stride = o.stride.empty() ? 1 : o.stride[k],
                       pad = o.padding.empty() ? 0 : o.padding[k];
    if (o.kernel[k] < 1 || stride < 1 || pad < 0 || pad >= o.kernel[k])
      throw ValueError(fmt::format(
          "capsule_patches: kernel and stride must be at least 1, padding at least 0 and "
          "below the kernel, so that no patch is empty; got kernel {}, stride {}, padding "
          "{}",
          o.kernel[k], stride, pad));
    if (map[k] < 1 || map[k] + 2 * pad < o.kernel[k])
      throw ShapeError(fmt::format(
          "capsule_patches: a kernel of {} does not fit into {} positions with padding {}",
          o.kernel[k], map[k], pad));
  }
}

/// For every child that has a patch, where it stands: rows of equal length, filled up.
struct Places {
  std::vector<std::int64_t> row;    ///< of a place n·I + i; 0 in the padding
  std::vector<std::int64_t> place;  ///< [rows, width]
  std::vector<bool> used;           ///< false where a row was filled up
  std::vector<double> seen_by;      ///< patches that hold the child of a place; 1 in the padding
  std::int64_t rows = 0, width = 0;
};

Places find_places(const PatchIndex& index) {
  const auto children = static_cast<std::size_t>(
      index.child.empty() ? 0 : *std::max_element(index.child.begin(), index.child.end()) + 1);
  std::vector<std::vector<std::int64_t>> of_child(children);
  for (std::size_t q = 0; q < index.child.size(); ++q)
    if (index.child[q] >= 0)
      of_child[static_cast<std::size_t>(index.child[q])].push_back(static_cast<std::int64_t>(q));
  Places p;
  for (const auto& places : of_child)
    p.width = std::max(p.width, static_cast<std::int64_t>(places.size()));
  p.row.assign(index.child.size(), 0);
  p.seen_by.assign(index.child.size(), 1);
  for (const auto& places : of_child) {
    if (places.empty()) continue;  // a border that no patch reaches
    for (std::int64_t k = 0; k < p.width; ++k) {
      const bool used = k < static_cast<std::int64_t>(places.size());
      p.place.push_back(used ? places[static_cast<std::size_t>(k)] : 0);
      p.used.push_back(used);
    }
    for (const std::int64_t q : places) {
      p.row[static_cast<std::size_t>(q)] = p.rows;
      p.seen_by[static_cast<std::size_t>(q)] = static_cast<double>(places.size());
    }
    ++p.rows;
  }
  return p;
}

}  // namespace

Tensor PatchIndex::readable() const {
  std::vector<std::int64_t> out(child);
  for (std::int64_t& c : out) c = std::max<std::int64_t>(c, 0);
  return from_vector(out);
}

Tensor PatchIndex::mask() const {
  return padded ? ge(reshape(from_vector(child), {positions, children}), 0.0) : Tensor();
}

PatchIndex index_patches(std::int64_t types, const Dims& map, const PatchOptions& o) {
  check_geometry(o, map);
  const int rank = o.kernel.rank();
  const Dims k = two_dimensional(o.kernel, rank, 1), s = two_dimensional(o.stride, rank, 1),
             pad = two_dimensional(o.padding, rank, 0);
  const std::int64_t h = rank == 1 ? 1 : map[0], w = map.back();
  const std::int64_t ho = (h + 2 * pad[0] - k[0]) / s[0] + 1,
                     wo = (w + 2 * pad[1] - k[1]) / s[1] + 1;
  PatchIndex out;
  out.size = rank == 1 ? Dims{wo} : Dims{ho, wo};
  out.positions = ho * wo;
  out.children = types * k[0] * k[1];
  out.padded = pad[0] > 0 || pad[1] > 0;
  out.child.reserve(static_cast<std::size_t>(out.positions * out.children));
  for (std::int64_t y = 0; y < ho; ++y)
    for (std::int64_t x = 0; x < wo; ++x)
      for (std::int64_t c = 0; c < types; ++c)
        for (std::int64_t ky = 0; ky < k[0]; ++ky)
          for (std::int64_t kx = 0; kx < k[1]; ++kx) {
            const std::int64_t row = y * s[0] + ky - pad[0], column = x * s[1] + kx - pad[1];
            const bool inside = row >= 0 && row < h && column >= 0 && column < w;
            out.child.push_back(inside ? (c * h + row) * w + column : -1);
          }
  return out;
}

Tensor take_patches(const Tensor& x, const PatchIndex& index) {
  const int rank = index.size.rank();
  Shape rows{x.size(0), -1}, patches{x.size(0), index.positions, index.children};
  for (int k = 2 + rank; k < x.dim(); ++k) {
    rows.push_back(x.size(k));
    patches.push_back(x.size(k));
  }
  rows[1] = x.size(1) * x.size(2) * (rank == 2 ? x.size(3) : 1);
  const Tensor taken = reshape(index_select(reshape(x, rows), 1, index.readable()), patches);
  if (!index.padded) return taken;
  Shape aligned{1, index.positions, index.children};
  while (aligned.rank() < taken.dim()) aligned.push_back(1);
  return where(reshape(index.mask(), aligned), taken, 0.0);
}

Tensor to_map(const Tensor& x, std::int64_t batch, const Dims& size) {
  Shape apart{batch, size.numel()}, map{batch, x.size(1)};
  Axes order{0, 2, 1};
  for (const std::int64_t n : size) map.push_back(n);
  apart.push_back(x.size(1));
  for (int k = 2; k < x.dim(); ++k) {
    apart.push_back(x.size(k));
    map.push_back(x.size(k));
    order.push_back(k + 1);
  }
  return reshape(permute(reshape(x, apart), order), map);
}

Tensor repeat_for_batch(const Tensor& mask, std::int64_t batch) {
  if (!mask.defined()) return mask;
  const std::int64_t n = mask.size(0), i = mask.size(1);
  return reshape(broadcast_to(unsqueeze(mask, 0), {batch, n, i}), {batch * n, i});
}

EmCompetition compete_for_children(const PatchIndex& index,
                                   std::int64_t batch,
                                   std::int64_t parents,
                                   DType dtype) {
  const Places p = find_places(index);
  const std::int64_t n = index.positions, i = index.children;
  std::vector<double> start;
  start.reserve(p.seen_by.size());
  for (const double seen : p.seen_by)
    start.push_back(-std::log(seen * static_cast<double>(parents)));
  const Tensor row = from_vector(p.row), place = from_vector(p.place),
               used = from_vector(p.used, {p.rows, p.width});
  const Tensor one = cast_data(from_vector(start, {1, n, i, 1}), dtype);
  const Shape expanded{batch, n, i, 1};
  const Shape of_places{batch * n, i, 1}, by_child{batch, p.rows, p.width};
  // [B·N, I] of the places to tables of children, and what was found for the children back again.
  const auto gather = [=](const Tensor& x) {
    return where(used, reshape(index_select(reshape(x, {batch, n * i}), 1, place), by_child),
                 -INFINITY);
  };
  const auto give_back = [=](const Tensor& x) {
    return reshape(index_select(x, 1, row), of_places);
  };
  return {reshape(broadcast_to(one, expanded), of_places), [=](const Tensor& joint) {
            // The largest of a child is moved to 0, so that ln R of a winner keeps its digits.
            const Tensor top = max(gather(max(joint.detach(), {-1})), {-1});
            const Tensor x = joint - give_back(top);
            return x - give_back(logsumexp(gather(logsumexp(x, {-1})), {-1}));
          }};
}

}  // namespace capsfw::detail
