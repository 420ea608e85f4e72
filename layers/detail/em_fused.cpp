#include "em_fused.hpp"

#include <capsfw/core/parallel.hpp>

#include "../../core/denormals.hpp"
#include "../../ops/kernels/workspace.hpp"
#include "em_plan.hpp"

namespace capsfw::detail {
namespace {

/// Where the results of a sample go.
template <class T>
struct Results {
  T *poses, *activations, *variance, *assignments, *state;  ///< assignments: null if not wanted
};

/// ln weight and activation of capsule `cap` from the statistics of its M step.
template <class T>
void close_capsule(const EmPlan<T>& n,
                   const EmColumn<T>& column,
                   std::int64_t cap,
                   T lambda,
                   T children,
                   T* g,
                   T& activation) {
  const T log_sigma = g[2 * n.d + 1], one = column.empty ? T(0) : T(1), d = static_cast<T>(n.d);
  if (n.variant == EmVariant::v1) {
    g[2 * n.d] = column.log_total - std::log(children);
    activation = std::exp(g[2 * n.d]);
    return;
  }
  const T bu = n.beta_u[cap];
  T cost = (bu + log_sigma) * one;
  if (n.variant == EmVariant::v4) cost = (bu + log_sigma) * column.data;
  if (n.variant == EmVariant::hinton) cost = (d * bu + log_sigma) * column.data;
  if (n.variant == EmVariant::eq12) {
    T fit = T(0);
    for (std::int64_t h = 0; h < n.d; ++h) fit += g[n.d + h] / (g[n.d + h] + n.eps);
    const T normalizer = log_sigma + static_cast<T>(0.91893853320467274178) * d;
    cost = bu * column.data + T(0.5) * fit + normalizer * one;
  }
  const T logit = lambda * (n.beta_a[cap] - cost), e = std::exp(-std::abs(logit));
  g[2 * n.d] = std::min(logit, T(0)) - std::log1p(e);
  activation = (logit < T(0) ? e : T(1)) / (T(1) + e);
}

template <class L, class T>
void route_sample(const EmPlan<T>& n,
                  std::int64_t s,
                  const EmRoom<T>& room,
                  const Results<T>& out) {
  em_open<L>(n, s, room);
  T* state = out.state + s * n.state();
  const T children = kernels::sum_row<L>(room.kept, n.pad);
  for (std::int64_t t = 0; t < n.t; ++t) {
    const bool last = t + 1 == n.t;
    for (std::int64_t j = 0; j < n.j; ++j) {
      if (t == 0) em_load<L>(n, j, room);
      const T* v = room.votes + j * n.slab();
      T *g = n.at(state, t, j), *variance = room.scratch + n.pad;
      const EmColumn<T> column = em_weights<L>(n, room, state, t, t, j, room.row);
      for (std::int64_t i = 0; i < n.pad; i += L::size)
        L::at(room.row + i) *= L::at(room.alpha + i);
      kernels::em_mean<L>(v, room.row, n.pad, n.d, g);
      kernels::em_spread<L>(v, room.row, g, n.pad, n.d, g + n.d);
      for (std::int64_t h = 0; h < n.d; ++h) variance[h] = g[n.d + h] + n.eps;
      T* logs = variance + n.d;
      kernels::log_row(variance, n.d, logs);
      std::fill_n(logs + n.d, -n.d & (L::size - 1), T(0));
      g[2 * n.d + 1] = T(0.5) * kernels::sum_row<L>(logs, n.d);
      T& activation = out.activations[s * n.j + j];
      close_capsule(n, column, j, static_cast<T>(n.lambdas[t]), children, g, activation);
      if (last) {
        std::copy_n(g, n.d, out.poses + (s * n.j + j) * n.d);
        std::copy_n(variance, n.d, out.variance + (s * n.j + j) * n.d);
      } else {  // R of this capsule is used up: its row takes the joint of the next iteration
        em_joint<L>(n, v, g, variance, room.tables + j * n.pad);
      }
    }
    if (last) {
      if (out.assignments == nullptr) return;
      for (std::int64_t j = 0; j < n.j; ++j) {
        const T* r = em_shares(n, room, t, t, j);
        for (std::int64_t i = 0; i < n.i; ++i) out.assignments[(s * n.i + i) * n.j + j] = r[i];
      }
      return;
    }
    em_compete(n, room.kept, room.tables, room.tops, room.shares);
  }
}

template <class T>
EmValues forward(const EmInputs& in, const EmSettings& o) {
  TensorList keep;
  const EmPlan<T> n = em_plan<T>(in, o, keep);
  const DType dtype = (in.votes.defined() ? in.votes : in.poses).dtype();
  EmValues out{empty({n.samples, n.j, n.d}, dtype), empty({n.samples, n.j}, dtype),
               empty({n.samples, n.j, n.d}, dtype),
               o.assignments ? empty({n.samples, n.i, n.j}, dtype) : Tensor(),
               em_memory<T>(n.samples * n.state())};
  const Results<T> results{out.poses.mutable_data<T>(), out.activations.mutable_data<T>(),
                           out.variance.mutable_data<T>(),
                           o.assignments ? out.assignments.mutable_data<T>() : nullptr,
                           em_numbers<T>(out.state)};
  kernels::Workspaces<T> rooms(n.samples, EmRoom<T>::size(n, 1));
  kernels::Workspaces<const T*> pointers(n.samples, n.pad);
  const std::int64_t cost = n.i * n.j * n.d * n.t / 16;
  parallel_for(n.samples, cost, [&](std::int64_t begin, std::int64_t end) {
    const FlushDenormals flush;
    typename kernels::Workspaces<T>::Lease memory(rooms);
    typename kernels::Workspaces<const T*>::Lease rows(pointers);
    const EmRoom<T> room(
        n, 1, [&](std::int64_t k) { return memory.take(k); }, rows.take(n.pad));
    kernels::with_lanes([&n, &room, &results, begin, end]<int kBytes>() {
      for (std::int64_t s = begin; s < end; ++s)
        route_sample<kernels::Lanes<T, kBytes>>(n, s, room, results);
    });
  });
  return out;
}

}  // namespace

EmValues fused_em(const EmInputs& in, const EmSettings& o) {
  return naming("em_routing", [&] {
    return visit_float((in.votes.defined() ? in.votes : in.poses).dtype(), "em_routing",
                       [&]<class T>() { return forward<T>(in, o); });
  });
}

}  // namespace capsfw::detail
