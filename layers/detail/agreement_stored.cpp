#include "agreement_stored.hpp"

#include <algorithm>

#include <capsfw/core/allocator.hpp>

#include "../../ops/kernels/routing.hpp"

namespace capsfw::detail {
namespace {

using kernels::kRoutingLanes;

template <class T>
RoutingValues forward(const Tensor& votes,
                      const Tensor& prior,
                      const Tensor& bias,
                      const AgreementRule& rule) {
  const RoutingPlan n(votes, rule.sums);
  const DType dtype = votes.dtype();
  const std::int64_t size = n.caps(), last = n.r - 1;
  const bool uniform = rule.uniform_start(prior.defined());
  RoutingValues out{zeros({n.b, n.r, n.j, n.d}, dtype), empty({n.b, n.i, n.j}, dtype)};
  const Tensor first = pack_table(prior, n),
               shares = uniform_shares(bias, n.b, n.j, dtype, rule.leaky_start());
  Tensor v = zeros({n.b, n.j, n.d}, dtype), parts = empty({n.b * n.blocks, size}, dtype),
         block = empty({n.rooms * n.blocks, n.j * kRoutingLanes}, dtype);
  const T *votes_data = votes.data<T>(), *shares_data = shares.data<T>(),
          *prior_data = data_or_null<T>(first), *bias_data = data_or_null<T>(bias);
  T *v_data = v.mutable_data<T>(), *parts_data = parts.mutable_data<T>(),
    *block_data = block.mutable_data<T>(), *sums_data = out.sums.mutable_data<T>(),
    *couplings_data = out.couplings.mutable_data<T>();

  const auto pass = [=](std::int64_t b, std::int64_t k, std::int64_t room, std::int64_t t) {
    const std::int64_t begin = n.begin(k), end = n.end(k);
    const T* u = votes_data + n.votes_at(b);
    T* s = parts_data + (b * n.blocks + k) * size;
    std::fill_n(s, size, T(0));
    if (t == 0 && uniform) return simd([=] { kernels::sum_rows(u, begin, end, size, s); });
    const kernels::RoutingSample<T> sample{.votes = u,
                                           .v = v_data + b * size,
                                           .prior = prior_data,
                                           .bias = row_or_null(bias_data, b, n.j),
                                           .j = n.j,
                                           .d = n.d,
                                           .leaky = rule.leaky,
                                           .cold = n.cold(t == 0)};
    T* room_c = block_data + (room * n.blocks + k) * n.j * kRoutingLanes;
    T* couplings = t == last ? couplings_data + b * n.table() : nullptr;
    with_capsule_size<T>(n.d, [=]<int D>() {
      kernels::routing_forward<D>(sample, begin, end, room_c, s, couplings);
    });
  };
  const auto close = [=](std::int64_t b, std::int64_t t) {
    T* s = sums_data + n.at(b, t);
    add_parts(parts_data + b * n.blocks * size, n.blocks, size, s);
    if (t == 0 && uniform)
      for (std::int64_t x = 0; x < size; ++x) s[x] *= shares_data[b * n.j + x / n.d];
    if (t < last) next_centres(rule, t, s, v_data + b * size, n.j, n.d);
  };
  n.run(n.r, pass, close);
  return out;
}

}  // namespace

RoutingValues fused_routing(const Tensor& votes,
                            const Tensor& prior,
                            const Tensor& bias,
                            const AgreementRule& rule) {
  return naming(rule.name(), [&] {
    const Tensor u = contiguous_data(votes);
    return visit_float(u, rule.name(), [&]<class T>() { return forward<T>(u, prior, bias, rule); });
  });
}

}  // namespace capsfw::detail
