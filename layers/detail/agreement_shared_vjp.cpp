#include <algorithm>

#include <capsfw/core/allocator.hpp>
#include <capsfw/ops/layout.hpp>

#include "../../core/denormals.hpp"
#include "../../ops/kernels/workspace.hpp"
#include "shared_plan.hpp"

namespace capsfw::detail {
namespace {

using kernels::small_product;

/// What is known, and where gradients go; null where not wanted.
template <class T>
struct Flow {
  const T *sums, *gsums;  ///< [samples, r, J, D]
  const T* couplings;     ///< of the last iteration [samples, J, wide_i]
  T* columns;             ///< gradient of u, like columns
  T *weight, *prior;      ///< [pieces, J, D, wide_e], [pieces, J, wide_i]
  bool detach;
};

/// Working memory of a sample.
template <class T>
struct Room {
  T *v, *gs, *g;                ///< [r, J, D], [J, D], [J, D]
  T *k, *gsigma, *sigma, *sum;  ///< [J, wide_e], the last one [wide_e]
  T* back;                      ///< [J, wide_d]
  T *c, *gb;                    ///< [J, wide_i]

  template <class Take>
  Room(const SharedPlan<T>& n, const Take& take)
      : v(take(n.r * n.caps())),
        gs(take(n.caps())),
        g(take(n.caps())),
        k(take(n.j * n.wide_e)),
        gsigma(take(n.j * n.wide_e)),
        sigma(take(n.j * n.wide_e)),
        sum(take(n.wide_e)),
        back(take(n.j * n.wide_d)),
        c(take(n.table())),
        gb(take(n.table())) {}
};

/// gW_j += x_j ⊗ y_j for x [J, D] and y [J, wide_e].
template <class L, class T>
void add_outer(const SharedPlan<T>& n, const T* x, const T* y, T* gw) {
  for (std::int64_t j = 0; j < n.j; ++j)
    small_product<L, true, T>(n.d, 1, n.wide_e, {x + j * n.d, 1, 0}, y + j * n.wide_e, 0,
                              gw + j * n.d * n.wide_e, n.wide_e);
}

/// gb_ij = c_ij (gc_ij − Σ_k c_ik gc_ik), in place of gc.
template <class T>
void softmax_vjp(const SharedPlan<T>& n, const T* __restrict c, T* __restrict g) {
  n.for_blocks([&n, c, g](std::int64_t begin, std::int64_t width) {
    T mean[SharedPlan<T>::kBlock];
    std::fill_n(mean, width, T(0));
    for (std::int64_t at = begin; at < n.table(); at += n.wide_i)
      for (std::int64_t x = 0; x < width; ++x) mean[x] += c[at + x] * g[at + x];
    for (std::int64_t at = begin; at < n.table(); at += n.wide_i)
      for (std::int64_t x = 0; x < width; ++x) g[at + x] = c[at + x] * (g[at + x] - mean[x]);
  });
}

/// With gS_t what arrives at S_t from outside, for t = n, ..., 1:
///   gs_t = gS_t + the rule from S_t to V_{t+1} applied backwards to g,   g starts at 0
///   gσ_j = W_jᵀ gs_j;  gc_ij = ⟨u_i, gσ_j⟩;  gb as in softmax_vjp;  h_j = Σ_i gb_ij u_i
///   g ← g + W h where V accumulates, else W h
///   gu_i += Σ_j c_ij gσ_j + gb_ij k_j;  gW_j += gs_j ⊗ σ_j + V_j ⊗ h_j;  gprior += gb
template <class L, class T>
void pull_back(const SharedPlan<T>& n,
               const AgreementRule& rule,
               const Flow<T>& flow,
               const Room<T>& room,
               std::int64_t sample,
               T* gweight,
               T* gprior) {
  const T *sums = flow.sums + n.at(sample, 0), *gsums = flow.gsums + n.at(sample, 0),
          *u = n.u_of(sample);
  T* gcolumns = flow.columns == nullptr ? nullptr : flow.columns + n.columns_of(sample);
  std::fill_n(room.v, n.caps(), T(0));
  for (std::int64_t t = 1; t < n.r; ++t) {
    T* v = room.v + t * n.caps();
    std::copy_n(v - n.caps(), n.caps(), v);
    next_centres(rule, t - 1, sums + (t - 1) * n.caps(), v, n.j, n.d);
  }
  std::fill_n(room.g, n.caps(), T(0));
  std::copy_n(gsums + (n.r - 1) * n.caps(), n.caps(), room.gs);
  // gu_i += Σ_j w_ij x_j
  const auto add_children = [&](const T* w, const T* x) {
    if (gcolumns != nullptr)
      small_product<L, true, T>(n.e, n.j, n.wide_i, {x, 1, n.wide_e}, w, n.wide_i, gcolumns,
                                n.wide_c);
  };
  for (std::int64_t t = n.r - 1; t >= 0; --t) {
    n.template pull<L>(room.gs, room.gsigma);
    if (t == 0 && n.uniform) {
      if (gweight != nullptr) {
        n.template sum_equally<L>(sample, room.sum, room.sigma);
        add_outer<L>(n, room.gs, room.sigma, gweight);
      }
      if (gcolumns == nullptr) return;
      small_product<L, false, T>(1, n.j, n.wide_e, {n.shares + sample * n.j, 0, 1}, room.gsigma,
                                 n.wide_e, room.sum, n.wide_e);
      for (std::int64_t e = 0; e < n.e; ++e)
        for (std::int64_t i = 0; i < n.i; ++i) gcolumns[e * n.wide_c + i] += room.sum[e];
      return;
    }
    const T *v = room.v + t * n.caps(), *c = room.c;
    if (t > 0) n.template pull<L>(v, room.k);
    if (t + 1 == n.r)
      c = flow.couplings + sample * n.table();
    else
      n.template couple<L>(sample, t > 0 ? room.k : nullptr, room.c);
    if (gweight != nullptr) {
      n.template sum_children<L>(n.j, {c, n.wide_i, 1}, u, room.sigma);
      add_outer<L>(n, room.gs, room.sigma, gweight);
    }
    add_children(c, room.gsigma);
    if (flow.detach) return;
    n.template agree<L>(sample, room.gsigma, room.gb);
    softmax_vjp(n, c, room.gb);
    n.clear_rest(room.gb);  // 0 · NaN of a child that only another window has
    for (std::int64_t x = 0; gprior != nullptr && x < n.table(); ++x) gprior[x] += room.gb[x];
    if (t == 0) return;
    add_children(room.gb, room.k);
    n.template sum_children<L>(n.j, {room.gb, n.wide_i, 1}, u, room.sigma);
    if (gweight != nullptr) add_outer<L>(n, v, room.sigma, gweight);
    n.template forth<L>(room.sigma, room.back);
    for (std::int64_t j = 0; j < n.j; ++j)
      for (std::int64_t d = 0; d < n.d; ++d)
        room.g[j * n.d + d] =
            room.back[j * n.wide_d + d] + (rule.accumulates() ? room.g[j * n.d + d] : T(0));
    std::copy_n(gsums + (t - 1) * n.caps(), n.caps(), room.gs);
    add_centres_vjp(rule, t - 1, sums + (t - 1) * n.caps(), room.g, room.gs, n.j, n.d);
  }
}

/// The sum over pieces [pieces, ..., width], without what its rows were filled up by.
template <class T>
Tensor add_up(const Tensor& pieces, const Shape& shape) {
  const std::int64_t width = pieces.size(-1), n = shape.back(), rows = shape.numel() / n;
  Tensor out = zeros(shape, pieces.dtype());
  const T* p = pieces.data<T>();
  T* q = out.mutable_data<T>();
  for (std::int64_t piece = 0; piece < pieces.size(0); ++piece)
    for (std::int64_t row = 0; row < rows; ++row, p += width)
      for (std::int64_t x = 0; x < n; ++x) q[row * n + x] += p[x];
  return out;
}

template <class T>
ProductInputs backward(const ProductInputs& in,
                       const RoutingValues& values,
                       const Tensor& gsums,
                       const AgreementRule& rule,
                       const ProductNeeds& needs,
                       const RoutingWindows& windows) {
  constexpr std::int64_t kPieces = 16;
  const SharedPlan<T> n(in, rule, windows);
  const DType dtype = in.u.dtype();
  // Windows of one source add to the same gradients.
  const std::int64_t pieces = std::min(n.sources, kPieces);
  Tensor columns, weight, prior;
  const auto make = [&](bool wanted, Tensor& to, const Shape& shape) -> T* {
    if (!wanted) return nullptr;
    to = zeros(shape, dtype);
    return to.mutable_data<T>();
  };
  const Flow<T> flow{.sums = values.sums.data<T>(),
                     .gsums = gsums.data<T>(),
                     .couplings = values.couplings.data<T>(),
                     .columns = make(needs.u, columns, {n.sources, n.e, n.wide_c}),
                     .weight = make(needs.weight, weight, {pieces, n.j, n.d, n.wide_e}),
                     .prior = make(needs.prior, prior, {pieces, n.j, n.wide_i}),
                     .detach = rule.detach};
  std::int64_t each = 0;
  const auto count = [&each](std::int64_t k) {
    each += kernels::Workspaces<T>::padded(k);
    return static_cast<T*>(nullptr);
  };
  Room<T>(n, count);
  kernels::Workspaces<T> rooms(pieces, each);
  const std::int64_t cost =
      n.samples / pieces * n.r * n.j * n.wide_e * (2 * n.wide_i + n.wide_d) / 4;
  parallel_for(pieces, cost, [&](std::int64_t begin, std::int64_t end) {
    const FlushDenormals flush;
    typename kernels::Workspaces<T>::Lease memory(rooms);
    const Room<T> room(n, [&memory](std::int64_t k) { return memory.take(k); });
    kernels::with_lanes([&n, &rule, &flow, &room, pieces, begin, end]<int kBytes>() {
      for (std::int64_t p = begin; p < end; ++p) {
        T *gw = row_or_null(flow.weight, p, n.caps() * n.wide_e),
          *gprior = row_or_null(flow.prior, p, n.table());
        const std::int64_t first = p * n.sources / pieces * n.windows,
                           last = (p + 1) * n.sources / pieces * n.windows;
        for (std::int64_t x = first; x < last; ++x)
          pull_back<kernels::Lanes<T, kBytes>>(n, rule, flow, room, x, gw, gprior);
      }
    });
  });
  ProductInputs out;
  if (needs.u) {
    out.u = empty(in.u.shape(), dtype);
    const T* p = columns.data<T>();
    T* q = out.u.mutable_data<T>();
    parallel_for(n.sources, n.children * n.e / 4, [=, &n](std::int64_t begin, std::int64_t end) {
      for (std::int64_t b = begin; b < end; ++b)
        kernels::transpose_out(n.e, n.children, p + b * n.e * n.wide_c, n.wide_c,
                               q + b * n.children * n.e, n.e);
    });
  }
  if (needs.weight) out.weight = add_up<T>(weight, in.weight.shape());
  if (needs.prior) out.prior = contiguous_data(transpose(add_up<T>(prior, {n.j, n.i}), 0, 1));
  return out;
}

}  // namespace

ProductInputs shared_routing_vjp(const ProductInputs& in,
                                 const RoutingValues& values,
                                 const Tensor& gsums,
                                 const AgreementRule& rule,
                                 const ProductNeeds& needs,
                                 const RoutingWindows& windows) {
  const RoutingValues read{contiguous_data(values.sums), values.couplings};
  const Tensor g = contiguous_data(gsums);
  return visit_float(in.u, rule.name(),
                     [&]<class T>() { return backward<T>(in, read, g, rule, needs, windows); });
}

}  // namespace capsfw::detail
