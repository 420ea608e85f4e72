#include <capsfw/core/debug.hpp>

#include <cmath>
#include <utility>

#include <fmt/format.h>

namespace capsfw {
namespace {

thread_local bool t_anomaly = false;
thread_local std::shared_ptr<const std::string> t_path;

/// "nan", "inf" or nullptr; and the smallest finite element, which often tells the reason.
const char* first_bad(const Tensor& x) {
  if (!x.defined() || !is_floating(x.dtype())) return nullptr;
  for (double v : x.to_vector<double>()) {
    if (std::isnan(v)) return "NaN";
    if (std::isinf(v)) return "infinity";
  }
  return nullptr;
}

std::string range_of(const Tensor& x) {
  double lo = INFINITY, hi = -INFINITY;
  for (double v : x.to_vector<double>()) {
    lo = std::fmin(lo, v);
    hi = std::fmax(hi, v);
  }
  return fmt::format("{} in [{:g}, {:g}]", x.shape().str(), lo, hi);
}

}  // namespace

AnomalyGuard::AnomalyGuard(bool enabled) : previous_(std::exchange(t_anomaly, enabled)) {}
AnomalyGuard::~AnomalyGuard() { t_anomaly = previous_; }

Scope::Scope(std::string_view name) : previous_(t_path) {
  t_path = std::make_shared<const std::string>(t_path ? fmt::format("{}/{}", *t_path, name)
                                                      : std::string(name));
}
Scope::~Scope() { t_path = std::move(previous_); }

namespace detail {

bool anomaly_enabled() { return t_anomaly; }

const std::shared_ptr<const std::string>& current_path() { return t_path; }

void check_forward(std::string_view name, const TensorList& inputs, const TensorList& outputs) {
  for (const Tensor& x : inputs)
    if (first_bad(x) != nullptr) return;  // not the first place
  for (std::size_t k = 0; k < outputs.size(); ++k)
    if (const char* bad = first_bad(outputs[k])) {
      std::string ranges;
      for (const Tensor& x : inputs)
        if (x.defined() && is_floating(x.dtype())) ranges += " input " + range_of(x);
      throw GradError(fmt::format("{} in forward of '{}'{} (output {});{}", bad, name,
                                  t_path ? " at " + *t_path : std::string(), k, ranges));
    }
}

void check_arrivals(const Node& node, const TensorList& cotangents) {
  for (std::size_t k = 0; k < cotangents.size(); ++k)
    if (const char* bad = first_bad(cotangents[k]))
      throw GradError(
          fmt::format("{} in the gradient that reaches {} (output {} of shape {}): in the gradient "
                      "given to the backward pass, in the answer of a hook, or in a sum",
                      bad, node.where(), k, cotangents[k].shape().str()));
}

void check_backward(const Node& node, const TensorList& grads) {
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (!node.edges()[i].node) continue;  // a constant: nobody reads this gradient
    if (const char* bad = first_bad(grads[i]))
      throw GradError(fmt::format("{} in backward of {} (gradient for input {} of shape {})", bad,
                                  node.where(), i, grads[i].shape().str()));
  }
}

}  // namespace detail
}  // namespace capsfw
