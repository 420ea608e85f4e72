#pragma once
// Private: what the forward and the backward pass of agreement_shared.hpp share: sizes, operands as
// their loops read them, and the products of one sample.

#include <algorithm>
#include <limits>

#include "../../ops/kernels/panel.hpp"
#include "../../ops/kernels/routing.hpp"
#include "../../ops/kernels/small_product.hpp"
#include "agreement_shared.hpp"

namespace capsfw::detail {

/// Sizes, and operands with rows filled up by 0 to whole vectors.
template <class T>
struct SharedPlan {
  /// Of every instruction set: a multiple of the lanes.
  static constexpr std::int64_t kUnit = 16;
  /// Terms that are summed at once; sums of more are sums of such sums.
  static constexpr std::int64_t kDepth = 256;
  /// Children whose couplings are made at once.
  static constexpr std::int64_t kBlock = 64;

  SharedPlan(const ProductInputs& in, const AgreementRule& rule, const RoutingWindows& w)
      : sources(in.u.size(0)),
        windows(w.count),
        step(w.step),
        samples(sources * windows),
        i(w.rows > 0 ? w.rows : in.u.size(1)),
        j(in.weight.size(0)),
        d(in.weight.size(1)),
        e(in.weight.size(2)),
        r(rule.sums),
        children(in.u.size(1)),
        wide_i(kernels::round_up(i, kUnit)),
        wide_d(kernels::round_up(d, kUnit)),
        wide_e(kernels::round_up(e, kUnit)),
        // The last window reads whole vectors.
        wide_c(kernels::round_up(children + kUnit - 1, kUnit)),
        uniform(rule.uniform_start(in.prior.defined())),
        leaky(rule.leaky),
        u_(widened(in.u, wide_e)),
        columns_(turned(in.u, wide_c)),
        weight_(widened(in.weight, wide_e)),
        back_(turned(in.weight, wide_d)),
        prior_(in.prior.defined() ? turned(in.prior, wide_i) : Tensor()),
        bias_(in.bias.defined() ? contiguous_data(in.bias) : Tensor()),
        shares_(uniform_shares(bias_, samples, j, in.u.dtype(), rule.leaky_start())),
        u(u_.data<T>()),
        columns(columns_.data<T>()),
        weight(weight_.data<T>()),
        back(back_.data<T>()),
        prior(data_or_null<T>(prior_)),
        bias(data_or_null<T>(bias_)),
        shares(shares_.data<T>()) {}

  std::int64_t sources, windows, step, samples, i, j, d, e, r;
  std::int64_t children;  ///< of a source
  std::int64_t wide_i, wide_d, wide_e, wide_c;
  bool uniform, leaky;

 private:
  Tensor u_, columns_, weight_, back_, prior_, bias_, shares_;

 public:
  const T* u;        ///< [B, R, wide_e]
  const T* columns;  ///< [B, E, wide_c]
  const T* weight;   ///< [J, D, wide_e]
  const T* back;     ///< the same, transposed [J, E, wide_d]
  const T* prior;    ///< [J, wide_i] or null
  const T* bias;     ///< [samples, J] or null
  const T* shares;   ///< couplings of a uniform start [samples, J]

  /// Calls f(begin, width) for pieces of the rows of a table. Loops over a width that is not known
  /// beforehand become vector loops, unlike those over 16 lanes.
  template <class F>
  void for_blocks(const F& f) const {
    for (std::int64_t x = 0; x < wide_i; x += kBlock) f(x, std::min(kBlock, wide_i - x));
  }

  std::int64_t table() const { return j * wide_i; }
  std::int64_t caps() const { return j * d; }
  /// Of the iterations of a sample in [samples, r, J, D].
  std::int64_t at(std::int64_t sample, std::int64_t t) const { return (sample * r + t) * caps(); }
  std::int64_t first_child(std::int64_t sample) const { return sample % windows * step; }
  const T* u_of(std::int64_t sample) const {
    return u + (sample / windows * children + first_child(sample)) * wide_e;
  }
  /// Where the children of a sample begin in something like `columns`.
  std::int64_t columns_of(std::int64_t sample) const {
    return sample / windows * e * wide_c + first_child(sample);
  }

  /// W_j x_j: [J, wide_e] -> [J, wide_d].
  template <class L>
  void forth(const T* x, T* y) const {
    for (std::int64_t k = 0; k < j; ++k)
      kernels::small_product<L, false, T>(1, e, wide_d, {x + k * wide_e, 0, 1},
                                          back + k * e * wide_d, wide_d, y + k * wide_d, wide_d);
  }
  /// W_jᵀ x_j: [J, D] -> [J, wide_e].
  template <class L>
  void pull(const T* x, T* y) const {
    for (std::int64_t k = 0; k < j; ++k)
      kernels::small_product<L, false, T>(1, d, wide_e, {x + k * d, 0, 1}, weight + k * d * wide_e,
                                          wide_e, y + k * wide_e, wide_e);
  }
  /// Σ_i c_mi u_i for `count` rows: [count, wide_e].
  template <class L>
  void sum_children(std::int64_t count, kernels::LeftMatrix<T> c, const T* rows, T* y) const {
    for (std::int64_t at = 0; at < i; at += kDepth) {
      const std::int64_t depth = std::min(kDepth, i - at);
      const kernels::LeftMatrix<T> part{c.data + at * c.column, c.row, c.column};
      if (at == 0)
        kernels::small_product<L, false>(count, depth, wide_e, part, rows, wide_e, y, wide_e);
      else
        kernels::small_product<L, true>(count, depth, wide_e, part, rows + at * wide_e, wide_e, y,
                                        wide_e);
    }
  }
  /// σ_j under the uniform couplings of a sample; `sum`: room for wide_e numbers.
  template <class L>
  void sum_equally(std::int64_t sample, T* sum, T* y) const {
    const T one = T(1), *share = shares + sample * j;
    sum_children<L>(1, {&one, 0, 0}, u_of(sample), sum);
    for (std::int64_t k = 0; k < j; ++k)
      for (std::int64_t x = 0; x < wide_e; ++x) y[k * wide_e + x] = share[k] * sum[x];
  }
  /// ⟨u_i, x_j⟩: [J, wide_i]. What stands where no child is means nothing.
  template <class L>
  void agree(std::int64_t sample, const T* x, T* y) const {
    kernels::small_product<L, false, T>(j, e, wide_i, {x, wide_e, 1}, columns + columns_of(sample),
                                        wide_c, y, wide_i);
  }
  /// c = softmax_j(⟨u_i, k_j⟩ + prior + bias) [J, wide_i], 0 where no child is. `k` null: 0.
  template <class L>
  void couple(std::int64_t sample, const T* k, T* c) const {
    if (k != nullptr)
      agree<L>(sample, k, c);
    else
      std::fill_n(c, table(), T(0));
    for (std::int64_t x = 0; prior != nullptr && x < table(); ++x) c[x] += prior[x];
    for (std::int64_t m = 0; bias != nullptr && m < j; ++m)
      for (std::int64_t x = 0; x < wide_i; ++x) c[m * wide_i + x] += bias[sample * j + m];
    for_blocks([this, c](std::int64_t x, std::int64_t width) { softmax(c + x, width); });
    clear_rest(c);
  }
  /// 0 where no child of the sample is.
  void clear_rest(T* c) const {
    for (std::int64_t m = 0; m < j; ++m) std::fill(c + m * wide_i + i, c + (m + 1) * wide_i, T(0));
  }

 private:
  /// Softmax over the rows of c [J, width] out of [J, wide_i]; `leaky` adds a logit 0.
  void softmax(T* __restrict c, std::int64_t width) const {
    T top[kBlock], total[kBlock];
    std::fill_n(top, width, leaky ? T(0) : -std::numeric_limits<T>::infinity());
    for (T* p = c; p < c + table(); p += wide_i)
      for (std::int64_t x = 0; x < width; ++x) top[x] = p[x] > top[x] ? p[x] : top[x];
    for (std::int64_t x = 0; x < width; ++x)
      total[x] = leaky ? kernels::exp_nonpositive(-top[x]) : T(0);
    for (T* p = c; p < c + table(); p += wide_i)
      for (std::int64_t x = 0; x < width; ++x) {
        p[x] = kernels::exp_nonpositive(p[x] - top[x]);
        total[x] += p[x];
      }
    for (std::int64_t x = 0; x < width; ++x) total[x] = T(1) / total[x];
    for (T* p = c; p < c + table(); p += wide_i)
      for (std::int64_t x = 0; x < width; ++x) p[x] *= total[x];
  }
  /// [..., n] -> [..., width], filled up by 0.
  static Tensor widened(const Tensor& given, std::int64_t width) {
    const Tensor from = contiguous_data(given);
    const std::int64_t n = from.size(-1), count = from.numel() / n;
    if (n == width) return from;
    Tensor to = zeros({count, width}, from.dtype());
    const T* p = from.data<T>();
    T* q = to.template mutable_data<T>();
    parallel_for(count, width / 4, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) std::copy_n(p + row * n, n, q + row * width);
    });
    return to;
  }
  /// [..., m, n] -> [..., n, width], filled up by 0.
  static Tensor turned(const Tensor& given, std::int64_t width) {
    const Tensor from = contiguous_data(given);
    const std::int64_t n = from.size(-1), m = from.size(-2), count = from.numel() / (m * n);
    Tensor to = zeros({count, n, width}, from.dtype());
    const T* p = from.data<T>();
    T* q = to.template mutable_data<T>();
    parallel_for(count, m * n / 4, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t x = begin; x < end; ++x)
        kernels::transpose_in(m, n, p + x * m * n, n, q + x * n * width, width);
    });
    return to;
  }
};

}  // namespace capsfw::detail
