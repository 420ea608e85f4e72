#include <algorithm>

#include "../../core/denormals.hpp"
#include "../../ops/kernels/workspace.hpp"
#include "agreement_product.hpp"

namespace capsfw::detail {
namespace {

/// Where gradients go, in groups (u) or as they are; null where not wanted.
template <class T>
struct ProductTargets {
  T *u, *weight, *prior;
};

/// What the last pass needs to know of the iterations `count` that it pulls back.
template <class T>
struct Iterations {
  const T* const* x;  ///< v and gs of each, for each group
  std::int64_t count;
  const T* rest;  ///< what the first iteration adds to gû [groups, J, D, lanes], or null
  bool through;   ///< couplings are no constants
};

/// Gradients of up to kChildren children from all samples: per group the couplings of all
/// iterations again, then per parent gû, which turns into gu and gW while it is in the first cache.
template <class L, int E, class T>
void gather_children(const ProductPlan& plan,
                     const ProductPass<T>& pass,
                     const Iterations<T>& its,
                     const ProductTargets<T>& targets,
                     std::int64_t i,
                     std::int64_t children,
                     T* tables,
                     T* gvotes,
                     T* gw) {
  const kernels::VoteSizes n = plan.size;
  const std::int64_t table = plan.table(), caps = plan.caps(), size = n.d * L::size,
                     room = 2 * its.count * table, group_u = plan.group_u(), one = n.weights(),
                     count = its.count, row_u = n.e * L::size;
  const bool leaky = pass.leaky, through = its.through;
  const T *w = pass.weight + i * one, *u = pass.u + i * row_u, *rest = its.rest;
  T* gu = targets.u == nullptr ? nullptr : targets.u + i * row_u;
  for (std::int64_t set = 0; set < plan.sets; ++set) {
    const std::int64_t g0 = plan.first_group(set), groups = plan.first_group(set + 1) - g0;
    kernels::for_groups<L>(groups, [=, &its]<int G>(std::int64_t g) {
      T* votes = nullptr;
      kernels::make_votes<L, E, G>(n, w, u + (g0 + g) * group_u, group_u, children,
                                   its.x + (g0 + g) * 2 * count, 2 * count, votes,
                                   tables + g * children * room);
    });
    for (std::int64_t g = 0; g < groups; ++g) {
      T* first = tables + g * children * room;
      const T* bias = pass.bias == nullptr ? nullptr : pass.bias + (g0 + g) * table;
      for (std::int64_t k = 0; k < children; ++k)
        for (std::int64_t t = 0; t < count; ++t) {
          T* c = first + k * room + 2 * t * table;
          kernels::softmax_votes<L>(
              n.j, pass.prior == nullptr ? nullptr : pass.prior + (i + k) * n.j, bias, leaky, c);
          kernels::softmax_votes_vjp<L>(n.j, c, c + table);
        }
      if (gu != nullptr) std::fill_n(gu + (g0 + g) * group_u, children * row_u, T(0));
    }
    for (std::int64_t j = 0; j < n.j; ++j) {
      for (std::int64_t g = 0; g < groups; ++g)
        for (std::int64_t k = 0; k < children; ++k) {
          T* gv = gvotes + (k * ProductPlan::kSet + g) * size;
          kernels::gather_vote<L>(n, its.x + (g0 + g) * 2 * count,
                                  tables + (g * children + k) * room, count, through,
                                  rest == nullptr ? nullptr : rest + (g0 + g) * caps, j, gv);
          if (gu != nullptr)
            kernels::add_child_gradient<L>(n, w + k * one + j * n.d * n.e, gv,
                                           gu + (g0 + g) * group_u + k * row_u);
        }
      for (std::int64_t k = 0; k < children && gw != nullptr; ++k)
        kernels::add_weight_gradient<L>(n, gvotes + k * ProductPlan::kSet * size, size,
                                        u + g0 * group_u + k * row_u, group_u, groups, set > 0,
                                        gw + k * one + j * n.d * n.e);
    }
    for (std::int64_t k = 0; k < children && targets.prior != nullptr; ++k)
      for (std::int64_t j = 0; j < n.j; ++j) {
        typename L::Value sum{};
        for (std::int64_t g = 0; g < groups; ++g)
          for (std::int64_t t = 0; t < count; ++t)
            sum += L::at(tables + (g * children + k) * room + (2 * t + 1) * table + j * L::size);
        T total;
        L::template sums<1>(&sum, &total);
        targets.prior[(i + k) * n.j + j] += total;
      }
  }
}

template <class T>
void gather(const ProductPlan& n,
            const ProductPass<T>& pass,
            const Iterations<T>& its,
            const ProductTargets<T>& targets) {
  const std::int64_t groups = std::min(n.groups, n.kSet),
                     tables = groups * ProductPlan::kChildren * 2 * its.count * n.table(),
                     votes = ProductPlan::kChildren * n.kSet * n.size.d * n.lanes,
                     cost = n.rows * n.groups * n.caps() * (3 * n.size.e + 12) / 32;
  using Rooms = kernels::Workspaces<T>;
  Rooms rooms(n.chunks, Rooms::padded(tables) + Rooms::padded(votes));
  parallel_for(n.chunks, cost, [&](std::int64_t begin, std::int64_t end) {
    const FlushDenormals flush;
    typename Rooms::Lease room(rooms);
    T *table = room.take(tables), *vote = room.take(votes);
    for (std::int64_t chunk = begin; chunk < end; ++chunk) {
      const std::int64_t i0 = chunk * n.rows, i1 = std::min(i0 + n.rows, n.i);
      with_child_size<T>(n.size.e, [=, &n, &pass, &its, &targets]<class L, int E>() {
        for (std::int64_t i = i0; i < i1; i += ProductPlan::kChildren) {
          T* gw = targets.weight == nullptr ? nullptr : targets.weight + i * n.size.weights();
          gather_children<L, E>(n, pass, its, targets, i,
                                std::min<std::int64_t>(ProductPlan::kChildren, i1 - i), table, vote,
                                gw);
        }
      });
    }
  });
}

/// For t = n, ..., 1, with gS_t the gradient that arrives at S_t from outside
/// (agreement_stored_vjp):
///   gs_t = gS_t + the rule from S_t to V_{t+1} applied backwards to g,   h = Σ_i gb û at V_t, gs_t
///   g ← g + h where V accumulates, else h
/// One pass more turns all (V_t, gs_t) into the gradients.
template <class T>
ProductInputs backward(const ProductInputs& in,
                       const Tensor& sums,
                       const Tensor& gsums,
                       const AgreementRule& rule,
                       const ProductNeeds& needs) {
  const ProductPlan n(in, rule.sums);
  const DType dtype = in.u.dtype();
  const std::int64_t j = n.size.j, d = n.size.d, caps = j * d,
                     first = rule.detach                              ? n.r - 1
                             : rule.uniform_start(in.prior.defined()) ? 1
                                                                      : 0;
  const auto row = [&](std::int64_t b, std::int64_t t) { return (b * n.r + t) * caps; };
  Tensor v = zeros(sums.shape(), dtype), gs = empty(sums.shape(), dtype);
  const T* s = sums.data<T>();
  T *v_data = v.mutable_data<T>(), *gs_data = gs.mutable_data<T>();
  std::copy_n(gsums.data<T>(), gsums.numel(), gs_data);
  for (std::int64_t b = 0; b < n.b; ++b)
    for (std::int64_t t = 1; t < n.r; ++t) {
      std::copy_n(v_data + row(b, t - 1), caps, v_data + row(b, t));
      next_centres(rule, t - 1, s + row(b, t - 1), v_data + row(b, t), j, d);
    }
  // In groups: [groups, r, J, D, lanes].
  const Tensor u = to_groups(in.u, n), bias = to_groups(in.bias, n), seen = to_groups(v, n);
  Tensor arrived = to_groups(gs, n);
  const std::int64_t group = n.r * n.caps();
  ProductPass<T> pass{.u = u.data<T>(),
                      .weight = in.weight.data<T>(),
                      .prior = data_or_null<T>(in.prior),
                      .bias = data_or_null<T>(bias),
                      .v = nullptr,
                      .gs = nullptr,
                      .v_group = group,
                      .leaky = rule.leaky,
                      .couplings = nullptr};
  Tensor g = zeros({n.b, j, d}, dtype), rest;
  for (std::int64_t t = n.r - 1; t > 0 && !rule.detach; --t) {
    pass.v = seen.data<T>() + t * n.caps();
    pass.gs = arrived.data<T>() + t * n.caps();
    const Tensor h = from_groups(run_pass<T>(n, pass), n, {n.b, j, d});
    T* g_data = g.mutable_data<T>();
    for (std::int64_t x = 0; x < n.b * caps; ++x)
      g_data[x] = h.data<T>()[x] + (rule.accumulates() ? g_data[x] : T(0));
    Tensor now = empty({n.b, j, d}, dtype);
    for (std::int64_t b = 0; b < n.b; ++b) {
      add_centres_vjp(rule, t - 1, s + row(b, t - 1), g_data + b * caps, gs_data + row(b, t - 1), j,
                      d);
      std::copy_n(gs_data + row(b, t - 1), caps, now.mutable_data<T>() + b * caps);
    }
    if (t == 1 && first == 1) {  // c_1 is constant, and the first iteration adds c_1 gs_1 only
      const Tensor shares = uniform_shares(in.bias, n.b, j, dtype, rule.leaky_start());
      T* now_data = now.mutable_data<T>();
      for (std::int64_t x = 0; x < n.b * caps; ++x) now_data[x] *= shares.data<T>()[x / d];
      rest = to_groups(now, n);
    } else {
      const Tensor lanes = to_groups(now, n);
      for (std::int64_t k = 0; k < n.groups; ++k)
        std::copy_n(lanes.data<T>() + k * n.caps(), n.caps(),
                    arrived.mutable_data<T>() + k * group + (t - 1) * n.caps());
    }
  }
  std::vector<const T*> x;
  for (std::int64_t k = 0; k < n.groups; ++k)
    for (std::int64_t t = first; t < n.r; ++t)
      for (const Tensor* each : {&seen, static_cast<const Tensor*>(&arrived)})
        x.push_back(each->data<T>() + k * group + t * n.caps());

  ProductInputs out;
  Tensor gu;
  if (needs.u) gu = empty(u.shape(), dtype);
  if (needs.weight) out.weight = empty(in.weight.shape(), dtype);
  if (needs.prior) out.prior = zeros(in.prior.shape(), dtype);
  const auto target = [](Tensor& to) { return to.defined() ? to.mutable_data<T>() : nullptr; };
  gather<T>(n, pass, {x.data(), n.r - first, data_or_null<T>(rest), !rule.detach},
            {target(gu), target(out.weight), target(out.prior)});
  if (needs.u) out.u = from_groups(gu, n, in.u.shape());
  return out;
}

}  // namespace

ProductInputs product_routing_vjp(const ProductInputs& in,
                                  const Tensor& sums,
                                  const Tensor& gsums,
                                  const AgreementRule& rule,
                                  const ProductNeeds& needs) {
  return visit_float(in.u, rule.name(),
                     [&]<class T>() { return backward<T>(in, sums, gsums, rule, needs); });
}

}  // namespace capsfw::detail
