#include <algorithm>
#include <vector>

#include "../../ops/kernels/routing.hpp"
#include "../../ops/kernels/routing_gradient.hpp"
#include "agreement_stored.hpp"

namespace capsfw::detail {
namespace {

using kernels::kRoutingTerms;
using kernels::Put;

/// Numbers that the last cache may be expected to keep until somebody reads them.
constexpr std::int64_t kCached = 1 << 22;

/// So many iterations are gathered at once even where memory is short.
constexpr std::int64_t kLeastTerms = 4;

/// A step of the backward pass: the pull-back of iteration t, or (count > 0) the gradient of the
/// votes from `count` iterations, t being the earliest. Several are gathered at once, so that the
/// gradient is written once for up to ten iterations.
struct Step {
  std::int64_t t;
  int count;
};

std::vector<Step> backward_steps(std::int64_t iterations,
                                 std::int64_t earliest,
                                 std::int64_t kept) {
  std::vector<Step> steps;
  int waiting = 0;
  for (std::int64_t t = iterations - 1; t >= earliest; --t) {
    steps.push_back({t, 0});
    if (++waiting < kept && t > earliest) continue;
    steps.push_back({t, waiting});
    waiting = 0;
  }
  return steps;
}

/// With S_t and V_t of the forward pass, and gS_t the gradient that arrives at S_t from outside,
/// for t = n, ..., 1:
///   gs_t = gS_t + the rule from S_t to V_{t+1} applied backwards to g,     g starts at 0
///   c_t, gb_t, h = routing_backward(V_t, gs_t)                because b_t = ⟨û, V_t⟩ + prior
///   g ← g + h where V accumulates, else h;   gû += c_t gs_t + gb_t V_t,   gprior += gb_t
/// Where c_1 is uniform it is constant, and the first iteration adds c_1 gs_1 only.
template <class T>
class Backward {
 public:
  Backward(const Tensor& votes,
           const Tensor& prior,
           const Tensor& bias,
           const Tensor& sums,
           const Tensor& couplings,
           const Tensor& gsums,
           const AgreementRule& rule)
      : rule_(rule),
        n_(votes, rule.sums),
        votes_(votes.shape()),
        size_(n_.caps()),
        earliest_(rule.uniform_start(prior.defined()) ? 1 : 0),
        // Tables of half the size of the votes at most, but for four iterations in any case.
        kept_(std::min(
            n_.r - earliest_,
            std::clamp<std::int64_t>(n_.b * n_.d / (4 * n_.rooms), kLeastTerms, kRoutingTerms))),
        prior_(pack_table(prior, n_)),
        shares_(uniform_shares(bias, n_.b, n_.j, votes.dtype(), rule.leaky_start())),
        gs_(empty(sums.shape(), votes.dtype())),
        v_(zeros(sums.shape(), votes.dtype())),
        g_(zeros({n_.b, n_.j, n_.d}, votes.dtype())),
        rest_(zeros({n_.b, n_.j, n_.d}, votes.dtype())),
        parts_(empty({n_.b * n_.blocks, size_}, votes.dtype())),
        tables_(empty({n_.rooms, 2 * kept_, n_.i, n_.j}, votes.dtype())),
        votes_data_(votes.data<T>()),
        prior_data_(data_or_null<T>(prior_)),
        bias_data_(data_or_null<T>(bias)),
        shares_data_(shares_.data<T>()),
        sums_data_(sums.data<T>()),
        couplings_data_(couplings.data<T>()),
        gs_data_(gs_.mutable_data<T>()),
        v_data_(v_.mutable_data<T>()),
        g_data_(g_.mutable_data<T>()),
        rest_data_(rest_.mutable_data<T>()),
        parts_data_(parts_.mutable_data<T>()),
        tables_data_(tables_.mutable_data<T>()) {
    std::copy_n(gsums.data<T>(), gsums.numel(), gs_data_);
    parallel_for(n_.b, n_.r * size_, [this](std::int64_t b0, std::int64_t b1) {
      for (std::int64_t b = b0; b < b1; ++b)
        for (std::int64_t t = 1; t < n_.r; ++t) {
          T* v = v_data_ + n_.at(b, t);
          std::copy_n(v - size_, size_, v);
          next_centres(rule_, t - 1, sums_data_ + n_.at(b, t - 1), v, n_.j, n_.d);
        }
    });
  }

  RoutingGradients run(bool want_votes, bool want_prior) {
    const DType dtype = gs_.dtype();
    RoutingGradients out;
    Tensor gprior;
    if (want_votes) {
      out.votes = empty(votes_, dtype);
      gvotes_data_ = out.votes.template mutable_data<T>();
    }
    if (want_prior) {
      gprior = zeros({n_.rooms, n_.i, n_.j}, dtype);
      gprior_data_ = gprior.template mutable_data<T>();
    }
    const std::vector<Step> steps = backward_steps(n_.r, earliest_, kept_);
    const Step* step = steps.data();
    n_.run(
        static_cast<std::int64_t>(steps.size()),
        [this, step](std::int64_t b, std::int64_t block, std::int64_t room, std::int64_t x) {
          if (step[x].count == 0)
            pull_back(b, block, room, step[x].t);
          else if (gvotes_data_ != nullptr)
            gather(b, block, room, step[x]);
        },
        [this, step](std::int64_t b, std::int64_t x) {
          if (step[x].count == 0 && step[x].t > 0) close(b, step[x].t);
        });
    if (want_prior) out.prior = unpack_sum(gprior, n_);
    return out;
  }

 private:
  /// c (which = 0) and gb (1) of iteration t, in one of the places kept.
  T* table(std::int64_t room, std::int64_t t, int which) const {
    return tables_data_ + ((room * kept_ + (n_.r - 1 - t) % kept_) * 2 + which) * n_.table();
  }

  void pull_back(std::int64_t b, std::int64_t block, std::int64_t room, std::int64_t t) const {
    const std::int64_t begin = n_.begin(block), end = n_.end(block);
    T* h = parts_data_ + (b * n_.blocks + block) * size_;
    std::fill_n(h, size_, T(0));
    const kernels::RoutingSample<T> sample{.votes = votes_data_ + n_.votes_at(b),
                                           .v = v_data_ + n_.at(b, t),
                                           .prior = prior_data_,
                                           .bias = row_or_null(bias_data_, b, n_.j),
                                           .j = n_.j,
                                           .d = n_.d,
                                           .leaky = rule_.leaky,
                                           .cold = n_.cold(t == n_.r - 1)};
    const T *gs = gs_data_ + n_.at(b, t),
            *known = t + 1 < n_.r ? nullptr : couplings_data_ + b * n_.table();
    T *c = table(room, t, 0), *gb = table(room, t, 1),
      *gprior = row_or_null(gprior_data_, room, n_.table());
    with_capsule_size<T>(n_.d, [=]<int D>() {
      kernels::routing_backward<D>(sample, gs, known, begin, end, c, gb, h, gprior);
    });
  }

  void gather(std::int64_t b, std::int64_t block, std::int64_t room, Step step) const {
    const std::int64_t begin = n_.begin(block), end = n_.end(block), j = n_.j, d = n_.d;
    // Those of one step lie in neighbouring places, the latest iteration first.
    const kernels::RoutingTerms<T> terms{.count = step.count,
                                         .c = table(room, step.t, 0),
                                         .gb = table(room, step.t, 1),
                                         .gs = gs_data_ + n_.at(b, step.t),
                                         .v = v_data_ + n_.at(b, step.t),
                                         .table = -2 * n_.table(),
                                         .caps = size_};
    const T* rest = rest_data_ + b * size_;
    T* gu = gvotes_data_ + n_.votes_at(b);
    const bool add = step.t + step.count < n_.r,
               once = !add && step.t == earliest_ && n_.b * n_.pass() > kCached;
    with_capsule_size<T>(d, [=]<int D>() {
      const auto put = [&]<Put kPut>() {
        kernels::routing_gradient<D, kPut>(terms, rest, begin, end, j, d, gu);
      };
      if (add) return put.template operator()<Put::add>();
      if constexpr (D == 16)
        if (once) return put.template operator()<Put::stream>();
      put.template operator()<Put::write>();
    });
  }

  /// After the pull-back of iteration t > 0: the gradient of the sums before it.
  void close(std::int64_t b, std::int64_t t) const {
    T *g = g_data_ + b * size_, *gs = gs_data_ + n_.at(b, t - 1), *rest = rest_data_ + b * size_;
    if (!rule_.accumulates()) std::fill_n(g, size_, T(0));
    add_parts(parts_data_ + b * n_.blocks * size_, n_.blocks, size_, g);
    add_centres_vjp(rule_, t - 1, sums_data_ + n_.at(b, t - 1), g, gs, n_.j, n_.d);
    if (t == 1 && earliest_ == 1)
      for (std::int64_t x = 0; x < size_; ++x) rest[x] = shares_data_[b * n_.j + x / n_.d] * gs[x];
  }

  AgreementRule rule_;
  RoutingPlan n_;
  Shape votes_;
  std::int64_t size_, earliest_, kept_;
  // gs, V: of all iterations [B, r, J, D]. g, rest (what the first iteration adds): [B, J, D].
  Tensor prior_, shares_, gs_, v_, g_, rest_, parts_, tables_;
  const T *votes_data_, *prior_data_, *bias_data_, *shares_data_, *sums_data_, *couplings_data_;
  T *gs_data_, *v_data_, *g_data_, *rest_data_, *parts_data_, *tables_data_;
  T *gvotes_data_ = nullptr, *gprior_data_ = nullptr;
};

}  // namespace

RoutingGradients fused_routing_vjp(const Tensor& votes,
                                   const Tensor& prior,
                                   const Tensor& bias,
                                   const RoutingValues& values,
                                   const Tensor& gsums,
                                   const AgreementRule& rule,
                                   bool want_votes,
                                   bool want_prior) {
  const Tensor u = contiguous_data(votes), s = contiguous_data(values.sums),
               c = contiguous_data(values.couplings), g = contiguous_data(gsums);
  return visit_float(u, rule.name(), [&]<class T>() {
    return Backward<T>(u, prior, bias, s, c, g, rule).run(want_votes, want_prior);
  });
}

}  // namespace capsfw::detail
