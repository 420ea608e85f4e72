#pragma once
// Private: what the forward and the backward pass of the fused routing share: how the work is cut,
// and the steps between two passes over the votes.

#include <cstdint>
#include <type_traits>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/tensor.hpp>

#include "../../core/denormals.hpp"
#include "../../core/simd.hpp"

namespace capsfw::detail {

/// How the work is cut, from the shape alone. Many samples: each is one piece of work with all its
/// iterations, and `rooms` groups of samples have working memory of their own. Few samples: each
/// pass over a sample is cut into `blocks` of `rows` lower capsules, and each sample has a room.
struct RoutingPlan {
  std::int64_t b, i, j, d, r, blocks, rows, rooms;

  RoutingPlan(const Tensor& votes, int iterations);

  /// Numbers of a table of upper capsules, of a table of couplings, of the votes of a sample.
  std::int64_t caps() const { return j * d; }
  std::int64_t table() const { return i * j; }
  std::int64_t pass() const { return i * j * d; }
  /// Where the votes of a sample begin.
  std::int64_t votes_at(std::int64_t sample) const { return sample * pass(); }
  /// Where iteration t of a sample lies in [B, r, J, D].
  std::int64_t at(std::int64_t sample, std::int64_t t) const { return (sample * r + t) * caps(); }
  /// First row of a block, and the row after its last.
  std::int64_t begin(std::int64_t block) const { return block * rows; }
  std::int64_t end(std::int64_t block) const { return block + 1 < blocks ? begin(block + 1) : i; }
  /// True for a pass that finds no votes in the second cache.
  bool cold(bool first) const { return first || blocks > 1 || pass() > (1 << 18); }

  /// For each of `steps` in order: pass(sample, block, room, step) for all blocks, then
  /// close(sample, step).
  template <class Pass, class Close>
  void run(std::int64_t steps, const Pass& pass_one, const Close& close) const {
    if (blocks == 1) {
      parallel_for(rooms, pass() / 8 * steps * b / rooms, [&](std::int64_t r0, std::int64_t r1) {
        const FlushDenormals flush;
        for (std::int64_t room = r0; room < r1; ++room)
          for (std::int64_t s = room * b / rooms; s < (room + 1) * b / rooms; ++s)
            for (std::int64_t step = 0; step < steps; ++step) {
              pass_one(s, std::int64_t{0}, room, step);
              close(s, step);
            }
      });
      return;
    }
    for (std::int64_t step = 0; step < steps; ++step) {
      parallel_for(b * blocks, rows * caps() / 8, [&](std::int64_t x0, std::int64_t x1) {
        const FlushDenormals flush;
        for (std::int64_t x = x0; x < x1; ++x) pass_one(x / blocks, x % blocks, x / blocks, step);
      });
      for (std::int64_t s = 0; s < b; ++s) close(s, step);
    }
  }
};

/// A table [I, J] in the packed order of the kernels; undefined stays undefined.
Tensor pack_table(const Tensor& table, const RoutingPlan& n);
/// Σ over rooms of packed tables [rooms, I, J], in the usual order.
Tensor unpack_sum(const Tensor& tables, const RoutingPlan& n);
/// Couplings of the first iteration without a prior, [B, J]: equal shares for all that are kept.
Tensor uniform_shares(const Tensor& bias, std::int64_t b, std::int64_t j, DType dtype, bool leaky);

/// Runs f.operator()<D>() with the vector instructions of this CPU; D is the capsule size if it is
/// one that matters, else 0.
template <class T, class F>
void with_capsule_size(std::int64_t d, const F& f) {
  if constexpr (std::is_same_v<T, float>) {  // f64 is there to check with: no versions of its own
    if (d == 8) return simd([=] { f.template operator()<8>(); });
    if (d == 16) return simd([=] { f.template operator()<16>(); });
  }
  simd([=] { f.template operator()<0>(); });
}

/// sum += Σ over the blocks of a sample, in their order.
template <class T>
void add_parts(const T* parts, std::int64_t blocks, std::int64_t size, T* sum) {
  for (std::int64_t n = 0; n < blocks; ++n)
    for (std::int64_t e = 0; e < size; ++e) sum[e] += parts[n * size + e];
}

template <class T>
const T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

/// Row `row` of a matrix with `width` columns; null if there is none.
template <class T>
T* row_or_null(T* matrix, std::int64_t row, std::int64_t width) {
  return matrix == nullptr ? matrix : matrix + row * width;
}

}  // namespace capsfw::detail
