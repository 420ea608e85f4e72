#include "agreement_shared.hpp"

#include <algorithm>

#include <capsfw/core/allocator.hpp>
#include <capsfw/ops/layout.hpp>

#include "../../core/denormals.hpp"
#include "../../ops/kernels/workspace.hpp"
#include "shared_plan.hpp"

namespace capsfw::detail {
namespace {

/// Working memory of a sample.
template <class T>
struct Room {
  T *v, *k, *sigma, *s, *sum;
};

template <class L, class T>
void route(const SharedPlan<T>& n,
           const AgreementRule& rule,
           const Room<T>& room,
           std::int64_t sample,
           T* sums,
           T* couplings) {
  std::fill_n(room.v, n.caps(), T(0));
  for (std::int64_t t = 0; t < n.r; ++t, sums += n.caps()) {
    if (t == 0 && n.uniform) {
      n.template sum_equally<L>(sample, room.sum, room.sigma);
    } else {
      n.template couple<L>(sample, t == 0 ? nullptr : room.k, couplings);
      n.template sum_children<L>(n.j, {couplings, n.wide_i, 1}, n.u_of(sample), room.sigma);
    }
    n.template forth<L>(room.sigma, room.s);
    for (std::int64_t j = 0; j < n.j; ++j) std::copy_n(room.s + j * n.wide_d, n.d, sums + j * n.d);
    if (t + 1 == n.r) return;
    next_centres(rule, t, sums, room.v, n.j, n.d);
    n.template pull<L>(room.v, room.k);
  }
}

template <class T>
RoutingValues forward(const ProductInputs& in,
                      const AgreementRule& rule,
                      const RoutingWindows& windows) {
  const SharedPlan<T> n(in, rule, windows);
  const DType dtype = in.u.dtype();
  Tensor sums = empty({n.samples, n.r, n.j, n.d}, dtype),
         table = empty({n.samples, n.j, n.wide_i}, dtype);
  T *s = sums.mutable_data<T>(), *c = table.mutable_data<T>();
  using Rooms = kernels::Workspaces<T>;
  const std::int64_t capsules = n.j * n.wide_e;
  Rooms rooms(n.samples, Rooms::padded(n.caps()) + 2 * Rooms::padded(capsules) +
                             Rooms::padded(n.j * n.wide_d) + Rooms::padded(n.wide_e));
  const std::int64_t cost = n.r * n.j * n.wide_e * (n.wide_i + n.wide_d) / 8;
  parallel_for(n.samples, cost, [&](std::int64_t begin, std::int64_t end) {
    const FlushDenormals flush;
    typename Rooms::Lease memory(rooms);
    const Room<T> room{memory.take(n.caps()), memory.take(capsules), memory.take(capsules),
                       memory.take(n.j * n.wide_d), memory.take(n.wide_e)};
    kernels::with_lanes([&n, &rule, &room, s, c, begin, end]<int kBytes>() {
      for (std::int64_t x = begin; x < end; ++x)
        route<kernels::Lanes<T, kBytes>>(n, rule, room, x, s + n.at(x, 0), c + x * n.table());
    });
  });
  return {sums, transpose(narrow(table, 2, 0, n.i), 1, 2)};
}

}  // namespace

RoutingValues shared_routing(const ProductInputs& in,
                             const AgreementRule& rule,
                             const RoutingWindows& windows) {
  return naming(rule.name(), [&] {
    return visit_float(in.u, rule.name(), [&]<class T>() { return forward<T>(in, rule, windows); });
  });
}

}  // namespace capsfw::detail
