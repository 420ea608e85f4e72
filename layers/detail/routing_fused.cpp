#include "routing_fused.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include <capsfw/core/parallel.hpp>

#include "../../core/simd.hpp"
#include "../../ops/kernels/routing.hpp"

namespace capsfw::detail {
namespace {

/// Numbers that a last-level cache may be expected to hold.
constexpr std::int64_t kCached = 1 << 22;

using kernels::kRoutingLanes;
using kernels::kRoutingTerms;
using kernels::RoutingSample;
using kernels::RoutingTerm;

/// How the work is cut, from the shape alone. Many samples: each is one piece of work with all its
/// iterations, and `rooms` groups of samples have working memory of their own. Few samples: each
/// pass over a sample is cut into `blocks` of `rows` lower capsules, and each sample has a room.
struct Plan {
  std::int64_t b, i, j, d, r, blocks, rows, rooms;

  Plan(const Tensor& votes, int iterations)
      : b(votes.size(0)), i(votes.size(1)), j(votes.size(2)), d(votes.size(3)), r(iterations) {
    constexpr std::int64_t kPieces = 16, kPieceSize = 16384;
    const std::int64_t wanted = b >= kPieces / 2 ? 1 : std::min(2 * kPieces / b, pass() / kPieceSize);
    const std::int64_t lanes = std::int64_t{kRoutingLanes} * std::max<std::int64_t>(wanted, 1);
    rows = (i + lanes - 1) / lanes * kRoutingLanes;
    blocks = (i + rows - 1) / rows;
    rooms = blocks == 1 ? std::min(b, kPieces) : b;
  }
  std::int64_t caps() const { return j * d; }       // numbers of one table of upper capsules
  std::int64_t table() const { return i * j; }      // numbers of one table of couplings
  std::int64_t pass() const { return i * j * d; }   // numbers of the votes of a sample
  std::int64_t at(std::int64_t sample, std::int64_t t) const { return (sample * r + t) * caps(); }

  /// For each of `steps` in order: pass(sample, block, room, step) for all blocks, then
  /// close(sample, step).
  template <class Pass, class Close>
  void run(std::int64_t steps, const Pass& pass_one, const Close& close) const {
    if (blocks == 1) {
      parallel_for(rooms, pass() / 8 * steps * b / rooms, [&](std::int64_t r0, std::int64_t r1) {
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
        for (std::int64_t x = x0; x < x1; ++x) pass_one(x / blocks, x % blocks, x / blocks, step);
      });
      for (std::int64_t s = 0; s < b; ++s) close(s, step);
    }
  }
};

/// Runs f.operator()<D>() with the vector instructions of this CPU; D is the capsule size if it is
/// one that matters, else 0.
template <class T, class F>
void with_size(std::int64_t d, const F& f) {
  if constexpr (std::is_same_v<T, float>) {  // f64 is there to check with: no versions of its own
    if (d == 8) return simd([=] { f.template operator()<8>(); });
    if (d == 16) return simd([=] { f.template operator()<16>(); });
  }
  simd([=] { f.template operator()<0>(); });
}

/// v += squash(s) for each capsule.
template <class T>
void add_squashed(const T* s, T* v, std::int64_t capsules, std::int64_t d, T c) {
  for (std::int64_t j = 0; j < capsules; ++j, s += d, v += d) {
    T sq = T(0);
    for (std::int64_t e = 0; e < d; ++e) sq += s[e] * s[e];
    const T f = std::sqrt(sq) / (c + sq);
    for (std::int64_t e = 0; e < d; ++e) v[e] += f * s[e];
  }
}

/// gs += the gradient of the squash at s, applied to g; see squash().
template <class T>
void add_squash_vjp(const T* s, const T* g, T* gs, std::int64_t capsules, std::int64_t d, T c) {
  for (std::int64_t j = 0; j < capsules; ++j, s += d, g += d, gs += d) {
    T sq = T(0), dot = T(0);
    for (std::int64_t e = 0; e < d; ++e) sq += s[e] * s[e], dot += s[e] * g[e];
    const T n = std::sqrt(sq), w = c + sq, f = n / w;
    const T h = sq > T(0) ? (c - sq) / (w * w) / n * dot : T(0);
    for (std::int64_t e = 0; e < d; ++e) gs[e] += f * g[e] + h * s[e];
  }
}

/// sum = Σ over the blocks of a sample, in their order.
template <class T>
void add_parts(const T* parts, std::int64_t blocks, std::int64_t size, T* sum) {
  for (std::int64_t n = 0; n < blocks; ++n)
    for (std::int64_t e = 0; e < size; ++e) sum[e] += parts[n * size + e];
}

/// The number of a table's element (row, j) in the packed order of the kernels.
std::int64_t packed(std::int64_t row, std::int64_t j, const Plan& n) {
  const std::int64_t full = n.i / kRoutingLanes * kRoutingLanes;
  if (row >= full) return row * n.j + j;
  const std::int64_t lane = row % kRoutingLanes;
  return (row - lane) * n.j + j * kRoutingLanes + lane;
}

/// A prior [I, J] in packed order; null stays null.
Tensor pack(const Tensor& prior, const Plan& n) {
  if (!prior.defined()) return {};
  const Tensor from = contiguous_data(prior);
  Tensor to = empty(from.shape(), from.dtype());
  visit_float(from.dtype(), "dynamic_routing", [&]<class T>() {
    const T* p = from.data<T>();
    T* q = to.mutable_data<T>();
    for (std::int64_t i = 0; i < n.i; ++i)
      for (std::int64_t j = 0; j < n.j; ++j) q[packed(i, j, n)] = p[i * n.j + j];
  });
  return to;
}

/// Couplings of the first iteration without a prior, [B, J]: equal shares for all that are kept.
Tensor uniform_shares(const Tensor& bias, const Plan& n, DType dtype, bool leaky) {
  Tensor w = empty({n.b, n.j}, dtype);
  visit_float(dtype, "dynamic_routing", [&]<class T>() {
    T* p = w.mutable_data<T>();
    const T* drop = bias.defined() ? bias.data<T>() : nullptr;
    for (std::int64_t b = 0; b < n.b; ++b) {
      std::int64_t kept = leaky ? 1 : 0;
      for (std::int64_t j = 0; j < n.j; ++j) kept += drop == nullptr || drop[b * n.j + j] == T(0);
      for (std::int64_t j = 0; j < n.j; ++j)
        p[b * n.j + j] = drop == nullptr || drop[b * n.j + j] == T(0) ? T(1) / T(kept) : T(0);
    }
  });
  return w;
}

template <class T>
const T* data_or_null(const Tensor& x) {
  return x.defined() ? x.data<T>() : nullptr;
}

template <class T>
RoutingValues forward(const Tensor& votes,
                      const Tensor& prior,
                      const Tensor& bias,
                      const RoutingOptions& o) {
  const Plan n(votes, o.iterations);
  const DType dtype = votes.dtype();
  const bool uniform = !prior.defined();
  const std::int64_t size = n.caps(), last = n.r - 1;
  RoutingValues out{zeros({n.b, n.r, n.j, n.d}, dtype), empty({n.b, n.i, n.j}, dtype)};
  const Tensor first = pack(prior, n), shares = uniform_shares(bias, n, dtype, o.leaky);
  Tensor v = zeros({n.b, n.j, n.d}, dtype), parts = empty({n.b * n.blocks, size}, dtype),
         block = empty({n.rooms * n.blocks, n.j * kRoutingLanes}, dtype);
  const T *us = votes.data<T>(), *w = shares.data<T>(), *bp = data_or_null<T>(bias),
          *fp = data_or_null<T>(first);
  T *vp = v.mutable_data<T>(), *pp = parts.mutable_data<T>(), *kp = block.mutable_data<T>(),
    *sp = out.sums.mutable_data<T>(), *cp = out.couplings.mutable_data<T>();
  const T c = static_cast<T>(o.squash_c);

  const auto pass = [=](std::int64_t b, std::int64_t k, std::int64_t room, std::int64_t t) {
    const std::int64_t begin = k * n.rows, end = std::min(n.i, begin + n.rows);
    T* s = pp + (b * n.blocks + k) * size;
    std::fill_n(s, size, T(0));
    const T* u = us + b * n.pass();
    if (t == 0 && uniform) return simd([=] { kernels::sum_rows(u, begin, end, size, s); });
    const RoutingSample<T> sample{
        u, vp + b * size, fp, bp == nullptr ? bp : bp + b * n.j, n.j, n.d, o.leaky};
    T* room_c = kp + (room * n.blocks + k) * n.j * kRoutingLanes;
    T* couplings = t == last ? cp + b * n.table() : nullptr;
    with_size<T>(n.d, [=]<int D>() {
      kernels::routing_forward<D>(sample, begin, end, room_c, s, couplings);
    });
  };
  const auto close = [=](std::int64_t b, std::int64_t t) {
    T* s = sp + n.at(b, t);
    add_parts(pp + b * n.blocks * size, n.blocks, size, s);
    if (t == 0 && uniform)
      for (std::int64_t x = 0; x < size; ++x) s[x] *= w[b * n.j + x / n.d];
    if (t < last) add_squashed(s, vp + b * size, n.j, n.d, c);
  };
  n.run(n.r, pass, close);
  return out;
}

/// A step of the backward pass: the pull-back of iteration t, or (count > 0) the gradient of the
/// votes from `count` iterations, t being the earliest. Several are gathered at once, so that the
/// gradient is written once for up to five iterations, and working memory stays bounded.
struct Step {
  std::int64_t t;
  int count;
};

std::vector<Step> backward_steps(std::int64_t iterations, std::int64_t earliest) {
  std::vector<Step> steps;
  int waiting = 0;
  for (std::int64_t t = iterations - 1; t >= earliest; --t) {
    steps.push_back({t, 0});
    if (++waiting < kRoutingTerms && t > earliest) continue;
    steps.push_back({t, waiting});
    waiting = 0;
  }
  return steps;
}

template <class T>
RoutingGradients backward(const Tensor& votes,
                          const Tensor& prior,
                          const Tensor& bias,
                          const Tensor& sums,
                          const Tensor& gsums,
                          const RoutingOptions& o,
                          bool want_votes,
                          bool want_prior) {
  const Plan n(votes, o.iterations);
  const DType dtype = votes.dtype();
  const bool uniform = !prior.defined();
  // Without a prior nothing flows through the couplings of the first iteration.
  const std::int64_t size = n.caps(), earliest = uniform ? 1 : 0,
                     kept = std::min<std::int64_t>(kRoutingTerms, n.r - earliest);
  RoutingGradients out;
  if (want_votes) out.votes = empty(votes.shape(), dtype);
  const Tensor first = pack(prior, n), shares = uniform_shares(bias, n, dtype, o.leaky);
  // gs and v (the sum of the outputs before it) of every iteration; the gradient of the output.
  Tensor gs = empty(sums.shape(), dtype), v = zeros(sums.shape(), dtype),
         g = zeros({n.b, n.j, n.d}, dtype), base = zeros({n.b, n.j, n.d}, dtype),
         parts = empty({n.b * n.blocks, size}, dtype),
         tables = empty({n.rooms, 2 * kept, n.i, n.j}, dtype), gprior;
  if (want_prior) gprior = zeros({n.rooms, n.i, n.j}, dtype);
  const T *us = votes.data<T>(), *w = shares.data<T>(), *bp = data_or_null<T>(bias),
          *fp = data_or_null<T>(first), *sp = sums.data<T>(), *hp = gsums.data<T>();
  T *gsp = gs.mutable_data<T>(), *vp = v.mutable_data<T>(), *gp = g.mutable_data<T>(),
    *zp = base.mutable_data<T>(), *pp = parts.mutable_data<T>(), *tp = tables.mutable_data<T>(),
    *gup = want_votes ? out.votes.mutable_data<T>() : nullptr,
    *gfp = want_prior ? gprior.mutable_data<T>() : nullptr;
  const T c = static_cast<T>(o.squash_c);

  parallel_for(n.b, n.r * size, [=](std::int64_t b0, std::int64_t b1) {
    for (std::int64_t b = b0; b < b1; ++b) {
      for (std::int64_t t = 1; t < n.r; ++t) {
        std::copy_n(vp + n.at(b, t - 1), size, vp + n.at(b, t));
        add_squashed(sp + n.at(b, t - 1), vp + n.at(b, t), n.j, n.d, c);
      }
      std::copy_n(hp + n.at(b, 0), n.r * size, gsp + n.at(b, 0));
    }
  });

  const std::vector<Step> steps = backward_steps(n.r, earliest);
  const Step* step_of = steps.data();
  // Tables of an iteration, c and gb, in one of the `kept` places.
  const auto table = [=](std::int64_t room, std::int64_t t, int which) {
    return tp + ((room * kept + (n.r - 1 - t) % kept) * 2 + which) * n.table();
  };
  const auto pull_back = [=](std::int64_t b, std::int64_t k, std::int64_t room, std::int64_t t) {
    const std::int64_t begin = k * n.rows, end = std::min(n.i, begin + n.rows);
    T* h = pp + (b * n.blocks + k) * size;
    std::fill_n(h, size, T(0));
    const RoutingSample<T> sample{us + b * n.pass(), vp + n.at(b, t),
                                  fp,                bp == nullptr ? bp : bp + b * n.j,
                                  n.j,               n.d,
                                  o.leaky};
    const T* grad = gsp + n.at(b, t);
    T *ct = table(room, t, 0), *gbt = table(room, t, 1),
      *gf = gfp == nullptr ? gfp : gfp + room * n.table();
    with_size<T>(n.d, [=]<int D>() {
      kernels::routing_backward<D>(sample, grad, begin, end, ct, gbt, h, gf);
    });
  };
  const auto gather = [=](std::int64_t b, std::int64_t k, std::int64_t room, Step step) {
    const std::int64_t begin = k * n.rows, end = std::min(n.i, begin + n.rows);
    std::array<RoutingTerm<T>, kRoutingTerms> terms;
    for (int x = 0; x < step.count; ++x) {
      const std::int64_t t = step.t + x;
      terms[static_cast<std::size_t>(x)] = {table(room, t, 0), table(room, t, 1),
                                            gsp + n.at(b, t), vp + n.at(b, t)};
    }
    // The part of the first iteration, which is the same for all i, comes with the last step.
    const T* rest = zp + b * size;
    T* gu = gup + b * n.pass();
    const bool add = step.t + step.count < n.r,
               // written once, and more than the caches hold until somebody reads it
               stream = !add && step.t == earliest && n.b * n.pass() > kCached;
    with_size<T>(n.d, [=]<int D>() {
      const auto put = [&]<kernels::Put kPut>() {
        kernels::routing_gradient<D, kPut>(terms.data(), step.count, rest, begin, end, n.j, n.d,
                                           gu);
      };
      if (add) return put.template operator()<kernels::Put::add>();
      if constexpr (D == 16)
        if (stream) return put.template operator()<kernels::Put::stream>();
      put.template operator()<kernels::Put::write>();
    });
  };
  const auto pass = [=](std::int64_t b, std::int64_t k, std::int64_t room, std::int64_t x) {
    if (step_of[x].count == 0)
      pull_back(b, k, room, step_of[x].t);
    else if (gup != nullptr)
      gather(b, k, room, step_of[x]);
  };
  const auto close = [=](std::int64_t b, std::int64_t x) {
    const std::int64_t t = step_of[x].t;
    if (step_of[x].count > 0 || t == 0) return;
    // b of every later iteration contains the agreement with v of iteration t − 1.
    T* later = gp + b * size;
    add_parts(pp + b * n.blocks * size, n.blocks, size, later);
    T* before = gsp + n.at(b, t - 1);
    add_squash_vjp(sp + n.at(b, t - 1), later, before, n.j, n.d, c);
    if (t == 1 && uniform)
      for (std::int64_t e = 0; e < size; ++e) zp[b * size + e] = w[b * n.j + e / n.d] * before[e];
  };
  n.run(static_cast<std::int64_t>(steps.size()), pass, close);

  if (want_prior) {
    out.prior = zeros({n.i, n.j}, dtype);
    T* p = out.prior.mutable_data<T>();
    for (std::int64_t room = 0; room < n.rooms; ++room)
      for (std::int64_t i = 0; i < n.i; ++i)
        for (std::int64_t j = 0; j < n.j; ++j)
          p[i * n.j + j] += gfp[room * n.table() + packed(i, j, n)];
  }
  return out;
}

}  // namespace

bool fits_fused_routing(const Tensor& votes, const RoutingOptions& o, const RoutingInputs& in) {
  return o.iterations > 1 && is_floating(votes.dtype()) && votes.numel() > 0 &&
         !in.activation.defined() && (!in.prior.defined() || in.prior.dtype() == votes.dtype());
}

RoutingValues fused_routing(const Tensor& votes,
                            const Tensor& prior,
                            const Tensor& bias,
                            const RoutingOptions& o) {
  const Tensor u = contiguous_data(votes);
  return visit_float(u.dtype(), "dynamic_routing",
                     [&]<class T>() { return forward<T>(u, prior, bias, o); });
}

RoutingGradients fused_routing_vjp(const Tensor& votes,
                                   const Tensor& prior,
                                   const Tensor& bias,
                                   const Tensor& sums,
                                   const Tensor& gsums,
                                   const RoutingOptions& o,
                                   bool want_votes,
                                   bool want_prior) {
  const Tensor u = contiguous_data(votes), s = contiguous_data(sums), g = contiguous_data(gsums);
  return visit_float(u.dtype(), "dynamic_routing", [&]<class T>() {
    return backward<T>(u, prior, bias, s, g, o, want_votes, want_prior);
  });
}

}  // namespace capsfw::detail
