#include <algorithm>

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "../../ops/kernels/workspace.hpp"
#include "em_fused.hpp"
#include "em_plan.hpp"
#include "em_sample_vjp.hpp"

namespace capsfw::detail {
namespace {

/// Samples of one piece of work share working memory and sums of gradients.
constexpr std::int64_t kPieces = 16;

/// Numbers that the last cache may be expected to keep until somebody reads them.
constexpr std::int64_t kCached = 1 << 22;

/// Σ over the pieces [pieces, J, blocks of D rows], back to [rows, J, D].
template <class T>
Tensor add_up(const Tensor& parts, const EmPlan<T>& n, const Tensor& row, const Shape& shape) {
  constexpr std::int64_t kBlock = kernels::kEmBlock<T>;
  Tensor out = zeros(shape, parts.dtype());
  const T* p = parts.data<T>();
  const std::int64_t size = n.j * n.d, pieces = parts.size(0);
  const Tensor rows = row.defined() ? contiguous_data(row) : Tensor();
  const std::int64_t* at = rows.defined() ? rows.data<std::int64_t>() : nullptr;
  T* q = out.mutable_data<T>();
  for (std::int64_t piece = 0; piece < pieces; ++piece, p += size * n.pad)
    for (std::int64_t i = 0; i < n.i; ++i)
      for (std::int64_t e = 0; e < size; ++e)
        q[(at == nullptr ? i : at[i]) * size + e] +=
            p[(e / n.d * n.pad + i / kBlock * kBlock) * n.d + e % n.d * kBlock + i % kBlock];
  return out;
}

template <class T>
Tensor column_sums(const Tensor& x) {
  Tensor out = zeros({x.size(1)}, x.dtype());
  const T* p = x.data<T>();
  T* q = out.mutable_data<T>();
  for (std::int64_t s = 0; s < x.size(0); ++s)
    for (std::int64_t j = 0; j < x.size(1); ++j) q[j] += p[s * x.size(1) + j];
  return out;
}

template <class T>
EmInputs backward(const EmInputs& in,
                  const Tensor& state,
                  const Tensor& activations,
                  const EmCotangents& gy,
                  const EmSettings& o,
                  const EmNeeds& needs) {
  TensorList keep;
  const EmPlan<T> n = em_plan<T>(in, o, keep);
  const DType dtype = gy.poses.dtype();
  const auto read = [&](const Tensor& x) -> const T* {
    if (!x.defined()) return nullptr;
    keep.push_back(contiguous_data(x));
    return keep.back().template data<T>();
  };
  EmInputs out;
  const auto make = [&](bool wanted, Tensor& to, const Shape& shape) -> T* {
    if (!wanted) return nullptr;
    to = zeros(shape, dtype);
    return to.mutable_data<T>();
  };
  if (needs.votes) out.votes = empty(in.votes.shape(), dtype);
  const EmFlow<T> flow{
      .state = em_numbers<T>(state),
      .activations = read(activations),
      .gposes = read(gy.poses),
      .gactivations = read(gy.activations),
      .gvariance = read(gy.variance),
      .gassignments = read(gy.assignments),
      .votes = needs.votes ? out.votes.mutable_data<T>() : nullptr,
      .poses = make(needs.poses, out.poses, in.poses.defined() ? in.poses.shape() : Shape{}),
      .a_in = make(needs.a_in && n.activations, out.a_in,
                   in.a_in.defined() ? in.a_in.shape() : Shape{}),
      .beta_a = make(needs.beta_a, out.beta_a, {n.samples, n.j}),
      .beta_u = make(needs.beta_u, out.beta_u, {n.samples, n.j}),
      .stream = n.d % 16 == 0 && n.samples * n.i * n.j * n.d > kCached};

  const std::int64_t images = n.samples / n.patches, pieces = std::min(images, kPieces);
  Tensor parts;
  T* parts_data = make(needs.weight, parts, {pieces, n.j, n.d, n.pad});
  const std::int64_t kept = o.detach ? 1 : n.t - 1, terms = o.detach ? 1 : n.t;
  const auto padded = [](std::int64_t k) { return (k + 63) / 64 * 64; };
  kernels::Workspaces<T> rooms(pieces, EmRoom<T>::size(n, kept) + padded(kept * n.table()) +
                                           padded(n.t * n.j * 4 * n.d) + padded(terms * n.pad) +
                                           padded(n.slab()) + padded(n.slab()) + 3 * padded(n.pad) +
                                           padded(n.d));
  kernels::Workspaces<const T*> pointers(pieces, n.pad);
  kernels::Workspaces<T*> targets(pieces, n.pad);
  const std::int64_t cost = n.samples * n.i * n.j * n.d * n.t / (8 * pieces);
  parallel_for(pieces, cost, [&](std::int64_t begin, std::int64_t end) {
    const FlushDenormals flush;
    typename kernels::Workspaces<T>::Lease memory(rooms);
    typename kernels::Workspaces<const T*>::Lease rows(pointers);
    typename kernels::Workspaces<T*>::Lease ends(targets);
    const auto take = [&](std::int64_t k) { return memory.take(k); };
    const EmRoom<T> room(n, kept, take, rows.take(n.pad));
    EmBack<T> back{.gl = take(kept * n.table()),
                   .gaussians = take(n.t * n.j * 4 * n.d),
                   .rows = take(terms * n.pad),
                   .gvotes = take(n.slab()),
                   .gpose = take(n.slab()),
                   .galpha = take(n.pad),
                   .sums = take(n.pad),
                   .zeros = take(n.pad),
                   .scrap = take(n.d),
                   .weight = nullptr,
                   .targets = ends.take(n.pad)};
    std::fill_n(back.zeros, n.pad, T(0));
    std::fill_n(back.scrap, n.d, T(0));
    for (std::int64_t piece = begin; piece < end; ++piece) {
      if (parts_data != nullptr) back.weight = parts_data + piece * n.j * n.slab();
      const std::int64_t s0 = piece * images / pieces * n.patches,
                         s1 = (piece + 1) * images / pieces * n.patches;
      kernels::with_lanes([&n, &room, &back, &flow, s0, s1, detach = o.detach]<int kBytes>() {
        for (std::int64_t s = s0; s < s1; ++s)
          EmSampleVjp<kernels::Lanes<T, kBytes>, T>(n, room, back, flow, s, detach).run();
        if (flow.stream) kernels::finish_stream();
      });
    }
  });
  if (needs.weight) out.weight = add_up<T>(parts, n, in.row, in.weight.shape());
  if (needs.beta_a) out.beta_a = column_sums<T>(out.beta_a);
  if (needs.beta_u) out.beta_u = column_sums<T>(out.beta_u);
  return out;
}

}  // namespace

EmInputs fused_em_vjp(const EmInputs& in,
                      const Tensor& state,
                      const Tensor& activations,
                      const EmCotangents& gy,
                      const EmSettings& o,
                      const EmNeeds& needs) {
  return visit_float(gy.poses, "em_routing",
                     [&]<class T>() { return backward<T>(in, state, activations, gy, o, needs); });
}

}  // namespace capsfw::detail
