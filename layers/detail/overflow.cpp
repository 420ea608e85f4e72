#include "overflow.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>
#include <capsfw/core/parallel.hpp>

#include "../../core/simd.hpp"

namespace capsfw::detail {

namespace {

/// From here on squares of squares, as derivatives of norms have them, overflow.
double large_of(DType dtype) { return std::pow(largest_number(dtype), 0.25); }

/// True if an element is large; NaN is not.
bool large(const Tensor& x) {
  const Tensor data = contiguous_data(x);
  return visit_float(x, "overflow", [&]<class T>() {
    const T* p = data.data<T>();
    const T limit = static_cast<T>(large_of(x.dtype()));
    std::atomic<bool> found = false;
    parallel_for(data.numel(), 1, [=, &found](std::int64_t begin, std::int64_t end) {
      int any = 0;
      simd([=, &any] {
        int here = 0;  // no early exit: for vector instructions
        for (std::int64_t i = begin; i < end; ++i) here |= std::abs(p[i]) > limit ? 1 : 0;
        any = here;
      });
      if (any != 0) found = true;
    });
    return found.load();
  });
}

bool all_finite(const Tensor& x) {
  if (!x.defined()) return true;
  const Tensor data = contiguous_data(x);
  return visit_float(x, "overflow", [&]<class T>() {
    const T* p = data.data<T>();
    return std::all_of(p, p + data.numel(), [](T v) { return std::isfinite(v); });
  });
}

bool all_finite(const TensorList& all) {
  return std::all_of(all.begin(), all.end(), [](const Tensor& x) { return all_finite(x); });
}

double largest(const TensorList& all) {
  double most = 0;
  for (const Tensor& x : all)
    if (x.defined())
      for (const double v : x.to_vector<double>()) most = std::max(most, std::abs(v));
  return most;
}

OverflowError error(std::string_view who, std::string_view what, double most, DType dtype) {
  const double end = largest_number(dtype);
  return OverflowError(fmt::format(
      "{}: a {} is not finite: the inputs are as large as {:.3g}, squares of {} overflow above "
      "{:.2g}, and squares of squares, as derivatives have them, above {:.2g}. Hint: smaller "
      "weights (a smaller --lr, --clip 1), or shorter inputs",
      who, what, most, name_of(dtype), std::sqrt(end), large_of(dtype)));
}

}  // namespace

void check_overflow(std::string_view who, const TensorList& results, const TensorList& inputs) {
  if (all_finite(results) || !all_finite(inputs)) return;
  const DType dtype = inputs.front().dtype();
  const double most = largest(inputs);
  if (most >= large_of(dtype)) throw error(who, "result", most, dtype);
}

void check_gradient_overflow(std::string_view who,
                             const TensorList& signs,
                             const TensorList& gradients,
                             const TensorList& inputs,
                             const TensorList& cotangents) {
  if (std::none_of(signs.begin(), signs.end(), large)) return;
  if (!all_finite(gradients) && all_finite(inputs) && all_finite(cotangents))
    throw error(who, "gradient", largest(inputs), signs.front().dtype());
}

struct OverflowWatch::State {
  std::string who;
  double most;
  DType dtype;
  bool spoiled = false;  ///< a cotangent was not finite when it came
};

namespace {

using StatePtr = std::shared_ptr<OverflowWatch::State>;

Tensor identity(const Tensor& x, Rule rule) {
  TensorList y{x.detach()};
  if (must_record({x})) Node::attach("watch_overflow", {x}, y, Save::none, std::move(rule));
  return y[0];
}

// Each is the gradient of the other: what leaves the first pass enters the second.
Tensor watch_output(const Tensor& y, const StatePtr& state);

Tensor watch_input(const Tensor& x, const StatePtr& state) {
  return identity(x, [state](const Saved&, const TensorList& g) -> TensorList {
    if (!state->spoiled && !all_finite(g))
      throw error(state->who, "gradient", state->most, state->dtype);
    return {watch_output(g[0], state)};
  });
}

Tensor watch_output(const Tensor& y, const StatePtr& state) {
  return identity(y, [state](const Saved&, const TensorList& g) -> TensorList {
    state->spoiled = state->spoiled || !all_finite(g);
    return {watch_input(g[0], state)};
  });
}

}  // namespace

OverflowWatch::OverflowWatch(std::string_view who, const Tensor& x) {
  if (must_record({x}) && large(x) && all_finite(x))
    state_ = std::make_shared<State>(State{std::string(who), largest({x}), x.dtype()});
}

Tensor OverflowWatch::input(const Tensor& x) const {
  return state_ && x.defined() ? watch_input(x, state_) : x;
}

Tensor OverflowWatch::output(const Tensor& y) const {
  return state_ && y.defined() ? watch_output(y, state_) : y;
}

}  // namespace capsfw::detail
