#include "routing_plan.hpp"

#include <algorithm>

#include "../../ops/kernels/routing.hpp"

namespace capsfw::detail {
namespace {

/// The number of element (row, j) in the packed order.
std::int64_t packed(std::int64_t row, std::int64_t j, const RoutingPlan& n) {
  return kernels::packed_at(row, j, n.i, n.j);
}

}  // namespace

RoutingPlan::RoutingPlan(const Tensor& votes, int iterations)
    : b(votes.size(0)), i(votes.size(1)), j(votes.size(2)), d(votes.size(3)), r(iterations) {
  constexpr std::int64_t kPieces = 16, kPieceSize = 16384, kLanes = kernels::kRoutingLanes;
  std::int64_t wanted = 1;
  if (b < kPieces / 2) wanted = std::clamp<std::int64_t>(pass() / kPieceSize, 1, 2 * kPieces / b);
  const std::int64_t lanes = kLanes * wanted;
  rows = (i + lanes - 1) / lanes * kLanes;
  blocks = (i + rows - 1) / rows;
  rooms = blocks == 1 ? std::min(b, kPieces) : b;
}

Tensor pack_table(const Tensor& table, const RoutingPlan& n) {
  if (!table.defined()) return {};
  const Tensor from = contiguous_data(table);
  Tensor to = empty(from.shape(), from.dtype());
  visit_float(from, "dynamic_routing", [&]<class T>() {
    const T* p = from.data<T>();
    T* q = to.mutable_data<T>();
    for (std::int64_t row = 0; row < n.i; ++row)
      for (std::int64_t k = 0; k < n.j; ++k) q[packed(row, k, n)] = p[row * n.j + k];
  });
  return to;
}

Tensor unpack_sum(const Tensor& tables, const RoutingPlan& n) {
  Tensor sum = zeros({n.i, n.j}, tables.dtype());
  visit_float(tables, "dynamic_routing", [&]<class T>() {
    const T* p = tables.data<T>();
    T* q = sum.mutable_data<T>();
    for (std::int64_t room = 0; room < n.rooms; ++room, p += n.table())
      for (std::int64_t row = 0; row < n.i; ++row)
        for (std::int64_t k = 0; k < n.j; ++k) q[row * n.j + k] += p[packed(row, k, n)];
  });
  return sum;
}

Tensor uniform_shares(const Tensor& bias, std::int64_t b, std::int64_t j, DType dtype, bool leaky) {
  Tensor shares = empty({b, j}, dtype);
  visit_float(dtype, "dynamic_routing", [&]<class T>() {
    T* p = shares.mutable_data<T>();
    const T* drop = data_or_null<T>(bias);
    for (std::int64_t s = 0; s < b; ++s, p += j) {
      const auto kept = [&](std::int64_t k) { return drop == nullptr || drop[s * j + k] == 0; };
      std::int64_t count = leaky ? 1 : 0;
      for (std::int64_t k = 0; k < j; ++k) count += kept(k) ? 1 : 0;
      for (std::int64_t k = 0; k < j; ++k) p[k] = kept(k) ? T(1) / static_cast<T>(count) : T(0);
    }
  });
  return shares;
}

}  // namespace capsfw::detail
