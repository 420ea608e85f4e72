#include <capsfw/ops/gradcheck.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/random.hpp>

namespace capsfw {
namespace {

using Values = std::vector<double>;

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// Thrown inside a check and turned into its result.
struct Failure {
  std::string message;
};

void require_finite(const Values& v,
                    std::string_view what,
                    std::size_t number,
                    const Shape& shape) {
  for (std::size_t i = 0; i < v.size(); ++i)
    if (!std::isfinite(v[i]))
      throw Failure{fmt::format("{} {} {} is {} at element {}", what, number, shape.str(),
                                std::isnan(v[i]) ? "nan" : "infinite", i)};
}

void require_f64(const Tensor& t, std::string_view name, std::string_view kind, std::size_t i) {
  if (!t.defined()) throw ValueError(fmt::format("{}: {} {} is undefined", name, kind, i));
  if (t.dtype() != DType::f64)
    throw DTypeError(fmt::format(
        "{}: {} {} must be f64, differences need its digits; got {} {}. Hint: to(x, DType::f64); "
        "capture indices and masks in the function",
        name, kind, i, name_of(t.dtype()), t.shape().str()));
}

void validate(const TensorList& inputs, const GradcheckOptions& o, std::string_view name) {
  if (!(o.eps > 0) || !(o.rtol >= 0) || !(o.atol >= 0) || o.directions < 0 || o.components < 0 ||
      (o.directions == 0 && o.components == 0))
    throw ValueError(fmt::format(
        "{}: eps > 0, tolerances >= 0 and some directions or components are needed; got eps = {}, "
        "rtol = {}, atol = {}, directions = {}, components = {}",
        name, o.eps, o.rtol, o.atol, o.directions, o.components));
  if (inputs.empty()) throw ValueError(fmt::format("{}: needs at least one input", name));
  for (std::size_t i = 0; i < inputs.size(); ++i) require_f64(inputs[i], name, "input", i);
}

/// fn(x), recorded: the outputs that can have gradients. `fn` may differentiate inside.
TensorList floating_outputs(const Function& fn, const TensorList& x, std::string_view name) {
  const GradModeGuard recording(true);
  TensorList y;
  const TensorList all = fn(x);
  for (std::size_t k = 0; k < all.size(); ++k) {
    if (all[k].defined() && !is_floating(all[k].dtype())) continue;
    require_f64(all[k], name, "output", k);
    y.push_back(all[k]);
  }
  if (y.empty()) throw ValueError(fmt::format("{}: the function has no floating output", name));
  return y;
}

class Check {
 public:
  Check(const Function& fn,
        const TensorList& inputs,
        const GradcheckOptions& o,
        std::string_view name)
      : fn_(fn), options_(o), name_(name), rng_(o.seed) {
    validate(inputs, o, name);
    for (const Tensor& x : inputs) {
      shapes_.push_back(x.shape());
      point_.push_back(x.to_vector<double>());
    }
  }

  GradcheckResult run() {
    try {
      draw_cotangents();
      analytic();  // fills whatever fn keeps on its first run: leaf nodes, caches
      const std::int64_t nodes = live_nodes();
      const double value = evaluate(point_), again = evaluate(point_);
      if (value != again)
        throw Failure{fmt::format(
            "the function must give the same result for the same inputs; got {} and {}. Hint: copy "
            "the Rng inside the function",
            value, again)};
      const std::vector<Values> gradients = analytic();
      for (std::size_t i = 0; i < point_.size(); ++i) compare_input(i, gradients[i]);
      if (live_nodes() != nodes)
        throw Failure{fmt::format(
            "{} nodes of the graph stay alive after the check. Hint: something keeps a result of "
            "the function, or a rule holds its own output",
            live_nodes() - nodes)};
    } catch (const Failure& f) {
      return {false, fmt::format("{}: {}", name_, f.message)};
    }
    if (worst_ > 0) return {false, fmt::format("{}: {}", name_, worst_message_)};
    return {true, fmt::format("{}: {} derivatives agree", name_, compared_)};
  }

 private:
  TensorList leaves(const std::vector<Values>& at) const {
    TensorList x;
    for (std::size_t i = 0; i < at.size(); ++i)
      x.push_back(from_vector(at[i], shapes_[i]).requires_grad_());
    return x;
  }

  void draw_cotangents() {
    for (const Tensor& y : floating_outputs(fn_, leaves(point_), name_))
      cotangents_.push_back(rng_.normal(y.shape(), 0, 1, DType::f64).to_vector<double>());
  }

  /// Σ_k ⟨c_k, y_k⟩.
  double evaluate(const std::vector<Values>& at) const {
    const TensorList y = floating_outputs(fn_, leaves(at), name_);
    if (y.size() != cotangents_.size())
      throw Failure{"the number of outputs changes from run to run"};
    double sum = 0;
    for (std::size_t k = 0; k < y.size(); ++k) {
      const Values v = y[k].to_vector<double>();
      if (v.size() != cotangents_[k].size())
        throw Failure{fmt::format("the shape of output {} changes from run to run", k)};
      require_finite(v, "output", k, y[k].shape());
      sum += dot(cotangents_[k], v);
    }
    return sum;
  }

  /// The gradients under test. One that is not there counts as zeros.
  std::vector<Values> analytic() {
    const TensorList x = leaves(point_), all = floating_outputs(fn_, x, name_);
    TensorList y, c;
    for (std::size_t k = 0; k < all.size(); ++k)
      if (all[k].requires_grad()) {
        y.push_back(all[k]);
        c.push_back(from_vector(cotangents_.at(k), all[k].shape()));
      }
    TensorList g(x.size());
    if (!y.empty()) g = grad(y, x, c, {.allow_unused = true});
    std::vector<Values> result;
    reached_.clear();
    for (std::size_t i = 0; i < x.size(); ++i) {
      reached_.push_back(g[i].defined());
      result.push_back(g[i].defined() ? g[i].to_vector<double>() : Values(point_[i].size(), 0.0));
      require_finite(result[i], "the gradient of input", i, shapes_[i]);
    }
    return result;
  }

  void compare_input(std::size_t i, const Values& gradient) {
    const std::size_t n = point_[i].size();
    if (n == 0) return;
    for (int d = 0; d < options_.directions; ++d) {
      Values direction(n);
      for (double& v : direction) v = rng_.normal();
      compare(i, direction, dot(gradient, direction), fmt::format("random direction {}", d));
    }
    if (static_cast<std::int64_t>(n) > options_.components) return;
    for (std::size_t e = 0; e < n; ++e) {
      Values direction(n, 0.0);
      direction[e] = 1;
      compare(i, direction, gradient[e], fmt::format("element {}", e));
    }
  }

  void compare(std::size_t i, const Values& direction, double expected, const std::string& where) {
    const auto shifted = [&](double step) {
      std::vector<Values> at = point_;
      for (std::size_t e = 0; e < direction.size(); ++e) at[i][e] += step * direction[e];
      return evaluate(at);
    };
    const double numeric = (shifted(options_.eps) - shifted(-options_.eps)) / (2 * options_.eps);
    const double error = std::abs(numeric - expected);
    const double allowed = options_.atol + options_.rtol * std::abs(numeric);
    ++compared_;
    if (error <= allowed) return;
    const double ratio = allowed > 0 && std::isfinite(error)
                             ? error / allowed
                             : std::numeric_limits<double>::infinity();
    if (ratio <= worst_) return;
    worst_ = ratio;
    worst_message_ = fmt::format(
        "input {} {}, {}: numeric {:.10g}, analytic {:.10g}, error {:.3g}, allowed {:.3g}{}", i,
        shapes_[i].str(), where, numeric, expected, error, allowed,
        reached_[i] ? "" : ". Hint: no gradient reaches this input: was the graph cut?");
  }

  const Function& fn_;
  GradcheckOptions options_;
  std::string name_;
  Rng rng_;
  std::vector<Shape> shapes_;
  std::vector<Values> point_, cotangents_;
  std::vector<bool> reached_;  // by a gradient
  double worst_ = 0;
  std::string worst_message_;
  int compared_ = 0;
};

}  // namespace

GradcheckResult gradcheck(const Function& fn,
                          const TensorList& inputs,
                          const GradcheckOptions& options) {
  return Check(fn, inputs, options, "gradcheck").run();
}

GradcheckResult gradgradcheck(const Function& fn,
                              const TensorList& inputs,
                              const GradcheckOptions& options) {
  validate(inputs, options, "gradgradcheck");
  const std::size_t n = inputs.size();
  TensorList all = inputs, leaves;
  for (const Tensor& x : inputs) leaves.push_back(x.detach().requires_grad_());
  Rng rng(options.seed, 1);
  for (const Tensor& y : floating_outputs(fn, leaves, "gradgradcheck"))
    all.push_back(rng.normal(y.shape(), 0, 1, DType::f64));
  const Function gradient = [&fn, n](const TensorList& in) {
    const TensorList x(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(n));
    const TensorList outputs = floating_outputs(fn, x, "gradgradcheck");
    TensorList y, c;
    for (std::size_t k = 0; k < outputs.size(); ++k)
      if (outputs[k].requires_grad()) {
        y.push_back(outputs[k]);
        c.push_back(in.at(n + k));
      }
    TensorList g(n);
    if (!y.empty()) g = grad(y, x, c, {.create_graph = true, .allow_unused = true});
    for (std::size_t i = 0; i < n; ++i)
      if (!g[i].defined()) g[i] = zeros_like(x[i]);
    return g;
  };
  return Check(gradient, all, options, "gradgradcheck").run();
}

}  // namespace capsfw
