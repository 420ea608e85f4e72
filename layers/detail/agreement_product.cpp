#include "agreement_product.hpp"

#include <algorithm>

#include "../../core/denormals.hpp"
#include "../../ops/kernels/panel.hpp"
#include "../../ops/kernels/workspace.hpp"

namespace capsfw::detail {

ProductPlan::ProductPlan(const ProductInputs& in, int iterations)
    : size{in.weight.size(-3), in.weight.size(-2), in.weight.size(-1)},
      b(in.u.size(0)),
      i(in.u.size(1)),
      r(iterations) {
  constexpr std::int64_t kChunks = 32, kLeast = 8, kStripBytes = 3 << 16;
  const std::int64_t bytes[] = {16, 32, 64},
                     item = static_cast<std::int64_t>(size_of(in.u.dtype())), one = size.weights();
  lanes = bytes[static_cast<int>(isa())] / item;
  groups = kernels::divide_up(b, lanes);
  sets = kernels::divide_up(groups, kSet);
  rows = kernels::round_up(std::max(kernels::divide_up(i, kChunks), kLeast), kChildren);
  chunks = kernels::divide_up(i, rows);
  strip = std::max<std::int64_t>(kStripBytes / (one * item) / kChildren * kChildren, kChildren);
}

Tensor to_groups(const Tensor& x, const ProductPlan& n) {
  if (!x.defined()) return {};
  const std::int64_t width = x.numel() / n.b;
  Tensor to = n.b % n.lanes == 0 ? empty({n.groups, width, n.lanes}, x.dtype())
                                 : zeros({n.groups, width, n.lanes}, x.dtype());
  visit_float(x, "routing", [&]<class T>() {
    const T* p = x.data<T>();
    T* q = to.mutable_data<T>();
    parallel_for(n.groups, width * n.lanes / 4, [=, &n](std::int64_t g0, std::int64_t g1) {
      for (std::int64_t g = g0; g < g1; ++g)
        kernels::transpose_in(std::min(n.lanes, n.b - g * n.lanes), width, p + g * n.lanes * width,
                              width, q + g * n.lanes * width, n.lanes);
    });
  });
  return to;
}

Tensor from_groups(const Tensor& x, const ProductPlan& n, const Shape& shape) {
  Tensor to = empty(shape, x.dtype());
  const std::int64_t width = to.numel() / n.b;
  visit_float(x, "routing", [&]<class T>() {
    const T* p = x.data<T>();
    T* q = to.mutable_data<T>();
    parallel_for(n.groups, width * n.lanes / 4, [=, &n](std::int64_t g0, std::int64_t g1) {
      for (std::int64_t g = g0; g < g1; ++g)
        kernels::transpose_out(width, std::min(n.lanes, n.b - g * n.lanes), p + g * n.lanes * width,
                               n.lanes, q + g * n.lanes * width, width);
    });
  });
  return to;
}

namespace {

/// Rows [begin, end) of G groups.
template <class L, int E, int G, class T>
void pass_rows(const ProductPlan& plan,
               const ProductPass<T>& pass,
               std::int64_t g,
               std::int64_t begin,
               std::int64_t end,
               T* votes,
               T* tables,
               T* s) {
  const kernels::VoteSizes n = plan.size;
  const ProductPass<T> p = pass;
  const std::int64_t table = plan.table(), caps = plan.caps(), i_count = plan.i;
  const T* u = p.u + (g * i_count + begin) * n.e * L::size;
  if (p.v == nullptr)
    return kernels::add_votes<L, E, G>(n, p.weight + begin * n.weights(), u, plan.group_u(),
                                       end - begin, s);
  const int count = p.gs == nullptr ? 1 : 2;
  const T* x[2 * G];
  for (int h = 0; h < G; ++h) {
    x[h * count] = p.v + (g + h) * p.v_group;
    if (p.gs != nullptr) x[h * count + 1] = p.gs + (g + h) * p.v_group;
  }
  for (std::int64_t i = begin; i < end; i += ProductPlan::kChildren) {
    const std::int64_t children = std::min<std::int64_t>(ProductPlan::kChildren, end - i);
    kernels::make_votes<L, E, G>(n, p.weight + i * n.weights(), u + (i - begin) * n.e * L::size,
                                 plan.group_u(), children, x, count, votes, tables);
    for (std::int64_t h = 0; h < G; ++h) {
      const std::int64_t sample = (g + h) * L::size,
                         samples = std::min<std::int64_t>(L::size, plan.b - sample);
      const T* bias = p.bias == nullptr ? nullptr : p.bias + (g + h) * table;
      T* first = tables + h * children * count * table;
      for (std::int64_t k = 0; k < children; ++k) {
        T* c = first + k * count * table;
        kernels::softmax_votes<L>(n.j, p.prior == nullptr ? nullptr : p.prior + (i + k) * n.j, bias,
                                  p.leaky, c);
        if (p.gs != nullptr) kernels::softmax_votes_vjp<L>(n.j, c, c + table);
        if (p.couplings == nullptr) continue;
        T* out = p.couplings + (sample * i_count + i + k) * n.j;
        kernels::transpose_table(n.j, samples, c, L::size, out, i_count * n.j);
      }
      const T *weights = first + (count - 1) * table, *vote = votes + h * children * caps;
      if (children == ProductPlan::kChildren) {
        kernels::add_weighted<L, ProductPlan::kChildren>(n, vote, weights, count * table,
                                                         s + h * caps);
      } else {
        for (std::int64_t k = 0; k < children; ++k)
          kernels::add_weighted<L, 1>(n, vote + k * caps, weights + k * count * table,
                                      count * table, s + h * caps);
      }
    }
  }
}

template <class T>
RoutingValues forward(const ProductInputs& in, const AgreementRule& rule) {
  const ProductPlan n(in, rule.sums);
  const DType dtype = in.u.dtype();
  const std::int64_t j = n.size.j, d = n.size.d, caps = j * d;
  const bool uniform = rule.uniform_start(in.prior.defined());
  const Tensor u = to_groups(in.u, n), bias = to_groups(in.bias, n),
               shares = uniform_shares(in.bias, n.b, j, dtype, rule.leaky_start());
  RoutingValues out{empty({n.b, n.r, j, d}, dtype), empty({n.b, n.i, j}, dtype)};
  Tensor v = zeros({n.b, j, d}, dtype);
  for (std::int64_t t = 0; t < n.r; ++t) {
    const bool equal = t == 0 && uniform, last = t + 1 == n.r;
    const Tensor seen = equal ? Tensor() : to_groups(v, n);
    Tensor s =
        from_groups(run_pass<T>(n, {.u = u.data<T>(),
                                    .weight = in.weight.data<T>(),
                                    .prior = data_or_null<T>(in.prior),
                                    .bias = data_or_null<T>(bias),
                                    .v = data_or_null<T>(seen),
                                    .gs = nullptr,
                                    .v_group = n.caps(),
                                    .leaky = rule.leaky,
                                    .couplings = last ? out.couplings.mutable_data<T>() : nullptr}),
                    n, {n.b, j, d});
    T *sums = s.mutable_data<T>(), *to = out.sums.mutable_data<T>();
    const T* share = shares.data<T>();
    for (std::int64_t x = 0; equal && x < n.b * caps; ++x) sums[x] *= share[x / d];
    for (std::int64_t b = 0; b < n.b; ++b)
      std::copy_n(sums + b * caps, caps, to + (b * n.r + t) * caps);
    if (!last) next_centres(rule, t, sums, v.mutable_data<T>(), n.b * j, d);
  }
  return out;
}

}  // namespace

template <class T>
Tensor run_pass(const ProductPlan& n, const ProductPass<T>& p) {
  const DType dtype = dtype_v<T>;
  Tensor parts = empty({n.chunks, n.groups, n.caps()}, dtype);
  T* parts_data = parts.mutable_data<T>();
  const std::int64_t tasks = n.chunks * n.sets,
                     most = kernels::kVoteGroups * ProductPlan::kChildren,
                     tables = 2 * most * n.table(), votes = most * n.caps(),
                     cost = n.rows * n.caps() * (n.size.e + 4) / 32;
  using Rooms = kernels::Workspaces<T>;
  Rooms rooms(tasks, Rooms::padded(tables) + Rooms::padded(votes));
  parallel_for(tasks, cost, [&](std::int64_t begin, std::int64_t end) {
    const FlushDenormals flush;
    typename Rooms::Lease room(rooms);
    T *table = room.take(tables), *vote = room.take(votes);
    for (std::int64_t x = begin; x < end; ++x) {
      const std::int64_t chunk = x / n.sets, set = x % n.sets, i0 = chunk * n.rows,
                         i1 = std::min(i0 + n.rows, n.i), g0 = n.first_group(set),
                         g1 = n.first_group(set + 1);
      T* s = parts_data + chunk * n.groups * n.caps();
      std::fill(s + g0 * n.caps(), s + g1 * n.caps(), T(0));
      with_child_size<T>(n.size.e, [=, &n, &p]<class L, int E>() {
        for (std::int64_t i = i0; i < i1; i += n.strip)
          kernels::for_groups<L>(g1 - g0, [=, &n, &p]<int G>(std::int64_t h) {
            const std::int64_t g = g0 + h;
            pass_rows<L, E, G>(n, p, g, i, std::min(i + n.strip, i1), vote, table,
                               s + g * n.caps());
          });
      });
    }
  });
  Tensor sum = zeros({n.groups, n.caps()}, dtype);
  T* sum_data = sum.mutable_data<T>();
  parallel_for(n.groups, n.chunks * n.caps() / 8, [&](std::int64_t g0, std::int64_t g1) {
    const std::int64_t row = n.groups * n.caps();
    for (std::int64_t k = 0; k < n.chunks; ++k)
      for (std::int64_t x = g0 * n.caps(); x < g1 * n.caps(); ++x)
        sum_data[x] += parts_data[k * row + x];
  });
  return sum;
}

template Tensor run_pass(const ProductPlan&, const ProductPass<float>&);
template Tensor run_pass(const ProductPlan&, const ProductPass<double>&);

RoutingValues product_routing(const ProductInputs& in, const AgreementRule& rule) {
  return naming(rule.name(), [&] {
    return visit_float(in.u, rule.name(), [&]<class T>() { return forward<T>(in, rule); });
  });
}

}  // namespace capsfw::detail
