#include <capsfw/optim/rmsprop.hpp>

#include <cmath>

#include <capsfw/core/parallel.hpp>

#include "../core/denormals.hpp"
#include "../core/simd.hpp"

namespace capsfw {
namespace {

template <class T>
struct Coefficients {
  T lr, decay, keep, take, eps, momentum;
};

/// The whole rule in one pass. `a` is read only if centered, `b` only with momentum.
template <bool centered, bool momentum, class T>
void rmsprop(std::int64_t n,
             T* __restrict p,
             const T* __restrict g,
             T* __restrict s,
             T* __restrict a,
             T* __restrict b,
             const Coefficients<T>& c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T gi = g[i] + c.decay * p[i];
    T square = c.keep * s[i] + c.take * gi * gi;
    s[i] = square;
    if constexpr (centered) {
      const T mean = c.keep * a[i] + c.take * gi;
      a[i] = mean;
      square -= mean * mean;
      square = square < 0 ? 0 : square;  // a NaN is kept
    }
    T d = gi / (std::sqrt(square) + c.eps);
    if constexpr (momentum) {
      d += c.momentum * b[i];
      b[i] = d;
    }
    p[i] -= c.lr * d;
  }
}

std::vector<std::string> buffer_names(const RMSpropOptions& o) {
  std::vector<std::string> names = {"square_avg"};
  if (o.centered) names.push_back("grad_avg");
  if (o.momentum != 0) names.push_back("momentum_buffer");
  return names;
}

}  // namespace

RMSprop::RMSprop(const std::vector<ParamGroup>& groups, const RMSpropOptions& options)
    : Optimizer("RMSprop", groups, options.lr, options.weight_decay, buffer_names(options)),
      options_(options) {
  const auto& o = options;
  require(o.alpha >= 0 && o.alpha < 1, "RMSprop: alpha must lie in [0, 1)", o.alpha);
  require_eps(o.eps);
  require(std::isfinite(o.momentum) && o.momentum >= 0, "RMSprop: momentum must be finite and >= 0",
          o.momentum);
}

void RMSprop::update(const Update& u) {
  visit_float(u.value, "RMSprop", [&]<class T>() {
    const bool centered = options_.centered, momentum = options_.momentum > 0;
    const Coefficients<T> c{static_cast<T>(u.lr),           static_cast<T>(u.weight_decay),
                            static_cast<T>(options_.alpha), static_cast<T>(1 - options_.alpha),
                            static_cast<T>(options_.eps),   static_cast<T>(options_.momentum)};
    T* p = u.value.mutable_data<T>();
    const T* g = u.grad.data<T>();
    T* s = u.buffers[0].mutable_data<T>();
    T* a = centered ? u.buffers[1].mutable_data<T>() : nullptr;
    T* b = momentum ? u.buffers[centered ? 2 : 1].mutable_data<T>() : nullptr;
    parallel_for(u.value.numel(), 2, [&](std::int64_t i, std::int64_t end) {
      const detail::FlushDenormals flush;
      detail::simd([&] {
        const std::int64_t n = end - i;
        if (centered && momentum)
          rmsprop<true, true>(n, p + i, g + i, s + i, a + i, b + i, c);
        else if (centered)
          rmsprop<true, false>(n, p + i, g + i, s + i, a + i, b, c);
        else if (momentum)
          rmsprop<false, true>(n, p + i, g + i, s + i, a, b + i, c);
        else
          rmsprop<false, false>(n, p + i, g + i, s + i, a, b, c);
      });
    });
  });
}

}  // namespace capsfw
