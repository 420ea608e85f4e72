#include <capsfw/optim/clip.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include <fmt/format.h>

#include "../core/reduction.hpp"
#include "../core/strided.hpp"

namespace capsfw {
namespace {

/// Σ x², in fixed chunks that are added in order.
double sum_of_squares(const Tensor& x) {
  constexpr std::int64_t kChunk = 1 << 15;
  const Tensor rows = contiguous_data(x);
  const std::int64_t n = rows.numel();
  std::vector<double> partial(static_cast<std::size_t>((n + kChunk - 1) / kChunk));
  visit_float(x, "clip_grad_norm", [&]<class T>() {
    const T* p = rows.data<T>();
    parallel_for(static_cast<std::int64_t>(partial.size()), kChunk,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t k = begin; k < end; ++k)
                     detail::simd([&] {
                       partial[static_cast<std::size_t>(k)] = detail::reduce_row<double>(
                           p + k * kChunk, std::min(kChunk, n - k * kChunk), 1, 0.0,
                           [](double acc, T v) {
                             const double d = static_cast<double>(v);
                             return acc + d * d;
                           },
                           std::plus<double>());
                     });
                 });
  });
  double sum = 0;
  for (double s : partial) sum += s;
  return sum;
}

/// Replaces the gradient of `param` by f of it, elementwise.
template <class F>
void map_grad(Tensor param, F f) {
  const Tensor g = param.grad();
  Tensor y = empty(g.shape(), g.dtype());
  visit_float(g, "clip_grad", [&]<class T>() {
    detail::map1<T, T>(g, y, [f](T v) { return static_cast<T>(f(v)); });
  });
  param.set_grad(y);
}

/// The tensors of `params` that have a gradient, each once.
TensorList with_grad(const TensorList& params) {
  TensorList out;
  for (const Tensor& p : params) {
    const auto same = [&](const Tensor& q) { return q.impl() == p.impl(); };
    if (p.grad().defined() && std::none_of(out.begin(), out.end(), same)) out.push_back(p);
  }
  return out;
}

}  // namespace

double clip_grad_norm(const TensorList& params, double max_norm, ClipOptions options) {
  if (!(max_norm >= 0))
    throw ValueError(fmt::format("clip_grad_norm: max_norm must be >= 0; got {}", max_norm));
  const TensorList list = with_grad(params);
  double sum = 0;
  std::string culprit;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const double s = sum_of_squares(list[i].grad());
    if (!std::isfinite(s) && culprit.empty()) culprit = list[i].shape().str();
    sum += s;
  }
  const double norm = std::sqrt(sum);
  if (!std::isfinite(norm)) {
    if (options.error_if_nonfinite)
      throw ValueError(
          fmt::format("clip_grad_norm: the norm of the gradients must be finite; got {}, first in "
                      "a parameter {}. Hint: AnomalyGuard names the op",
                      norm, culprit));
    return norm;
  }
  if (norm > max_norm) {
    const double scale = max_norm / norm;
    for (const Tensor& p : list)
      map_grad(p, [scale]<class T>(T v) { return static_cast<T>(scale) * v; });
  }
  return norm;
}

void clip_grad_value(const TensorList& params, double limit) {
  if (!(limit >= 0))
    throw ValueError(fmt::format("clip_grad_value: limit must be >= 0; got {}", limit));
  for (const Tensor& p : with_grad(params))
    map_grad(p, [limit]<class T>(T v) {
      const T high = static_cast<T>(limit);
      return v > high ? high : v < -high ? -high : v;
    });
}

}  // namespace capsfw
