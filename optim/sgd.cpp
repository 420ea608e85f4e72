#include <capsfw/optim/sgd.hpp>

#include <cmath>

#include <capsfw/core/parallel.hpp>

#include "../core/denormals.hpp"
#include "../core/simd.hpp"

namespace capsfw {
namespace {

template <class T>
struct Coefficients {
  T lr, decay;
  T keep, take;  // b = keep b + take g
  T ahead;       // nesterov: d = g + ahead b
};

template <class T>
void plain(std::int64_t n, T* __restrict p, const T* __restrict g, const Coefficients<T>& c) {
  for (std::int64_t i = 0; i < n; ++i) p[i] -= c.lr * (g[i] + c.decay * p[i]);
}

template <bool nesterov, class T>
void with_momentum(std::int64_t n,
                   T* __restrict p,
                   const T* __restrict g,
                   T* __restrict b,
                   const Coefficients<T>& c) {
  for (std::int64_t i = 0; i < n; ++i) {
    const T gi = g[i] + c.decay * p[i];
    const T bi = c.keep * b[i] + c.take * gi;
    b[i] = bi;
    p[i] -= c.lr * (nesterov ? gi + c.ahead * bi : bi);
  }
}

}  // namespace

SGD::SGD(const std::vector<ParamGroup>& groups, const SGDOptions& options)
    : Optimizer("SGD",
                groups,
                options.lr,
                options.weight_decay,
                options.momentum != 0 ? std::vector<std::string>{"momentum_buffer"}
                                      : std::vector<std::string>{}),
      options_(options) {
  const auto& o = options;
  require(std::isfinite(o.momentum) && o.momentum >= 0, "SGD: momentum must be finite and >= 0",
          o.momentum);
  require(o.dampening >= 0 && o.dampening <= 1, "SGD: dampening must lie in [0, 1]", o.dampening);
  require(!o.nesterov || o.momentum > 0, "SGD: nesterov needs momentum > 0", o.momentum);
  require(!o.nesterov || o.dampening == 0, "SGD: nesterov needs dampening = 0", o.dampening);
}

void SGD::update(const Update& u) {
  visit_float(u.value, "SGD", [&]<class T>() {
    const bool momentum = options_.momentum > 0, first = u.t == 1;
    const Coefficients<T> c{static_cast<T>(u.lr), static_cast<T>(u.weight_decay),
                            static_cast<T>(first ? 0 : options_.momentum),
                            static_cast<T>(first ? 1 : 1 - options_.dampening),
                            static_cast<T>(options_.momentum)};
    T* p = u.value.mutable_data<T>();
    const T* g = u.grad.data<T>();
    T* b = momentum ? u.buffers[0].mutable_data<T>() : nullptr;
    const bool nesterov = options_.nesterov;
    parallel_for(u.value.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
      const detail::FlushDenormals flush;
      detail::simd([&] {
        const std::int64_t n = end - begin;
        if (!momentum)
          plain(n, p + begin, g + begin, c);
        else if (nesterov)
          with_momentum<true>(n, p + begin, g + begin, b + begin, c);
        else
          with_momentum<false>(n, p + begin, g + begin, b + begin, c);
      });
    });
  });
}

}  // namespace capsfw
