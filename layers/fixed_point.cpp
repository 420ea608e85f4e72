#include <capsfw/layers/fixed_point.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/replay.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/gmres.hpp"

namespace capsfw {
namespace {

/// A relative residual of the adjoint system above which the gradient would be worthless.
constexpr double kUseless = 1e-3;
/// What products in f32 allow to reach.
constexpr double kSinglePrecision = 1e-6;

TensorList part(const TensorList& list, std::size_t from, std::size_t count) {
  const auto first = list.begin() + static_cast<std::ptrdiff_t>(from);
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

TensorList detached(const TensorList& list, bool requires_grad = false) {
  TensorList out;
  for (const Tensor& x : list) {
    out.push_back(x.detach());
    if (requires_grad) out.back().requires_grad_();
  }
  return out;
}

std::vector<double> pack(const TensorList& list) {
  std::vector<double> all;
  for (const Tensor& x : list) {
    const auto values = x.to_vector<double>();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

TensorList unpack(const std::vector<double>& values, const TensorList& like) {
  TensorList out;
  auto next = values.begin();
  for (const Tensor& x : like) {
    const auto end = next + x.numel();
    out.push_back(cast_data(from_vector(std::vector<double>(next, end), x.shape()), x.dtype()));
    next = end;
  }
  return out;
}

/// w = (I − ∂f/∂x)⁻ᵀ g. The graph of one step is built once and walked once per product.
TensorList solve_adjoint(const FixedPointStep& step,
                         const TensorList& state,
                         const TensorList& inputs,
                         const TensorList& g,
                         const FixedPointOptions& o) {
  const TensorList x = detached(state, true);
  TensorList outputs;
  std::vector<std::size_t> which;
  {
    const GradModeGuard recording(true);
    const TensorList all = step(x, detached(inputs));
    for (std::size_t k = 0; k < all.size(); ++k)
      if (all[k].requires_grad()) {
        outputs.push_back(all[k]);
        which.push_back(k);
      }
  }
  if (outputs.empty()) return detached(g);  // f does not depend on x
  const auto apply = [&](const std::vector<double>& w) {
    const TensorList all = unpack(w, x);
    TensorList cotangents;
    for (const std::size_t k : which) cotangents.push_back(all[k]);
    TensorList back = grad(outputs, x, cotangents, {.retain_graph = true, .allow_unused = true});
    for (std::size_t k = 0; k < back.size(); ++k)
      if (!back[k].defined()) back[k] = zeros_like(x[k]);
    std::vector<double> product = pack(back);
    for (std::size_t i = 0; i < product.size(); ++i) product[i] = w[i] - product[i];
    return product;
  };
  double tolerance = o.backward_tolerance;
  for (const Tensor& t : x)
    if (t.dtype() == DType::f32) tolerance = std::max(tolerance, kSinglePrecision);
  const detail::GmresResult solved = detail::gmres(
      apply, pack(g), {.tolerance = tolerance, .max_products = o.backward_iterations});
  if (!(solved.residual <= std::max(kUseless, tolerance)))
    throw GradError(
        fmt::format("fixed_point: the adjoint system (I - df/dx)^T w = g is singular or needs more "
                    "than {} products; got a relative residual of {:.3g}. Hint: iterate closer to "
                    "the fixed point, or raise backward_iterations",
                    o.backward_iterations, solved.residual));
  return unpack(solved.x, x);
}

/// f' with the fixed point w = g + (∂f/∂x)ᵀ w; its inputs are those of f between x and g.
FixedPointStep adjoint_of(const FixedPointStep& step, std::size_t states, std::size_t inputs) {
  return [step, states, inputs](const TensorList& w, const TensorList& rest) {
    const TensorList theta = part(rest, states, inputs), g = part(rest, states + inputs, states);
    TensorList out =
        replay([&](const TensorList& x) { return step(x, theta); }, part(rest, 0, states), w);
    for (std::size_t k = 0; k < states; ++k) out[k] = out[k].defined() ? g[k] + out[k] : g[k];
    return out;
  };
}

/// Records solve(inputs) as a fixed point of `step`. The gradient is made of another one, so that
/// derivatives of any order need no further rule.
TensorList implicit(const FixedPointStep& step,
                    const Function& solve,
                    const TensorList& inputs,
                    const FixedPointOptions& o) {
  return custom_vjp(
      "fixed_point", inputs, solve,
      [step, o](const TensorList& in, const TensorList& x, const TensorList& gx) {
        const std::size_t m = x.size(), n = in.size();
        TensorList rest = x;
        rest.insert(rest.end(), in.begin(), in.end());
        for (std::size_t k = 0; k < m; ++k)
          rest.push_back(gx[k].defined() ? gx[k] : zeros_like(x[k]));
        const TensorList w = implicit(
            adjoint_of(step, m, n),
            [&](const TensorList& all) {
              return solve_adjoint(step, part(all, 0, m), part(all, m, n), part(all, m + n, m), o);
            },
            rest, o);
        std::vector<bool> needs;
        for (const Tensor& t : in) needs.push_back(t.requires_grad());
        return replay([&](const TensorList& theta) { return step(x, theta); }, in, w, needs);
      });
}

void check(const TensorList& x0, const FixedPointOptions& o) {
  if (x0.empty()) throw ValueError("fixed_point: the state must hold at least one tensor");
  for (const Tensor& x : x0) check_floating(x, "fixed_point");
  if (!(o.tolerance >= 0) || o.max_iterations < 1)
    throw ValueError(fmt::format(
        "fixed_point: tolerance must be at least 0 and max_iterations at least 1; got {} and {}",
        o.tolerance, o.max_iterations));
  if (!(o.backward_tolerance >= 0) || o.backward_iterations < 1)
    throw ValueError(
        fmt::format("fixed_point: backward_tolerance must be at least 0 and "
                    "backward_iterations at least 1; got {} and {}",
                    o.backward_tolerance, o.backward_iterations));
}

void check_shapes(const TensorList& before, const TensorList& after) {
  if (before.size() != after.size())
    throw ShapeError(
        fmt::format("fixed_point: the step must return as many tensors as the state "
                    "has, {}; got {}",
                    before.size(), after.size()));
  for (std::size_t k = 0; k < before.size(); ++k)
    if (before[k].shape() != after[k].shape() || before[k].dtype() != after[k].dtype())
      throw ShapeError(
          fmt::format("fixed_point: the step must keep shape and type of state {}, {} {}; got {} "
                      "{}",
                      k, name_of(before[k].dtype()), before[k].shape().str(),
                      name_of(after[k].dtype()), after[k].shape().str()));
}

double largest(const Tensor& x) { return x.numel() == 0 ? 0.0 : max(abs(x)).item(); }

}  // namespace

FixedPoint fixed_point(const FixedPointStep& step,
                       const TensorList& x0,
                       const TensorList& inputs,
                       const FixedPointOptions& o) {
  check(x0, o);
  FixedPoint out;
  const auto iterate = [&](const TensorList& in) {
    const TensorList theta = detached(in);
    TensorList x = detached(x0);
    while (out.iterations < o.max_iterations && !out.converged) {
      TensorList next = step(x, theta);
      check_shapes(x, next);
      ++out.iterations;
      out.change = 0;
      double size = 1;
      for (std::size_t k = 0; k < x.size(); ++k) {
        const double change = largest(next[k] - x[k]);
        if (!(change <= out.change)) out.change = change;
        size = std::max(size, largest(next[k]));
      }
      x = std::move(next);
      if (!std::isfinite(out.change)) break;  // a NaN stays one
      out.converged = out.change <= o.tolerance * size;
    }
    return x;
  };
  out.state = implicit(step, iterate, inputs, o);
  return out;
}

}  // namespace capsfw
