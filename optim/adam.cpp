#include <capsfw/optim/adam.hpp>

#include <algorithm>
#include <cmath>

#include <capsfw/core/parallel.hpp>

#include "../core/denormals.hpp"
#include "../core/simd.hpp"

namespace capsfw {
namespace {

template <class T>
struct Coefficients {
  T shrink, decay;  // of the weights: decoupled, through the gradient
  T keep1, take1, keep2, take2;
  T lr, root, eps;  // p -= lr m / (root √v + eps), bias corrections included
};

/// The whole rule in one pass, which memory bandwidth bounds. `w` is read only for amsgrad.
template <bool amsgrad, class T>
void adam(std::int64_t n,
          T* __restrict p,
          const T* __restrict g,
          T* __restrict m,
          T* __restrict v,
          T* __restrict w,
          const Coefficients<T>& c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T pi = c.shrink * p[i];
    const T gi = g[i] + c.decay * pi;
    const T mi = c.keep1 * m[i] + c.take1 * gi;
    T vi = c.keep2 * v[i] + c.take2 * gi * gi;
    m[i] = mi;
    v[i] = vi;
    if constexpr (amsgrad) {
      vi = std::max(w[i], vi);
      w[i] = vi;
    }
    p[i] = pi - c.lr * mi / (c.root * std::sqrt(vi) + c.eps);
  }
}

}  // namespace

Adam::Adam(const std::string& name,
           const std::vector<ParamGroup>& groups,
           const AdamOptions& options,
           bool decoupled)
    : Optimizer(name,
                groups,
                options.lr,
                options.weight_decay,
                options.amsgrad
                    ? std::vector<std::string>{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
                    : std::vector<std::string>{"exp_avg", "exp_avg_sq"}),
      options_(options),
      decoupled_(decoupled) {
  const auto& o = options;
  require(o.beta1 >= 0 && o.beta1 < 1, name + ": beta1 must lie in [0, 1)", o.beta1);
  require(o.beta2 >= 0 && o.beta2 < 1, name + ": beta2 must lie in [0, 1)", o.beta2);
  require_eps(o.eps);
}

AdamW::AdamW(const std::vector<ParamGroup>& groups, const AdamWOptions& o)
    : Adam("AdamW", groups, {o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.amsgrad}, true) {}

void Adam::update(const Update& u) {
  visit_float(u.value, "Adam", [&]<class T>() {
    const AdamOptions& o = options_;
    const double t = static_cast<double>(u.t);
    const Coefficients<T> c{
        static_cast<T>(decoupled_ ? 1 - u.lr * u.weight_decay : 1),
        static_cast<T>(decoupled_ ? 0 : u.weight_decay),
        static_cast<T>(o.beta1),
        static_cast<T>(1 - o.beta1),
        static_cast<T>(o.beta2),
        static_cast<T>(1 - o.beta2),
        static_cast<T>(u.lr / (1 - std::pow(o.beta1, t))),
        static_cast<T>(1 / std::sqrt(1 - std::pow(o.beta2, t))),
        static_cast<T>(o.eps),
    };
    T* p = u.value.mutable_data<T>();
    const T* g = u.grad.data<T>();
    T* m = u.buffers[0].mutable_data<T>();
    T* v = u.buffers[1].mutable_data<T>();
    T* w = o.amsgrad ? u.buffers[2].mutable_data<T>() : nullptr;
    parallel_for(u.value.numel(), 2, [&](std::int64_t b, std::int64_t end) {
      const detail::FlushDenormals flush;
      detail::simd([&] {
        if (w != nullptr)
          adam<true>(end - b, p + b, g + b, m + b, v + b, w + b, c);
        else
          adam<false>(end - b, p + b, g + b, m + b, v + b, w, c);
      });
    });
  });
}

}  // namespace capsfw
